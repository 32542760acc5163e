"""Testing: the pytest plugin, the machine that tests share, and how a run ended."""
