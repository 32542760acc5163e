"""Is one seed one history? Every seed several times, with all faults on, while the machine is busy.

``python -m bench.exact [--seeds N] [--runs M] [--checked] [--device KIND ...]``: for each device's
Rust driver from ``kdrv new``, one line. A history is one hash over console and device trace.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from kdrv.core.context import Context
from kdrv.core.errors import KdrvError
from kdrv.core.project import load_project
from kdrv.guest.files import GuestFile
from kdrv.guest.operations import Operations
from kdrv.guest.session import Guest
from kdrv.kernel.arch import Arch
from kdrv.scaffold.api import ScaffoldRequest, create
from kdrv.sim import allocfail, removal
from kdrv.sim.faults import FACTS, FaultKind, FaultPlan, Rule, Side
from kdrv.sim.machine import SimMachine
from kdrv.sim.world import SimWorld
from kdrv.testing.prepare import Prepared, TestRequest, prepare_project

DEVICES = ("edu", "ringdev", "testdev")
PATIENCE = 120.0
CALLS = 12
BURNERS = 2
IOCTL, IOCTL_SIZES, IOCTL_NUMBERS = ord("|") << 8, (4, 8, 16), range(0x80, 0x88)
"""As the drivers from ``kdrv new`` number theirs."""
RARE = {FaultKind.SURPRISE_REMOVE: 0.002, FaultKind.IRQ_STORM: 0.005}
ALL_FAULTS = tuple(
    Rule(kind, RARE.get(kind, 0.03 if facts.side is not Side.GUEST else 0.3))
    for kind, facts in FACTS.items()
)


@dataclass(frozen=True)
class Subject:
    """A driver for one device, built and ready to boot."""

    device: str
    prepared: Prepared


@dataclass(frozen=True)
class History:
    """What one run showed: the hash, and the lines it was made of."""

    hash: str
    lines: tuple[str, ...]
    virtual: float
    fired: frozenset[FaultKind]


@dataclass(frozen=True)
class Row:
    """All runs of one subject."""

    device: str
    seeds: int
    runs: int
    different: tuple[int, ...]
    distinct: int
    fired: frozenset[FaultKind]
    virtual: float
    seconds: float

    def __str__(self) -> str:
        verdict = "one hash per seed" if not self.different else f"DIFFERENT: {self.different}"
        return (
            f"{self.device:<12} {self.seeds} seeds x {self.runs}: {verdict}; "
            f"{self.distinct} histories, {len(self.fired)} kinds of faults fired; "
            f"{self.virtual:.0f} s simulated in {self.seconds:.0f} s"
        )


def subject(ctx: Context, device: str, scratch: Path, *, checked: bool) -> Subject:
    """Scaffold the device's driver and build it for the simulator."""
    place = scratch / device
    place.mkdir()
    made = create(ScaffoldRequest("exact", "pci", device=device, directory=place))
    request = TestRequest(load_project(made.path), "sim", arch=Arch.UM, debug=checked)
    return Subject(device, prepare_project(ctx, request, place))


def run(ctx: Context, one: Subject, seed: int, rules: Sequence[Rule] = ALL_FAULTS) -> History:
    """Load the driver, make seeded calls on its files, unload it."""
    prepared = one.prepared
    plan = FaultPlan(seed, tuple(rules), jitter=0.5)
    world = SimWorld(ctx, prepared.bench.toolchain, patience=PATIENCE, plan=plan)
    with world.boot(prepared.spec) as machine:
        with suppress(KdrvError):
            _use(machine, Guest.of(machine), prepared, random.Random(seed))
        lines = (*machine.console.since(), *(str(record) for record in machine.trace))
        fired = frozenset(fault.kind for fault in machine.schedule.fired)
        return History(machine.history(), lines, machine.clock(), fired)


def _use(machine: SimMachine, guest: Guest, prepared: Prepared, dice: random.Random) -> None:
    assert prepared.driver
    allocfail.prepare(guest)
    before = set(guest.listdir("/dev"))
    with suppress(OSError):
        _calls(machine, guest, FaultKind.PROBE_FAIL_NTH).load(prepared.driver.path).result()
    for name in sorted(set(guest.listdir("/dev")) - before):
        with suppress(OSError), guest.open(f"/dev/{name}") as file:
            for _ in range(CALLS):
                with suppress(OSError):
                    _call(_calls(machine, guest, FaultKind.ALLOC_FAIL_NTH), file, dice)
    removal.announce(machine, guest)
    with suppress(OSError):
        guest.unload(prepared.driver.module)
    guest.power_off()


def _calls(machine: SimMachine, guest: Guest, kind: FaultKind) -> Operations:
    """The guest's calls, of which an allocation fails if the schedule says so."""
    drawn = machine.schedule.draw(kind, "guest", machine.now)
    return allocfail.failing(guest, allocfail.number_of(drawn)) if drawn else guest.begin


def _call(calls: Operations, file: GuestFile, dice: random.Random) -> None:
    """A seeded read, write or ioctl."""
    offset, size = dice.randrange(4096), dice.randrange(1, 256)
    match dice.randrange(3):
        case 0:
            calls.pwrite(file, dice.randbytes(size), offset).result()
        case 1:
            calls.pread(file, size, offset).result()
        case _:
            argument = dice.randbytes(dice.choice(IOCTL_SIZES))
            request = IOCTL | len(argument) << 16 | dice.choice(IOCTL_NUMBERS)
            calls.ioctl(file, request | dice.randint(1, 3) << 30, argument).result()


def measure(ctx: Context, one: Subject, seeds: range, runs: int) -> Row:
    """Run every seed ``runs`` times; prints the first divergence of each seed that has one."""
    began = time.monotonic()
    different, hashes, fired, virtual = [], set(), frozenset[FaultKind](), 0.0
    for seed in seeds:
        first = run(ctx, one, seed)
        for again in (run(ctx, one, seed) for _ in range(runs - 1)):
            if again.hash != first.hash:
                different.append(seed)
                print(f"{one.device}, seed {seed}: {divergence(first, again)}")
                break
        hashes.add(first.hash)
        fired |= first.fired
        virtual += first.virtual * runs
    seconds = time.monotonic() - began
    return Row(one.device, len(seeds), runs, tuple(different), len(hashes), fired, virtual, seconds)


def divergence(one: History, two: History) -> str:
    """The first line in which two histories differ."""
    for number, (left, right) in enumerate(zip(one.lines, two.lines, strict=False)):
        if left != right:
            return f"line {number}: {left!r} and {right!r}"
    return f"{len(one.lines)} and {len(two.lines)} lines"


@contextmanager
def busy(count: int = BURNERS) -> Iterator[None]:
    """Processes beside us that never wait."""
    with ExitStack() as stack:
        for _ in range(count):
            burner = multiprocessing.get_context("spawn").Process(target=_burn, daemon=True)
            burner.start()
            stack.callback(burner.join)
            stack.callback(burner.kill)
        yield


def _burn() -> None:
    while True:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.exact")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--checked", action="store_true")
    parser.add_argument("--device", action="append", choices=DEVICES)
    chosen = parser.parse_args()
    ctx, bad = Context(), False
    with tempfile.TemporaryDirectory() as scratch:
        subjects = [
            subject(ctx, device, Path(scratch), checked=chosen.checked)
            for device in chosen.device or DEVICES
        ]
        with busy():
            for one in subjects:
                row = measure(ctx, one, range(chosen.seeds), chosen.runs)
                print(row, flush=True)
                bad |= bool(row.different)
    sys.exit(bad)


if __name__ == "__main__":
    main()
