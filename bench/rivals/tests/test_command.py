"""What virtme-ng is asked to do as well."""

from kdrv.guest.session import Guest


def test_command(guest: Guest) -> None:
    assert guest.run(["uname", "-r"]).output.startswith("7.")
