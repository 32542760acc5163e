"""Drivers that a series touches: their tests in QEMU and a short campaign, held against the base's.

The tests are the patch's own code, and have a sandbox of their own.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from kdrv.build.api import Workbench
from tests.real import kernel_series as made
from tests.real.conftest import Kdrv

pytestmark = [pytest.mark.real, pytest.mark.late]

NAME = "gatedemo"
FOLDER = f"drivers/misc/{NAME}"
NEEDED = ("Makefile", "Kbuild", "Kconfig", "drivers/misc/Kconfig", "drivers/misc/Makefile")
NOSY = '''# SPDX-License-Identifier: GPL-2.0
"""Looks around where it runs."""

import os
import socket
from pathlib import Path

HERE = Path(__file__).parent
SECRET = Path("{secret}")


def refused(path):
    try:
        path.write_text("x")
    except OSError:
        return True
    return False


def test_nothing_of_the_host_is_there(driver):
    assert not SECRET.exists()
    assert not Path("/var").exists()
    assert [name for _, name in socket.if_nameindex()] == ["lo"]
    assert not [name for name in os.environ if "SECRET" in name]


def test_nothing_but_its_own_place_can_be_written(driver):
    places = (HERE / "x", Path("/x"), Path("/usr/x"), Path("/proc/sys/kernel/core_pattern"))
    assert all(refused(place) for place in places)
    assert os.getuid() != 0
'''


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("home") / "key"
    path.write_text("secret")
    return path


@pytest.fixture(scope="module")
def driver(
    kdrv: Kdrv, bench: Workbench, secret: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The files of a patch that adds a driver, as ``kdrv new --in-tree`` writes them."""
    tree = tmp_path_factory.mktemp("tree")
    for name in NEEDED:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(bench.tree.path / name, tree / name)
    before = {name: (tree / name).read_bytes() for name in NEEDED}
    said = kdrv("new", NAME, "--bus", "misc", "--in-tree", tree, "--subdir", "drivers/misc")
    assert said.status == 0, said.err
    (tree / FOLDER / "tests/test_nosy.py").write_text(NOSY.format(secret=secret))
    files = [path for path in tree.rglob("*") if path.is_file()]
    names = {str(path.relative_to(tree)): path for path in files}
    return {
        name: path.read_text()
        for name, path in names.items()
        if before.get(name) != path.read_bytes()
    }


def checks(kdrv: Kdrv, maker: made.Maker, source: str) -> dict[str, dict[str, Any]]:
    """The checks of the last patch, by name."""
    os.environ["KDRV_SECRET"] = "1"
    try:
        said = kdrv("gate", "--json", "--repo", maker.path, source)
    finally:
        del os.environ["KDRV_SECRET"]
    assert said.out, said.err
    return {one["name"]: one for one in said.data["patches"][-1]["checks"]}


def test_a_new_driver_is_tested_and_explored(
    kdrv: Kdrv, maker: made.Maker, driver: dict[str, str]
) -> None:
    source = maker.series("driver", ("misc: Add a driver", driver))
    judged = checks(kdrv, maker, source)
    tests, explored = judged[f"tests {NAME}"], judged[f"explore {NAME}"]
    assert tests["outcome"] == "pass", tests
    assert int(tests["summary"].split()[0]) > 20
    assert explored["outcome"] == "pass", explored
    assert int(explored["summary"].split()[0]) > 50


def test_only_what_worked_at_the_base_can_be_broken(
    kdrv: Kdrv, maker: made.Maker, driver: dict[str, str]
) -> None:
    source = f"{FOLDER}/{NAME}.rs"
    check = "        if limit > CAPACITY {\n            return Err(EINVAL);\n        }\n\n"
    own = f"{FOLDER}/tests/test_own.py"
    wrong = "def test_wrong(driver):\n    assert driver is None\n"
    start = maker.commit(
        maker.git("rev-parse", "base"), "misc: Add a driver", {**driver, own: wrong}
    )
    tip = maker.commit(start, "misc: Accept any limit", {source: made.swap(check, "")})
    judged = checks(kdrv, maker, f"{start}..{tip}")
    tests, explored = judged[f"tests {NAME}"], judged[f"explore {NAME}"]
    assert tests["outcome"] == "fail"
    assert "test_a_limit_above_the_capacity_is_refused" in tests["summary"]
    assert not [line for line in tests["detail"] if "test_wrong" in line]
    assert "kdrv test --qemu --kernel . drivers/misc/gatedemo" in tests["reproducer"]
    assert explored["outcome"] == "fail"
    assert "the driver has accepted a limit" in explored["summary"]

    reworded = {source: made.swap("//! A character device", "//! Some character device")}
    same = checks(kdrv, maker, f"{start}..{maker.commit(start, 'misc: Reword', reworded)}")
    assert same[f"tests {NAME}"]["outcome"] == "warn"
    assert "test_wrong" in same[f"tests {NAME}"]["summary"]
    assert same[f"explore {NAME}"]["outcome"] == "pass"


def test_tests_that_end_the_process_are_a_verdict(
    kdrv: Kdrv, maker: made.Maker, driver: dict[str, str]
) -> None:
    ends = f"{FOLDER}/tests/test_ends.py"
    files = {**driver, ends: "import os\n\nos._exit(3)\n"}
    source = maker.series("ends", ("misc: Add a driver", files))
    tests = checks(kdrv, maker, source)[f"tests {NAME}"]
    assert tests["outcome"] == "fail"
    assert "ended with status 3 and without a result" in tests["summary"]
