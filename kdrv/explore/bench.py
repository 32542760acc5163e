"""Where plans are run: one driver, or two, on one kernel or two."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from kdrv.core.context import Context
from kdrv.core.errors import UsageError
from kdrv.explore.declare import Menu
from kdrv.explore.differential import differences
from kdrv.explore.execute import Run, Stand, scans
from kdrv.explore.history import History, Violation
from kdrv.explore.plan import Plan
from kdrv.explore.properties import violations
from kdrv.guest.session import Guest
from kdrv.sim.machine import SimMachine
from kdrv.sim.world import SimWorld
from kdrv.testing.driver import Driver
from kdrv.toolchain.base import Toolchain

HOST_PATIENCE = 5.0
"""How long a kernel may compute, in seconds of the host, while no virtual time passes."""


class Bench:
    """Executes plans for one driver on a plain and perhaps a checked kernel.

    ``rivals`` are the same with another driver for the same device in its place, to compare with.
    """

    def __init__(
        self,
        ctx: Context,
        toolchain: Toolchain,
        stands: Mapping[bool, Stand],
        menu: Menu,
        rivals: Mapping[bool, Stand] | None = None,
    ) -> None:
        self.stands = stands
        self.rivals = rivals or {}
        self.menu = menu
        self._ctx = ctx
        self._toolchain = toolchain

    def run(
        self,
        plan: Plan,
        look: Callable[[SimMachine, Driver], None] | None = None,
        before: Callable[[Guest], None] | None = None,
        *,
        rival: bool = False,
        patience: float = HOST_PATIENCE,
    ) -> History:
        """Run a plan in a fresh machine, with the driver or its rival.

        ``before`` is called before the driver is loaded, ``look`` after it. ``patience`` is as in
        :class:`~kdrv.sim.world.SimWorld`. Raises :class:`UsageError` for a plan of a kernel that
        is not here.
        """
        stands = self.rivals if rival else self.stands
        if plan.checked not in stands:
            kind = "checked" if plan.checked else "plain"
            raise UsageError(
                f"the plan is for the {kind} kernel, which was not asked for",
                expected=f"--kernels {kind}, or both",
                remedy="kdrv explore --kernels both ...",
            )
        stand = stands[plan.checked]
        spec = stand.spec
        if plan.checked and not scans(plan):
            words = ("kmemleak=off" if word == "kmemleak=on" else word for word in spec.cmdline)
            spec = replace(spec, cmdline=tuple(words))
        world = SimWorld(self._ctx, self._toolchain, patience=patience, plan=plan.faults)
        with world.boot(spec) as machine:
            run = Run(machine, stand, self.menu, plan)
            run.live(look, before)
            return run.history()

    def judge(self, plan: Plan, history: History) -> list[Violation]:
        """All that is wrong with a run: broken properties, and where the rival does otherwise."""
        found = violations(history, self.menu.properties, self.menu.without)
        if not found and plan.checked in self.rivals:
            names = (
                self.stands[plan.checked].driver.module,
                self.rivals[plan.checked].driver.module,
            )
            found = differences(history, self.run(plan, rival=True), names)
        return found
