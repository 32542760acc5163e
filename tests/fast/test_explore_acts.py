"""What is done to a driver in configfs, and where leaks are looked for."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kdrv.build.module import module_place
from kdrv.explore import acts
from kdrv.explore.execute import scans
from kdrv.explore.plan import Plan
from kdrv.explore.shown import Shown, operations
from kdrv.sim.faults import FaultKind, FaultPlan, Rule


class Tree:
    """A guest whose configfs is a directory of the host's; what cannot be removed stays."""

    def __init__(self, root: Path, stays: frozenset[str] = frozenset()) -> None:
        self.root, self.stays = root, stays

    def _at(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def listdir(self, path: str) -> list[str]:
        return sorted(entry.name for entry in self._at(path).iterdir())

    def stat(self, path: str) -> os.stat_result:
        return self._at(path).stat()

    def read_text(self, path: str) -> str:
        return self._at(path).read_text()

    def write_text(self, path: str, text: str) -> None:
        self._at(path).write_text(text)

    def mkdir(self, path: str) -> None:
        self._at(path).mkdir()

    def rmdir(self, path: str) -> None:
        if Path(path).name in self.stays:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        # In configfs attributes go with their item.
        for entry in self._at(path).iterdir():
            if entry.is_file():
                entry.unlink()
        self._at(path).rmdir()


@pytest.fixture
def call(tmp_path: Path) -> Any:
    (tmp_path / "sys/group").mkdir(parents=True)
    (tmp_path / "sys/bar").write_text("7")
    (tmp_path / "sys/group/value").write_text("1")
    for name, mode in (("bar", 0o444), ("group/value", 0o644)):
        (tmp_path / "sys" / name).chmod(mode)
    return SimpleNamespace(guest=Tree(tmp_path))


def test_every_attribute_below_an_item_can_be_reached(call: Any) -> None:
    assert acts.configure_item(call, "/sys", "", 0, "9") == "7"  # for reading only
    assert acts.configure_item(call, "/sys", "", 1, "9") == "9"
    assert acts.configure_item(call, "/sys", "group", 4) == "9"
    acts.make_item(call, "/sys", "a")
    assert acts.configure_item(call, "/sys", "a", 3, "x") is None
    with pytest.raises(FileNotFoundError):
        acts.configure_item(call, "/sys", "b", 0, "x")


def test_what_was_made_is_removed_from_the_inside_out(call: Any, tmp_path: Path) -> None:
    for name in ("a", "a/a", "b"):
        acts.make_item(call, "/sys", name)
    (tmp_path / "sys/a/a/size").write_text("1")
    call.guest.stays = frozenset({"group"})
    acts.remove_items(call.guest, "/sys")
    assert call.guest.listdir("/sys") == ["bar", "group"]
    assert stat.S_ISDIR(call.guest.stat("/sys/group").st_mode)


def test_a_subsystem_is_configured_too() -> None:
    shown = Shown(subsystems=("/sys/kernel/config/x",))
    assert {"make_item", "remove_item", "configure_item"} < {one.name for one in operations(shown)}


@pytest.mark.parametrize(
    ("seed", "kinds", "checked", "expected"),
    [
        (1, (), True, False),
        (4, (), True, True),
        (4, (), False, False),
        (1, (FaultKind.PROBE_FAIL_NTH,), True, True),
        (1, (FaultKind.IRQ_LOST,), True, False),
    ],
)
def test_leaks_are_looked_for_where_memory_runs_out(
    seed: int, kinds: tuple[FaultKind, ...], checked: bool, expected: bool
) -> None:
    rules = tuple(Rule(kind, 1.0) for kind in kinds)
    assert scans(Plan((), FaultPlan(seed, rules), checked)) is expected


def test_a_directory_of_the_tree_is_built_in_its_place(tmp_path: Path) -> None:
    tree: Any = SimpleNamespace(path=tmp_path / "linux")
    assert module_place(tmp_path / "linux/samples/rust", tree) == "/run/kdrv/src/samples/rust"
    assert module_place(tmp_path / "edu", tree) == "/run/kdrv/mod"
