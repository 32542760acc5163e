"""Stops a run at a moment of virtual time, for a debugger to look at the kernel.

A kernel of User Mode Linux is a process: while it waits for its calendar, any debugger can attach.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from kdrv.core.errors import UsageError
from kdrv.explore.bench import Bench
from kdrv.explore.history import History
from kdrv.explore.plan import Plan
from kdrv.sim.machine import SimMachine
from kdrv.testing.driver import Driver

PATIENCE = 24 * 3600.0
"""A kernel that is being debugged does nothing for long, in seconds of the host."""


def stop_at(bench: Bench, plan: Plan, seconds: float, stopped: Callable[[str], None]) -> History:
    """Run a plan; at ``seconds`` of virtual time call ``stopped`` with gdb's command line.

    The kernel goes on when that returns. Raises :class:`UsageError` for a time before the driver
    is loaded.
    """

    def look(machine: SimMachine, driver: Driver) -> None:
        at = round(seconds * 1e9)
        if at < machine.now:
            raise UsageError(
                f"{seconds} s is before the driver was loaded, at {machine.clock():.9f} s",
                expected="a later moment; kdrv replay --trace shows them all",
            )
        image = bench.stands[plan.checked].spec.kernel.image
        command = f"gdb -p {kernel_process(os.getpid(), image.name)} {image}"
        machine.engine.clock.at(at, lambda: stopped(command))

    return bench.run(plan, look, patience=PATIENCE)


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
