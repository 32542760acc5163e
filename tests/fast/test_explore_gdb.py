"""Stopping a run for a debugger: which process, what gdb is told, and what cannot be."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kdrv.core.errors import SetupError, UsageError
from kdrv.explore.gdb import commands, kernel_process, stop_at
from kdrv.explore.plan import Plan
from kdrv.kernel.modinfo import CodeSection
from kdrv.sim.faults import CALM
from kdrv.testing.traces import Code

CODE = Code("edu", ((0x7000, CodeSection(".text", 0x100, ())), (0x9000, CodeSection(".x", 4, ()))))
PLAN = Plan((), CALM)


def subject(**given: Any) -> Any:
    known = {"modules": {False: Path("/m/edu.ko")}, "sources": Path("/p"), "tree": Path("/k")}
    return SimpleNamespace(**{**known, "below": "/run/kdrv/mod", **given})


def test_gdb_is_told_of_the_driver_and_its_sources() -> None:
    told = commands(subject(), False, CODE)
    assert told[0].startswith("handle SIGSEGV ")
    assert "add-symbol-file /m/edu.ko -s .text 0x7000 -s .x 0x9000" in told
    assert "set substitute-path /run/kdrv/mod /p" in told
    assert "set substitute-path /run/kdrv/src /k" in told


@pytest.mark.parametrize(("code", "checked"), [(None, False), (CODE, True)])
def test_a_driver_without_a_module_has_no_addresses(code: Code | None, checked: bool) -> None:
    told = commands(subject(sources=None), checked, code)
    assert not any("add-symbol-file" in line or "/run/kdrv/mod" in line for line in told)


def test_the_kernel_is_found_below_its_launcher(tmp_path: Path) -> None:
    for number, name, children in ((1, "python", "2 3"), (2, "cat", ""), (3, "sh", "4")):
        place = tmp_path / f"{number}/task/{number}"
        place.mkdir(parents=True)
        (tmp_path / f"{number}/comm").write_text(f"{name}\n")
        (place / "children").write_text(children)
    (tmp_path / "4").mkdir()
    (tmp_path / "4/comm").write_text("linux\n")
    assert kernel_process(1, "linux", tmp_path) == 4
    assert kernel_process(1, "vmlinux", tmp_path) == 1


class FakeBench:
    """A run whose driver is loaded at 5 ns and that is over at 9 ns."""

    def __init__(self, image: Path) -> None:
        spec = SimpleNamespace(kernel=SimpleNamespace(image=image))
        self.stands = {False: SimpleNamespace(spec=spec)}

    def run(self, plan: Plan, look: Any, *, patience: float) -> Any:
        due: list[tuple[int, Any]] = []
        clock = SimpleNamespace(at=lambda at, action: due.append((at, action)))
        engine = SimpleNamespace(clock=clock)
        look(SimpleNamespace(now=5, engine=engine, clock=lambda: 5e-9), SimpleNamespace(code=CODE))
        for at, action in due:
            if at <= 9:
                action()
        return SimpleNamespace(lasted=9)


def stop(tmp_path: Path, seconds: float) -> list[str]:
    shown: list[str] = []
    bench: Any = FakeBench(Path("/k/linux"))
    stop_at(subject(), bench, PLAN, seconds, tmp_path, shown.append)
    return shown


def test_a_run_stops_once_and_says_how_to_attach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    (command,) = stop(tmp_path, 7e-9)
    assert command.startswith("gdb -q -p ") and command.endswith(
        f" -x {tmp_path}/kdrv.gdb /k/linux"
    )
    assert "add-symbol-file" in (tmp_path / "kdrv.gdb").read_text()
    with pytest.raises(UsageError, match="before the driver was loaded"):
        stop(tmp_path, 4e-9)
    with pytest.raises(UsageError, match="the run was over at"):
        stop(tmp_path, 10e-9)


def test_a_missing_debugger_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(SetupError, match="gdb is not installed") as caught:
        stop(tmp_path, 7e-9)
    assert caught.value.remedy == "apt-get install gdb"
