"""Runs a second in the simulator, each with a fresh kernel, beside QEMU running the same test.

``python -m bench.simspeed [--rounds N] [--plain-only]``: the same 17 operations on the same driver
for the edu device, from power-on to the last answer, on one core. Rounds alternate between the
worlds, so that a drift of the machine's speed hits all.
"""

from __future__ import annotations

import argparse
import statistics
import struct
import tempfile
import time
from dataclasses import dataclass
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

PLAIN_GOAL, CHECKED_GOAL, RATIO_GOAL = 12.0, 4.0, 15.0
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
    """Seconds per run of each round, and the virtual seconds of one run, where there are any."""

    subject: Subject
    seconds: list[float]
    virtual: float = 0.0

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def row(self, goal: float | None = None) -> str:
        rate = 1 / self.median
        judged = "" if goal is None else f"  (at least {goal:g}: {_kept(rate >= goal)})"
        simulated = ""
        if self.virtual:
            simulated = f"  {self.virtual:.2f} s simulated, {self.virtual / self.median:.0f} x real"
        return (
            f"{self.subject.name:<12} {self.median * 1000:7.0f} ms a run  {rate:5.1f} runs/s"
            f"{judged}{simulated}"
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
    sim = [("sim", False, 10)] + ([("sim checked", True, 4)] if checked else [])
    found = []
    for name, debug, batch in sim:
        request = TestRequest(project, "sim", arch=Arch.UM, debug=debug)
        prepared = _prepare(ctx, request, scratch / name.replace(" ", "-"))
        world = SimWorld(ctx, prepared.bench.toolchain)
        found.append(Subject(name, world, prepared, batch))
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
    times = [Times(subject, [], test(subject)) for subject in found]
    for _ in range(rounds):
        for one in times:
            began = time.perf_counter()
            for _ in range(one.subject.batch):
                test(one.subject)
            one.seconds.append((time.perf_counter() - began) / one.subject.batch)
    return times


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
    goals = {"sim": PLAIN_GOAL, "sim checked": CHECKED_GOAL}
    for one in times:
        print(one.row(goals.get(one.subject.name)))
    ratio = times[-1].median / times[0].median
    print(
        f"{ratio:.1f} runs in the simulator for one in QEMU"
        f"  (at least {RATIO_GOAL:g}: {_kept(ratio >= RATIO_GOAL)})"
    )


if __name__ == "__main__":
    main()
