from __future__ import annotations

from pathlib import Path

import pytest

from kdrv.toolchain.debian import DebianToolchain
from kdrv.toolchain.requirements import SCRIPT, TABLE, Requirements, at_least, numbers
from tests.fast.conftest import FakeRunner

RECORDINGS = Path(__file__).parent / "recordings/doctor"
TOOLCHAIN = DebianToolchain(Path("/root-of-debian"), "id", {})


def _with_table(tree: Path) -> None:
    (tree / TABLE).parent.mkdir(parents=True)
    (tree / TABLE).write_text((RECORDINGS / "changes.rst").read_text())


def test_the_script_and_the_table_of_a_tree(fake_tree: Path, runner: FakeRunner) -> None:
    _with_table(fake_tree)
    (fake_tree / SCRIPT).touch()
    runner.answers = [(SCRIPT, (RECORDINGS / "min-tool-version.txt").read_text())]
    wanted = Requirements.of_tree(fake_tree, TOOLCHAIN, runner)
    assert wanted.versions == {
        "gcc": "8.1.0",
        "llvm": "17.0.1",
        "rustc": "1.85.0",
        "bindgen": "0.71.1",
        "binutils": "2.30.0",
        "make": "4.0",
        "flex": "2.5.35",
        "bison": "2.0",
        "bc": "1.06.95",
        "pahole": "1.26",
        "python3": "3.9",
        "openssl": "1.0.0",
    }
    assert not wanted.rust


def test_the_script_runs_in_the_sandbox_and_the_tree_is_read_only(
    fake_tree: Path, runner: FakeRunner
) -> None:
    (fake_tree / SCRIPT).touch()
    runner.answers = [(SCRIPT, "")]
    Requirements.of_tree(fake_tree, TOOLCHAIN, runner)
    argv = runner.ran[0].argv
    assert argv[0] == "bwrap"
    assert "--bind" not in argv
    assert ("--setenv", "SRCARCH", "x86") in zip(argv, argv[1:], argv[2:], strict=False)


def test_a_tool_the_script_does_not_know(fake_tree: Path, runner: FakeRunner) -> None:
    (fake_tree / SCRIPT).touch()
    runner.answers = [(SCRIPT, "gcc 5.1.0\nbindgen \n")]
    assert Requirements.of_tree(fake_tree, TOOLCHAIN, runner).versions == {"gcc": "5.1.0"}


def test_a_tree_older_than_the_script_has_its_table(fake_tree: Path, runner: FakeRunner) -> None:
    _with_table(fake_tree)
    wanted = Requirements.of_tree(fake_tree, TOOLCHAIN, runner)
    assert wanted.minimum("gcc") == "8.1"
    assert runner.ran == []


def test_a_tree_with_neither(fake_tree: Path, runner: FakeRunner) -> None:
    wanted = Requirements.of_tree(fake_tree, TOOLCHAIN, runner)
    assert wanted == Requirements({}, rust=False)
    assert wanted.satisfied("gcc", "4.8")


def test_a_tree_with_rust(fake_tree: Path, runner: FakeRunner) -> None:
    (fake_tree / "scripts/rust_is_available.sh").touch()
    assert Requirements.of_tree(fake_tree, TOOLCHAIN, runner).rust


@pytest.mark.parametrize(
    ("version", "minimum", "enough"),
    [
        ("14.2.0", "8.1.0", True),
        ("1.85.1+dfsg1-1", "1.85.0", True),
        ("1.84.9", "1.85.0", False),
        ("0.71.1", "0.71.1", True),
        ("0.60.1-2", "0.71.1", False),
        ("v1.30", "1.26", True),
        ("4", "4.0.0", True),
        ("4.0.0", "4", True),
        ("anything", "", True),
        ("", "1.0", False),
        ("19.1.7", "2.30.0", True),
    ],
)
def test_versions_compare_by_their_numbers(version: str, minimum: str, enough: bool) -> None:
    assert at_least(version, minimum) is enough


def test_numbers_of_a_version() -> None:
    assert numbers("v1.30") == (1, 30)
    assert numbers("2.10o") == (2, 10)
    assert numbers("none") == ()
