"""Limits for a sandbox that runs what nobody has read: its processes, memory, disk and output.

No one mechanism does it everywhere: root is not bound by RLIMIT_NPROC, and an ordinary user often
has no cgroup to write to. So the kernel enforces what it can per process (setrlimit(2)), and
:mod:`kdrv.core.watch` the rest.
"""

from __future__ import annotations

import os
import re
import resource
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kdrv.core.errors import KdrvError, SetupError
from kdrv.core.stopping import Stopped

MIB = 1 << 20
GIB = 1 << 30
LINE = 64
"""What a line counts for besides its content: whoever keeps lines needs more than their bytes."""
SIGXFSZ_STATUS = 128 + signal.SIGXFSZ
OVERSHOOT = 2 * GIB
"""About what one process can fill between two looks."""
PAGE = os.sysconf("SC_PAGE_SIZE")


class LimitExceeded(KdrvError):
    """A program in the sandbox wanted more than it may have, and was killed with all it started.

    ``what`` is the name of the field of :class:`Limits`.
    """

    def __init__(
        self,
        message: str,
        *,
        what: str = "",
        expected: str = "",
        remedy: str = "",
        detail: Sequence[str] = (),
        reproducer: str = "",
    ) -> None:
        super().__init__(
            message, expected=expected, remedy=remedy, detail=detail, reproducer=reproducer
        )
        self.what = what


def unless_machine_short(error: KdrvError) -> None:
    """Go on, or raise ``error`` again where it says nothing of what ran: the machine itself ran
    short, whoever took what it lacks, or has not what it takes, or nobody waits any more.
    """
    if isinstance(error, SetupError | Stopped):
        raise error
    if isinstance(error, LimitExceeded) and error.what.startswith("spare"):
        raise error


def physical_memory() -> int:
    """Bytes of memory of this machine."""
    return PAGE * os.sysconf("SC_PHYS_PAGES")


@dataclass(frozen=True)
class Limits:
    """What a sandboxed command may use; the defaults leave any kernel build in peace.

    ``processes`` counts threads too. ``memory`` is resident bytes of all processes together, what
    they share counted for each. ``disk`` is bytes in a writable directory, when they are written in
    one run: it may have held more before. ``file_size`` is bytes of one file, ``output`` bytes
    printed. ``spare_disk`` and ``spare_memory`` are bytes that the machine must keep, whoever takes
    them. ``niceness`` is that of the sandbox's processes and of their session, so that the watch
    gets the processor when a thousand processes want it, and what is urgent before what is not.
    """

    processes: int = field(default_factory=lambda: 1024 + 64 * (os.cpu_count() or 1))
    memory: int = field(default_factory=lambda: physical_memory() * 3 // 4)
    disk: int = 16 * GIB
    file_size: int = 4 * GIB
    output: int = 64 * MIB
    spare_disk: int = 256 * MIB
    spare_memory: int = field(default_factory=lambda: min(256 * MIB, physical_memory() // 32))
    niceness: int = 5

    def bounded(self, argv: Sequence[str], inner: int = 0) -> tuple[str, ...]:
        """``argv`` with what the kernel itself can limit, by util-linux and coreutils.

        The last ``inner`` words are what runs in the sandbox, if there is one. RLIMIT_DATA stops
        one process that asks for more at once than the watch can ever see, RLIMIT_NPROC new
        processes that come faster than old ones can be killed: what grows reaches the limit first,
        and is seen. Should the kernel have to kill for memory, it takes the sandbox first.
        """
        outside = {
            "core": (resource.RLIMIT_CORE, 0),
            "fsize": (resource.RLIMIT_FSIZE, self.file_size),
            "data": (resource.RLIMIT_DATA, self.memory + max(self.memory, OVERSHOOT)),
        }
        inside = {"nproc": (resource.RLIMIT_NPROC, 2 * self.processes)}
        sandbox, program = (argv[:-inner], argv[-inner:]) if inner else ((), argv)
        return (
            *_prlimit(outside),
            *("choom", "-n", "1000", "--"),
            *sandbox,
            *(_prlimit(inside) if inner and _counts_by_namespace() else ()),
            *("nice", "-n", str(self.niceness)),
            *program,
        )


def _prlimit(limits: Mapping[str, tuple[int, int]]) -> list[str]:
    return ["prlimit", *(f"--{name}={_lowered(*limit)}" for name, limit in limits.items())]


def _counts_by_namespace() -> bool:
    """Whether RLIMIT_NPROC counts the sandbox's processes only, and not all of the user's."""
    major, minor = map(int, re.findall(r"\d+", os.uname().release)[:2])
    return (major, minor) >= (5, 14)


def _lowered(limit: int, most: int) -> int:
    """The limit, or less when an ordinary user here may not even have that much."""
    hard = resource.getrlimit(limit)[1]
    return most if hard == resource.RLIM_INFINITY else min(most, hard)
