"""From a world's name to the world, and what only a simulated one has to tell."""

from __future__ import annotations

from dataclasses import dataclass

from kdrv.build.api import Workbench
from kdrv.core.context import Context
from kdrv.machine.contract import Machine, World
from kdrv.machine.reports import Report
from kdrv.qemu.world import QemuWorld
from kdrv.sim.excuses import excused as brought_about
from kdrv.sim.faults import FaultPlan, Fired, Rule
from kdrv.sim.machine import SimMachine
from kdrv.sim.profiles import profile
from kdrv.sim.world import SimWorld
from kdrv.testing.prepare import TestRequest

JITTER = 0.5
"""How much longer than said devices may take where things go wrong."""


@dataclass(frozen=True)
class Simulated:
    """What one simulated machine lived through.

    ``history`` is one hash over its console and device trace: the same seed gives the same one.
    ``seconds`` is virtual time.
    """

    seed: int
    profile: str
    history: str
    seconds: float
    fired: tuple[Fired, ...]


def make_world(ctx: Context, request: TestRequest, bench: Workbench) -> World:
    """The world a request names. Raises :class:`UsageError` for a profile that is not known."""
    if not request.simulated:
        slots = request.project.machine.slots if request.project else 0
        return QemuWorld(bench.toolchain, ctx, hotplug_slots=slots)
    rules = rules_of(request)
    plan = FaultPlan(request.seed, rules, jitter=JITTER if rules else 0.0)
    return SimWorld(ctx, bench.toolchain, plan=plan)


def rules_of(request: TestRequest) -> tuple[Rule, ...]:
    """The rules of the request's profile: kdrv's own, of kdrv.toml, or of a file.

    Raises :class:`UsageError` for one that there is not, or that is wrong.
    """
    own = request.project.faults if request.project else {}
    return profile(request.profile, own)


def excused(machine: Machine, report: Report) -> bool:
    """Whether a report comes of what the simulator did, and says nothing of the driver."""
    return isinstance(machine, SimMachine) and brought_about(report, machine.schedule.fired)


def told(machine: Machine, request: TestRequest) -> Simulated | None:
    """What a machine that is about to end has to tell; nothing unless it is simulated."""
    if not isinstance(machine, SimMachine):
        return None
    return Simulated(
        request.seed,
        request.profile,
        machine.history(),
        machine.clock(),
        tuple(machine.schedule.fired),
    )
