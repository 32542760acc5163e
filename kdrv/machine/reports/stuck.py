"""Where a guest that answers no more is stuck, from what SysRq prints.

A world sends a break and a key over the serial console: ``l`` shows the busy processors, ``w`` the
blocked tasks, ``t`` all of them (``Documentation/admin-guide/sysrq.rst``). A driver that loops in
probe is reported by no detector of a preemptible kernel; this names the function.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from kdrv.machine.reports.frames import Frame, Trace, culprits, instruction, place
from kdrv.machine.reports.lines import kernel_lines

_TASK = re.compile(r"^task:(?P<task>.+?)\s+state:(?P<state>\w)\s.*\bpid:(?P<pid>\d+)\b")
_CPU = re.compile(r"^CPU: \d+ (?:UID: \d+ )?PID: (?P<pid>\d+) Comm: (?P<task>.+?) (?:Not t|T)aint")
_BEGIN = re.compile(r"^NMI backtrace for cpu \d+")
_RUNNING = "R"


@dataclass(frozen=True)
class Backtrace:
    """What a task was doing: ``state`` is R on a processor, else D or S and so on (ps(1))."""

    task: str
    state: str
    frames: tuple[Frame, ...]

    @property
    def culprit(self) -> Frame | None:
        """The innermost function of a module's own in the stack, else of the kernel's."""
        named = culprits(self.frames)
        return next((entry for entry in self.frames if entry.own), named[0] if named else None)

    @property
    def fingerprint(self) -> str:
        """The same for the same place in another run, boot or build."""
        names = "|".join(place(self.frames))
        return hashlib.sha256(f"{self.state}|{names}".encode()).hexdigest()[:10]

    def __str__(self) -> str:
        doing = "runs" if self.state == _RUNNING else "waits"
        return f"{self.task} {doing} in {self.culprit or 'an unknown place'}"


def backtraces(lines: Iterable[str]) -> tuple[Backtrace, ...]:
    """All stacks that SysRq l, t or w printed, in order. Never raises."""
    found: list[Backtrace] = []
    task, state, at, trace = "", "", None, Trace()
    for line in kernel_lines(lines):
        header = _TASK.match(line.text)
        if header or _BEGIN.match(line.text):
            if header:
                task, state = header["task"], header["state"]
            else:
                task, state = "", _RUNNING
            at, trace = None, Trace()
        elif state == _RUNNING and not task and (on := _CPU.match(line.text)):
            task = on["task"]
        elif state and not trace.open and (here := instruction(line.text)):
            at = here
        elif task and trace.take(line.text) and not trace.open:
            found.append(_backtrace(task, state, at, trace.frames))
            task = state = ""
    return tuple(found)


def stuck(lines: Iterable[str]) -> Backtrace | None:
    """The stack that most likely explains the silence: one with a module's own code in it.

    A running task comes before a blocked one, and that before a sleeping one. None when no module
    is in any stack.
    """
    order = {_RUNNING: 0, "D": 1}
    with_module = [each for each in backtraces(lines) if any(f.own for f in each.frames)]
    return min(with_module, key=lambda each: order.get(each.state, 2), default=None)


def _backtrace(task: str, state: str, at: Frame | None, stack: tuple[Frame, ...]) -> Backtrace:
    """Without what SysRq itself adds: on a processor the interrupt's own frames come first."""
    if state == _RUNNING:
        names = [entry.name for entry in stack]
        inner = next((n for n, name in enumerate(names) if name.startswith("asm_")), -1)
        stack = stack[inner + 1 :]
    if at and (not stack or stack[0].symbol != at.symbol):
        stack = (at, *stack)
    return Backtrace(task, state, stack)
