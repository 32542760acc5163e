"""Failing allocations in the guest: the nth one that a call makes, and no other.

The kernel counts the places where an allocation of one task can fail and fails the one that
``/proc/self/fail-nth`` names (Linux ``Documentation/fault-injection/fault-injection.rst``). So the
call is made between arming and disarming, in one request to the agent, whose own work then does not
count. This carries out ``alloc_fail_nth`` and, around the call that loads or binds a driver,
``probe_fail_nth``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from kdrv.core.errors import UsageError
from kdrv.guest import bodies
from kdrv.guest.around import Around
from kdrv.guest.bodies import Fill, In, Outcome, Result, Step, StepFlag
from kdrv.guest.link import Pending
from kdrv.guest.operations import Operations
from kdrv.guest.session import Session
from kdrv.guest.values import GuestPath
from kdrv.guest.wire import Kind
from kdrv.sim.faults import Drawn

T = TypeVar("T")

MOST = 20
"""The highest number :func:`number_of` gives: few calls have more places that can fail."""
ARM = b"/proc/thread-self/fail-nth\0"
DEBUGFS = "/sys/kernel/debug"
SETTINGS = {
    # By default nothing fails that may wait, which is nearly all a driver asks for.
    "failslab/ignore-gfp-wait": "N",
    "fail_page_alloc/ignore-gfp-wait": "N",
    "fail_page_alloc/min-order": "0",
    # A line for each failure, but no backtrace that looks like a report.
    "failslab/verbose": "1",
    "fail_page_alloc/verbose": "1",
}
_DESCRIPTOR = 400
"""Where the armed file is put, by session, so that a test's own descriptors stay as they are."""
_AT_FDCWD, _DUP3 = -100, 292


def prepare(session: Session) -> None:
    """Make the kernel ready for :func:`failing`, once after boot.

    Raises :class:`UsageError` for a kernel without fault injection.
    """
    for name, value in SETTINGS.items():
        try:
            session.write_text(f"{DEBUGFS}/{name}", value)
        except FileNotFoundError as error:
            raise UsageError(
                f"the guest's kernel cannot fail allocations: it has no {name}",
                expected="CONFIG_FAILSLAB, CONFIG_FAIL_PAGE_ALLOC, CONFIG_FAULT_INJECTION_DEBUG_FS",
                remedy="leave out --config, or add them with --fragment FILE",
            ) from error


def number_of(drawn: Drawn) -> int:
    """Which allocation a drawn fault is to fail: 1 to :data:`MOST`, low numbers more often."""
    return min(drawn.dice.randint(1, MOST), drawn.dice.randint(1, MOST))


def failing(session: Session, nth: int) -> FailingCalls:
    """The session's calls, started as by ``session.begin``, with the ``nth`` allocation failing.

    ``nth`` counts from 1 in each call anew. Raises :class:`UsageError` for a number below.
    """
    if nth < 1:
        raise UsageError(f"there is no allocation {nth}", expected="a number from 1 on")
    return FailingCalls(session.begin, nth)


class FailingCalls(Around):
    """System calls of a session of which an allocation fails.

    ``fired`` says whether one of them made so many allocations, or has not come back to tell;
    ``made`` how many the one made that made most, if they made fewer.
    Programs and memory accesses (``run``, ``peek``, ``poke``) are no system calls of the session's
    own process and go on undisturbed.
    """

    def __init__(self, plain: Operations, nth: int) -> None:
        super().__init__(plain)
        self._nth = nth
        self.made = 0
        self._open = 0
        self._spared = True

    @property
    def fired(self) -> bool:  # noqa: D102 - see the class
        return bool(self._open) or not self._spared

    def calls(
        self,
        what: str,
        steps: Sequence[Step],
        decode: Callable[[list[Outcome]], T],
        path: GuestPath | None = None,
        extra_seconds: float = 0.0,
    ) -> Pending[T]:
        """See :meth:`Operations.calls`."""
        before, after = self._around()
        everything = [*before, *(_shifted(step, len(before)) for step in steps), *after]

        def checked(body: bytes) -> T:
            outcomes = bodies.decode_outcomes(everything, body)
            ours = outcomes[len(before) : len(before) + len(steps)]
            if any(outcome.result < 0 for outcome in outcomes[: len(before)]):
                raise UsageError(
                    "the guest's kernel cannot fail the allocations of a call",
                    expected="CONFIG_FAULT_INJECTION, with /proc/self/fail-nth",
                    remedy="leave out --config, or add them with --fragment FILE",
                )
            # What is left of the number: nothing when the failure has happened.
            left = int(outcomes[-len(after)].buffers[0].strip() or b"0")
            self._open -= 1
            self._spared &= left > 0
            self.made = max(self.made, self._nth - left)
            for outcome in ours:
                if outcome.result < 0:
                    raise OSError(-outcome.result, os.strerror(-outcome.result), path)
            return decode(ours)

        body = bodies.encode_calls(everything)
        self._open += 1
        return self._start(what, Kind.CALL, body, checked, extra_seconds)

    def _around(self) -> tuple[list[Step], list[Step]]:
        """The calls that arm, and those that disarm."""
        file = _DESCRIPTOR + self.session
        number, zero = str(self._nth).encode(), b"0"
        before = [
            self.step("openat", _AT_FDCWD, In(ARM), os.O_RDWR | os.O_CLOEXEC, 0),
            self.step(_DUP3, Result(0), file, os.O_CLOEXEC),
            self.step("close", Result(0)),
            self.step("pwrite64", file, In(number), len(number), 0),
        ]
        after = [
            self.step("pread64", file, Fill(16), 16, 0, flags=StepFlag.ALWAYS),
            self.step("pwrite64", file, In(zero), len(zero), 0, flags=StepFlag.ALWAYS),
            self.step("close", file, flags=StepFlag.ALWAYS),
        ]
        return before, after


def _shifted(step: Step, by: int) -> Step:
    """The step, when ``by`` others are put before all it refers to."""
    args = tuple(Result(a.index + by) if isinstance(a, Result) else a for a in step.args)
    return replace(step, args=args)
