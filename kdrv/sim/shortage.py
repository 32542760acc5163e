"""Memory that runs out, as the schedule of a machine says: which call, and which allocation of it.

The faults ``alloc_fail_nth`` and ``probe_fail_nth`` are drawn here, carried out by
:mod:`kdrv.sim.allocfail`, and taken back when no call made so many allocations.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from kdrv.guest.around import Around
from kdrv.guest.bodies import Outcome, Step
from kdrv.guest.link import Pending
from kdrv.guest.operations import Operations
from kdrv.guest.session import Session
from kdrv.guest.values import GuestPath
from kdrv.sim import allocfail
from kdrv.sim.allocfail import FailingCalls
from kdrv.sim.faults import FACTS, Drawn, FaultKind, Side
from kdrv.sim.machine import SimMachine

T = TypeVar("T")
GUEST_DEVICE = "guest"
PROBE_MOST = 100
"""So many allocations does a driver make that binds, where nothing better is known."""
COUNTING = 1 << 20
"""More allocations than any call makes."""


class Shortage:
    """One allocation that is to fail, the ``nth`` of a call.

    ``take_back`` is told how many a call has made that made fewer.
    """

    def __init__(self, nth: int, take_back: Callable[[int], None]) -> None:
        self.nth = nth
        self._take_back = take_back
        self._made: list[FailingCalls] = []

    @property
    def happened(self) -> bool:
        """Whether a call made so many allocations, or did not live to tell."""
        return any(calls.fired for calls in self._made)

    def calls(self, plain: Operations) -> FailingCalls:
        """A session's calls with the shortage in each."""
        self._made.append(FailingCalls(plain, self.nth))
        return self._made[-1]

    @contextlib.contextmanager
    def on(self, session: Session) -> Iterator[None]:
        """Let the session's calls suffer, then take back what did not happen."""
        undisturbed = session.begin
        session.begin = self.calls(undisturbed)
        try:
            yield
        finally:
            session.begin = undisturbed
            self.settle()

    def settle(self) -> None:
        """A shortage that did not happen did not fire."""
        if not self.happened:
            self._take_back(max((calls.made for calls in self._made), default=0))


class Scarcity:
    """Draws shortages for a machine."""

    def __init__(self, machine: SimMachine) -> None:
        self._machine = machine
        rules = machine.schedule.plan.rules
        self.wanted = any(FACTS[rule.kind].side is Side.GUEST for rule in rules)
        self._loading = 0
        """How many allocations it takes to load the driver."""
        self._binding = 0
        """How many it takes to bind it, once that is known."""

    def prepare(self, guest: Session) -> None:
        """Make the guest ready, once after boot, if any shortage is wanted.

        Raises :class:`~kdrv.core.errors.UsageError` for a kernel without fault injection.
        """
        if self.wanted:
            allocfail.prepare(guest)

    @contextlib.contextmanager
    def counting(self, session: Session) -> Iterator[None]:
        """Count the allocations of the call that loads the driver."""
        if not self.wanted:
            yield
            return
        undisturbed = session.begin
        session.begin = calls = FailingCalls(undisturbed, COUNTING)
        try:
            yield
            self._loading = calls.made
        finally:
            session.begin = undisturbed

    def draw(self, kind: FaultKind, *, loads: bool = False) -> Shortage | None:
        """A shortage for a call that begins now, if there is to be one; ``loads`` the driver."""
        machine = self._machine
        drawn = machine.schedule.draw(kind, GUEST_DEVICE, machine.now)
        if drawn is None:
            return None
        nth = self._nth(drawn, loads=loads)
        machine.trace.note(machine.now, GUEST_DEVICE, f"fault {kind}", {"nth": nth})

        def take_back(made: int) -> None:
            machine.schedule.take_back(drawn)
            # A driver that was bound already has bound nothing, and made next to none.
            if kind is FaultKind.PROBE_FAIL_NTH and not loads and made > self._loading // 4:
                self._binding = made

        return Shortage(nth, take_back)

    def _nth(self, drawn: Drawn, *, loads: bool) -> int:
        """Which allocation fails: more often one of the driver's own than the kernel's for it."""
        if drawn.kind is not FaultKind.PROBE_FAIL_NTH:
            return allocfail.number_of(drawn)
        dice = drawn.dice
        if loads and self._loading:
            # The kernel first makes a module of the file, and only then calls it.
            return self._loading - min(dice.randrange(self._loading) for _ in range(2))
        # Who loads a driver has it bind, too; a number that was too high tells the right one.
        return dice.randint(1, self._binding or self._loading or PROBE_MOST)

    @contextlib.contextmanager
    def over(self, session: Session) -> Iterator[None]:
        """Draw for every single call that the session makes meanwhile."""
        if not self.wanted:
            yield
            return
        undisturbed = session.begin
        session.begin = scarce = ScarceCalls(undisturbed, self)
        try:
            yield
        finally:
            session.begin = undisturbed
            scarce.end()


class ScarceCalls(Around):
    """A session's calls; memory runs out in some of them, until :meth:`end`."""

    def __init__(self, plain: Operations, scarcity: Scarcity) -> None:
        super().__init__(plain)
        self._scarcity: Scarcity | None = scarcity
        self._drawn: list[Shortage] = []

    def calls(
        self,
        what: str,
        steps: Sequence[Step],
        decode: Callable[[list[Outcome]], T],
        path: GuestPath | None = None,
        extra_seconds: float = 0.0,
    ) -> Pending[T]:
        """See :meth:`Operations.calls`."""
        shortage = self._scarcity and self._scarcity.draw(FaultKind.ALLOC_FAIL_NTH)
        if not shortage:
            return self._plain.calls(what, steps, decode, path, extra_seconds)
        self._drawn.append(shortage)
        return shortage.calls(self._plain).calls(what, steps, decode, path, extra_seconds)

    def end(self) -> None:
        """Files that were opened meanwhile go on with these calls, but undisturbed."""
        self._scarcity = None
        for shortage in self._drawn:
            shortage.settle()
