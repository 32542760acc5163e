"""Runs a second in the simulator, each with a fresh kernel, beside QEMU running the same test.

``python -m bench.simspeed [--rounds N] [--plain-only]``: the same 17 operations on the same driver
for the edu device, from power-on to the last answer, on one core. Rounds alternate between the
worlds, so that a drift of the machine's speed hits all. Where other work keeps the core busy the
runs per second of its time, not of the clock, are what counts: both are printed, for the simulator.
"""

from __future__ import annotations

import argparse
import os
import statistics
import struct
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from kdrv.core.context import Context
from kdrv.core.project import Project, load_project
from kdrv.guest.session import Guest
from kdrv.kernel.arch import Arch
from kdrv.machine.contract import World
from kdrv.qemu.world import QemuWorld
from kdrv.scaffold.api import ScaffoldRequest, create
from kdrv.sim.host import settle
from kdrv.sim.machine import SimMachine
from kdrv.sim.world import SimWorld
from kdrv.testing.prepare import Prepared, TestRequest, prepare_project

PLAIN, CHECKED, WITHOUT = "plain", "checked", "checked, kmemleak off"
GOALS, RATIO_GOAL = {PLAIN: 12.0, CHECKED: 4.0}, 15.0
CHECK = 3 << 30 | 4 << 16 | ord("|") << 8 | 0x81
"""The driver's ioctl that has the device invert a number."""


@dataclass(frozen=True)
class Subject:
    """The driver built for one kernel, and the world to run it in."""

    name: str
    world: World
    prepared: Prepared
    batch: int
    """Runs in one round."""


@dataclass
class Times:
    """Seconds per run of each round by the clock and by the core's time, and the virtual seconds of
    one run, where there are any.
    """

    subject: Subject
    virtual: float
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def row(self, goal: float | None = None) -> str:
        rate, simulated, judged = 1 / self.median, "", ""
        if self.virtual:
            busy = 1 / statistics.median(self.cpu)
            if goal is not None:
                judged = f" (at least {goal:g}: {_kept(max(rate, busy) >= goal)})"
            simulated = f"  {busy:5.1f} a second of the core{judged}  "
            simulated += (
                f"  {self.virtual:.2f} s simulated, {self.virtual / self.median:.1f} x real"
            )
        return (
            f"{self.subject.name:<22} {self.median * 1000:7.0f} ms a run  {rate:5.1f} runs/s"
            f"{simulated}"
        )


def _kept(kept: bool) -> str:
    return "kept" if kept else "MISSED"


def test(subject: Subject) -> float:
    """One run: 17 operations on the driver; the virtual seconds, or 0."""
    driver = subject.prepared.driver
    assert driver
    with subject.world.boot(subject.prepared.spec) as machine:
        guest = Guest.of(machine)
        guest.load(driver.path, driver.params)
        with guest.open("/dev/speed") as device:
            for number in range(7):
                (answer,) = struct.unpack("=I", device.ioctl(CHECK, struct.pack("=I", number)))
                assert answer == number ^ 0xFFFF_FFFF
            for turn in range(3):
                data = bytes([turn]) * 64
                assert device.pwrite(data, turn) == len(data)
                assert device.pread(len(data), turn) == data
        guest.unload(driver.module)
        return machine.clock() if isinstance(machine, SimMachine) else 0.0


def subjects(ctx: Context, scratch: Path, *, checked: bool) -> list[Subject]:
    """The driver built for the simulator's kernels and for QEMU's."""
    made = create(ScaffoldRequest("speed", "pci", device="edu", directory=scratch))
    project = load_project(made.path)
    plain = _prepare(ctx, TestRequest(project, "sim", arch=Arch.UM), scratch / "plain")
    world = SimWorld(ctx, plain.bench.toolchain)
    found = [Subject(PLAIN, world, plain, 10)]
    if checked:
        request = TestRequest(project, "sim", arch=Arch.UM, debug=True)
        whole = _prepare(ctx, request, scratch / "checked")
        found.append(Subject(CHECKED, world, whole, 4))
        # It walks the whole stack at every allocation, as KASAN does.
        fewer = replace(whole.spec, cmdline=(*whole.spec.cmdline, "kmemleak=off"))
        found.append(Subject(WITHOUT, world, replace(whole, spec=fewer), 4))
    qemu = _prepare(ctx, TestRequest(_one_processor(project), "qemu"), scratch / "qemu")
    found.append(Subject("qemu (TCG)", QemuWorld(qemu.bench.toolchain, ctx), qemu, 1))
    return found


def _prepare(ctx: Context, request: TestRequest, place: Path) -> Prepared:
    place.mkdir()
    return prepare_project(ctx, request, place)


def _one_processor(project: Project) -> Project:
    machine = msgspec.structs.replace(project.machine, cpus=1)
    return msgspec.structs.replace(project, machine=machine)


def measure(found: list[Subject], rounds: int) -> list[Times]:
    """All worlds in turn, after one uncounted run of each."""
    times = [Times(subject, test(subject)) for subject in found]
    for _ in range(rounds):
        for one in times:
            began, spent = time.perf_counter(), core_seconds()
            for _ in range(one.subject.batch):
                test(one.subject)
            one.seconds.append((time.perf_counter() - began) / one.subject.batch)
            one.cpu.append((core_seconds() - spent) / one.subject.batch)
    return times


def core_seconds() -> float:
    """The processor time of this process and all below it, ended ones included.

    What was killed together with the process that would have waited for it is missing: QEMU.
    """
    parents, spent = {}, {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name, in parentheses, may hold anything: proc(5).
            fields = place.read_text().rpartition(")")[2].split()
            process = int(place.parent.name)
            parents[process] = int(fields[1])
            spent[process] = sum(map(int, fields[11:15]))
    ticks, below = 0, {os.getpid()}
    while below:
        ticks += sum(spent[process] for process in below)
        below = {process for process, parent in parents.items() if parent in below}
    return ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.simspeed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plain-only", action="store_true", help="leave the checked kernel out")
    chosen = parser.parse_args()
    ctx = Context()
    with tempfile.TemporaryDirectory() as scratch:
        found = subjects(ctx, Path(scratch), checked=not chosen.plain_only)
        settle(0)
        times = measure(found, chosen.rounds)
    for one in times:
        print(one.row(GOALS.get(one.subject.name)))
    ratio = times[-1].median / times[0].median
    print(
        f"{ratio:.1f} runs in the simulator for one in QEMU"
        f"  (at least {RATIO_GOAL:g}: {_kept(ratio >= RATIO_GOAL)})"
    )


if __name__ == "__main__":
    main()
