"""Stops a run at a moment of virtual time, for a debugger to look at the kernel.

A kernel of User Mode Linux is a process: while it waits for its calendar, any debugger can attach.
"""

from __future__ import annotations

import math
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

from kdrv.core.errors import SetupError, UsageError
from kdrv.explore.bench import Bench
from kdrv.explore.plan import Plan
from kdrv.explore.subject import Subject
from kdrv.sim.machine import SimMachine
from kdrv.testing.driver import Driver
from kdrv.testing.traces import Code
from kdrv.toolchain.base import SOURCE

PATIENCE = 24 * 3600.0
"""A kernel that is being debugged does nothing for long, in seconds of the host."""
SCRIPT = "kdrv.gdb"
SIGNALS = "SIGSEGV SIGUSR1 SIGUSR2 SIGALRM SIGVTALRM SIGIO SIGCHLD SIGWINCH"
"""What User Mode Linux lives on: page faults, interrupts, time."""


def stop_at(
    subject: Subject,
    bench: Bench,
    plan: Plan,
    seconds: float,
    scratch: Path,
    stopped: Callable[[str], None],
) -> None:
    """Run a plan; at ``seconds`` of virtual time call ``stopped`` with gdb's command line.

    The kernel goes on when that returns. ``scratch`` holds what gdb reads. Raises
    :class:`SetupError` without a gdb, and :class:`UsageError` for a time before the driver is
    loaded, or after the end.
    """
    if not shutil.which("gdb"):
        raise SetupError(
            "there is no debugger here: gdb is not installed",
            expected="gdb in the search path",
            remedy="apt-get install gdb",
        )
    if not math.isfinite(seconds):
        raise UsageError(f"{seconds} is no moment", expected="seconds of virtual time")
    calls: list[str] = []

    def look(machine: SimMachine, driver: Driver) -> None:
        at = round(seconds * 1e9)
        if at < machine.now:
            raise UsageError(
                f"{seconds} s is before the driver was loaded, at {machine.clock():.9f} s",
                expected="a later moment; kdrv replay --trace shows them all",
            )
        image = bench.stands[plan.checked].spec.kernel.image
        script = scratch / SCRIPT
        told = commands(subject, plan.checked, driver.code)
        script.write_text("".join(f"{line}\n" for line in told))

        def stop() -> None:
            process = kernel_process(os.getpid(), image.name)
            calls.append(
                shlex.join(("gdb", "-q", "-p", str(process), "-x", str(script), str(image)))
            )
            stopped(calls[-1])

        machine.engine.clock.at(at, stop)

    history = bench.run(plan, look, patience=PATIENCE)
    if not calls:
        raise UsageError(
            f"the run was over at {history.lasted / 1e9:.9f} s, before {seconds} s",
            expected="an earlier moment; kdrv replay --trace shows them all",
        )


def commands(subject: Subject, checked: bool, code: Code | None) -> list[str]:
    """What gdb is to know: the kernel's signals, the driver's addresses, and its sources."""
    lines = [f"handle {SIGNALS} nostop noprint pass"]
    if code and checked in subject.modules:
        places = [f"-s {section.name} {start:#x}" for start, section in code.sections]
        lines.append(f"add-symbol-file {subject.modules[checked]} {' '.join(places)}")
    for seen, place in ((subject.below, subject.sources), (SOURCE, subject.tree)):
        if place:
            lines.append(f"set substitute-path {seen} {place}")
    return lines


def kernel_process(root: int, name: str, proc: Path = Path("/proc")) -> int:
    """The first process of a program below another one, itself included; ``root`` if none is.

    ``name`` is the program's, as the kernel knows it.
    """
    waiting = [root]
    while waiting:
        number = waiting.pop(0)
        place = proc / str(number)
        try:
            if (place / "comm").read_text().strip() == name:
                return number
            for task in (place / "task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return root
