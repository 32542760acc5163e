"""What can go wrong between a test and the guest, besides a system call that fails.

A system call that fails raises ``OSError``, as it does in Python.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence

from kdrv.core.errors import DeadlineExceeded, WorkFailed
from kdrv.guest.bodies import Inspection

CONSOLE_LINES = 20
"""How many of the console's last lines an error shows."""
REPORT_LINES = 40
"""How many lines of what the kernel said during a call that died; an oops begins with the news."""


class GuestSilent(DeadlineExceeded):
    """A call into the guest did not return in time.

    ``inspection`` tells which kind of silence it is: when it is there, the agent answers and only
    this call hangs, at the kernel stack it shows; when it is None, the agent does not answer
    either. ``console`` has the last lines the kernel printed, ``diagnosis`` what the world knows.
    """

    def __init__(
        self,
        what: str,
        seconds: float,
        inspection: Inspection | None,
        console: Sequence[str],
        diagnosis: Sequence[str],
    ) -> None:
        self.what = what
        self.seconds = seconds
        self.inspection = inspection
        self.console = tuple(console)
        self.diagnosis = tuple(diagnosis)
        waited = f"{what} did not return within {seconds:.3g} s"
        if inspection is None:
            message = f"{waited}, and the agent in the guest does not answer: the guest hangs"
        elif inspection.busy:
            message = f"{waited}: it hangs in the kernel, while the guest lives"
        else:
            message = f"{waited}, though the agent has finished it: the channel loses data"
        super().__init__(message, expected="a call that returns", detail=self._lines())

    def _lines(self) -> list[str]:
        lines: list[str] = []
        if self.inspection is not None:
            found = self.inspection
            where = f" on cpu {found.cpu}" if found.cpu is not None else ""
            lines.append(f"process {found.pid}, state {found.state or '?'}{where}, in:")
            lines += [f"  {line}" for line in found.stack or (found.wchan or "(no stack)",)]
        if self.diagnosis:
            lines += ["the machine:", *(f"  {line}" for line in self.diagnosis)]
        if self.console:
            lines += ["last lines of the console:", *(f"  {line}" for line in self.console)]
        return lines


class GuestGone(WorkFailed):
    """The machine ended while a call was under way, or before it; ``reason`` says how."""

    def __init__(self, what: str, reason: str, console: Sequence[str]) -> None:
        self.what = what
        self.reason = reason
        self.console = tuple(console)
        super().__init__(
            f"the machine ended during {what}: {reason}",
            expected="a guest that stays up until its tests are done",
            detail=self.console,
        )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}" if number else "the end of its process"


class GuestCallDied(WorkFailed):
    """The kernel killed the process that made the call, as it does after an oops.

    ``signal`` is the signal's number, 0 when the process ended by itself; ``console`` has what the
    kernel printed since the call began. Open files stay open and
    the next call gets a new process; mappings are gone.
    """

    def __init__(self, what: str, status: int, console: Sequence[str]) -> None:
        self.what = what
        self.signal = status & 0x7F
        self.console = tuple(console)
        super().__init__(
            f"{what} was ended by {_signal_name(self.signal)} in the guest",
            expected="a call that returns",
            detail=self.console,
        )


class GuestProgramFailed(WorkFailed):
    """A program in the guest ended with a status other than 0; ``detail`` has its last lines."""
