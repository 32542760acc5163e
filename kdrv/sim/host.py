"""What of the host still shows in a simulated machine, and so belongs into every result.

The processor's features decide how large a task's floating-point state is and with it how memory
is laid out (``arch/um/kernel/um_arch.c``: arch_task_struct_size): histories of different processors
may differ, those of one never do.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kdrv.core.store import digest

CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class HostCpu:
    """The processor's name, and a digest of its feature flags."""

    name: str
    flags: str


def host_cpu(cpuinfo: Path = CPUINFO) -> HostCpu:
    """The processor this process runs on (the first one: they are all alike on one machine)."""
    first = cpuinfo.read_text().split("\n\n")[0]
    fields = dict(line.split(":", 1) for line in first.splitlines() if ":" in line)
    found = {name.strip(): value.strip() for name, value in fields.items()}
    return HostCpu(
        found.get("model name", "unknown"), digest(sorted(found.get("flags", "").split()))
    )


@cache
def this_host() -> HostCpu:
    """The processor of this machine, looked up once."""
    return host_cpu()


def settle(number: int) -> None:
    """Keep this process, and the kernels it starts from now on, on one of its processors.

    A simulated machine is two processes that never run at the same time; to wake one on another
    processor takes longer than most of what it then does. ``number`` tells workers apart.
    """
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {allowed[number % len(allowed)]})
