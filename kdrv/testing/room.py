"""The machine that tests share: booted when first needed, thrown away once it is tainted."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kdrv.core.errors import WorkFailed
from kdrv.guest.errors import GuestCallDied, GuestGone, GuestSilent
from kdrv.guest.session import TIMEOUT, Guest
from kdrv.machine.contract import BootSpec, Machine, MachineEnded, World
from kdrv.machine.reports import Report, judge, stuck
from kdrv.machine.verdict import End, Observed, Verdict, verdict_of

BOOT_DEADLINE = 60.0
EARLY_DEADLINE = 20.0
LAST_CHANCE = 2.0
BREATH = 0.05
SETTLE_SECONDS = 3.0
"""How long the kernel gets to finish printing a report after it was seen to begin."""


class Condemned(WorkFailed):
    """The kernel said, or the machine showed, that something went wrong; see ``verdict``."""

    def __init__(self, verdict: Verdict, error: Exception | None, reproducer: str) -> None:
        detail = verdict.cause.lines if verdict.cause else getattr(error, "detail", ())
        super().__init__(verdict.sentence, detail=detail, reproducer=reproducer)
        self.verdict = verdict


@dataclass
class _Running:
    machine: Machine
    guest: Guest
    stack: contextlib.ExitStack
    judged: int
    """Console lines already judged."""
    baseline: tuple[str, ...]
    """What the kernel printed before any driver was loaded."""


class Room:
    """Boots machines from one :class:`BootSpec` and watches over what happens in them.

    ``deadline`` is how long the guest may take to answer first, ``patience`` how long a call in it
    may take, in seconds. ``on_end`` is called with every machine that was used, before it is gone.
    ``excused`` says which reports are no fault of the driver's.
    """

    def __init__(
        self,
        world: World,
        spec: BootSpec,
        *,
        deadline: float = BOOT_DEADLINE,
        patience: float = TIMEOUT,
        reproducer: str = "",
        on_end: Callable[[Machine], None] | None = None,
        excused: Callable[[Machine, Report], bool] = lambda machine, report: False,
    ) -> None:
        self.world = world
        self._excused = excused
        self._on_end = on_end
        self.spec = spec
        self.boots = 0
        self.boot_seconds = 0.0
        self._deadline = deadline
        self._patience = patience
        self._reproducer = reproducer
        self._running: _Running | None = None
        self._begun: tuple[contextlib.ExitStack, Machine] | None = None
        self._last_console: tuple[str, ...] = ()
        self._unbootable: Condemned | None = None

    @property
    def guest(self) -> Guest:
        """The guest of the present machine, booted now if there is none."""
        return self._present().guest

    @property
    def machine(self) -> Machine:
        """The present machine, booted now if there is none."""
        return self._present().machine

    @property
    def running(self) -> bool:
        """Whether a machine is there now."""
        return self._running is not None

    def begin(self) -> None:
        """Start the first machine now; who needs it finds it booted, or nearly so."""
        if self._running is None and self._begun is None:
            stack = contextlib.ExitStack()
            self._begun = stack, stack.enter_context(self.world.boot(self.spec))

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Judge what the kernel says during the block.

        Raises :class:`Condemned` when it reports anything, falls silent, or ends; the machine is
        then given up, and the next use boots a fresh one. An assertion that fails while the kernel
        is healthy passes through.
        """
        try:
            yield
        except (GuestGone, GuestSilent, GuestCallDied, MachineEnded) as error:
            # Why a call died the kernel says, on a channel that may be the slower one.
            died = isinstance(error, GuestCallDied)
            raise self._condemned(self._news(expected=died), error) from error
        except Exception:
            if reports := self._news():
                raise self._condemned(reports) from None
            if self._running and not self._running.machine.alive:
                self.discard()
            raise
        if reports := self._news():
            raise self._condemned(reports)

    def discard(self) -> None:
        """End the present machine; the next use boots another."""
        running, self._running = self._running, None
        begun, self._begun = self._begun, None
        if begun:
            begun[0].close()
        if running:
            self._last_console = running.machine.console.since()
            if self._on_end:
                self._on_end(running.machine)
            running.stack.close()

    def console(self) -> tuple[str, ...]:
        """All lines of the machine's console: the present one's, or else the last one's."""
        return self._running.machine.console.since() if self._running else self._last_console

    def _present(self) -> _Running:
        if self._unbootable:
            # What did not boot does not boot the next time: every test fails at once.
            raise self._unbootable
        if self._running is None:
            try:
                self._running = self._boot()
            except Condemned as first:
                # Emulated processors of a busy host drift apart, and a kernel may then wait for
                # ever while it chooses its clock. One that hangs by its own fault does so again.
                if first.verdict.outcome is not End.BOOT_HANG:
                    self._unbootable = first
                    raise
                self._running = self._boot_again()
        return self._running

    def _boot_again(self) -> _Running:
        try:
            return self._boot()
        except Condemned as second:
            self._unbootable = second
            raise

    def _boot(self) -> _Running:
        began = time.monotonic()
        self.begin()
        assert self._begun
        begun, self._begun = self._begun, None
        with contextlib.ExitStack() as stack:
            stack.enter_context(begun[0])
            machine = begun[1]
            self.boots += 1
            try:
                # A kernel that has said nothing by now died before its console, unless it has
                # none and the agent is there.
                spoke = _speaks(machine, min(EARLY_DEADLINE, self._deadline))
                left = self._deadline if spoke else LAST_CHANCE
                guest = Guest.of(machine, boot_timeout=left, timeout=self._patience)
            except (GuestGone, GuestSilent) as error:
                lines = machine.console.since()
                self._last_console = lines
                seen = _observed(error, lines, booting=True)
                verdict = verdict_of(judge(lines), seen)
                raise Condemned(verdict, error, self._reproducer) from error
            self.boot_seconds += time.monotonic() - began
            lines = machine.console.since()
            return _Running(machine, guest, stack.pop_all(), len(lines), lines)
        raise AssertionError("unreachable")

    def _news(self, *, expected: bool = False) -> tuple[Report, ...]:
        """Reports the kernel printed since the last look, complete ones if it still prints.

        Where one is ``expected`` it is waited for.
        """
        running = self._running
        if running is None:
            return ()
        machine, console = running.machine, running.machine.console
        reports = self._told(running)
        for _ in range(round(SETTLE_SECONDS / BREATH)):
            if all(report.complete for report in reports) and (reports or not expected):
                break
            machine.pause(BREATH)
            reports = self._told(running)
        running.judged = max(running.judged, console.mark())
        return reports

    def _told(self, running: _Running) -> tuple[Report, ...]:
        """What the kernel reported since the last look, as far as it is to be taken seriously."""
        machine = running.machine
        reports = judge(machine.console.since(running.judged), running.baseline)
        return tuple(report for report in reports if not self._excused(machine, report))

    def _condemned(self, reports: tuple[Report, ...], error: Exception | None = None) -> Condemned:
        """Give the machine up and say why."""
        lines = self.console()
        self.discard()
        verdict = verdict_of(reports, _observed(error, lines))
        return Condemned(verdict, error, self._reproducer)


def _speaks(machine: Machine, timeout: float) -> bool:
    """Whether the kernel prints anything within ``timeout`` seconds."""
    for _ in range(round(timeout / BREATH)):
        if machine.console.mark() or not machine.alive:
            break
        machine.pause(BREATH)
    return bool(machine.console.mark())


def _observed(
    error: Exception | None, lines: tuple[str, ...], *, booting: bool = False
) -> Observed:
    """What the host saw, from the error that a call into the guest raised."""
    last = next((line for line in reversed(lines) if line.strip()), "")
    if isinstance(error, GuestSilent):
        return Observed(
            printed=bool(last),
            agent_ready=not booting,
            silent_for=error.seconds,
            stuck=stuck(lines),
            doing=error.what,
            last_line=last,
        )
    if isinstance(error, GuestGone):
        cause = error.__cause__
        ended = cause if isinstance(cause, MachineEnded) else MachineEnded(error.reason, 0)
        return Observed(ended=ended, doing=error.what, last_line=last)
    if isinstance(error, MachineEnded):
        return Observed(ended=error, last_line=last)
    return Observed(failure=str(error) if error else "", last_line=last)
