"""Which drivers of the tree a patch belongs to."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdrv.gate.touched import touched

from .gate_repo import History

OUTSIDE = '[project]\nname = "foo"\n\n[driver]\nmodule = "foo"\npath = "."\n'
NAMED = '[project]\nname = "net"\n\n[driver]\nmodule = "net"\nsymbol = "{}"\n'
MAKEFILE = """obj-$(CONFIG_NET_ONE) += one.o \\
	shared.o
one-y := main.o ring.o
one-$(CONFIG_NET_DEBUG) += debug.o
obj-$(CONFIG_NET_TWO) += two/
obj-$(CONFIG_NET_ONE_MORE) += more.o
"""


@pytest.fixture
def history(tmp_path: Path) -> History:
    made = History(tmp_path / "linux")
    made.commit(
        {
            "kdrv.toml": '[policy]\npreset = "driver"\n',
            "drivers/misc/foo/kdrv.toml": OUTSIDE,
            "drivers/misc/foo/foo.rs": "",
            "drivers/net/Makefile": MAKEFILE,
            "tests/one/kdrv.toml": NAMED.format("CONFIG_NET_ONE"),
            "tests/two/kdrv.toml": NAMED.format("NET_TWO"),
            "tests/bad/kdrv.toml": "no [ toml",
            "tests/deep/kdrv.toml": f"driver = {'[' * 5000}",
        }
    )
    return made


@pytest.mark.parametrize(
    ("path", "folders"),
    [
        ("drivers/misc/foo/foo.rs", ("drivers/misc/foo",)),
        ("drivers/misc/foo/tests/test_foo.py", ("drivers/misc/foo",)),
        ("drivers/misc/food.rs", ()),
        ("drivers/net/one.c", ("tests/one",)),
        ("drivers/net/shared.c", ("tests/one",)),
        ("drivers/net/ring.rs", ("tests/one",)),
        ("drivers/net/debug.c", ("tests/one",)),
        ("drivers/net/more.c", ()),
        ("drivers/net/two/anything.h", ("tests/two",)),
        ("tests/two/tests/test_two.py", ("tests/two",)),
        ("tests/bad/x", ("tests/bad",)),
        ("tests/deep/x", ("tests/deep",)),
        ("README", ()),
    ],
)
def test_whose_a_file_is(history: History, path: str, folders: tuple[str, ...]) -> None:
    assert touched(history.repo, history.commits[-1], {path}) == folders
