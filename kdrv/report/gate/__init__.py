"""A judged series, for every reader: a person, a code host, a mailing list, another program."""
