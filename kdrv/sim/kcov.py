"""KCOV: which instrumented code the processes of a guest reach.

Source: ``Documentation/dev-tools/kcov.rst``. Only what is built with ``KCOV_INSTRUMENT=y`` is
instrumented, and only what its callers execute is seen: interrupt handlers and work queues are not.
"""

from __future__ import annotations

import mmap
import os
import struct

from kdrv.guest.files import GuestMapping
from kdrv.guest.session import Session

KCOV = "/sys/kernel/debug/kcov"
INIT_TRACE, ENABLE = 0x80086301, 0x6364
TRACE_PC = 0
WORDS = 1 << 13
"""How many places one process can report in a run; what comes after is lost."""


class Recorder:
    """Records what one session's process reaches, from now on."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._memory: GuestMapping | None = None
        self.places: set[int] = set()

    def start(self) -> bool:
        """Begin; false on a kernel without KCOV."""
        try:
            file = self._session.open(KCOV, os.O_RDWR)
        except OSError:
            return False
        file.ioctl(INIT_TRACE, WORDS)
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        self._memory = file.mmap(WORDS * 8, protection, mmap.MAP_SHARED)
        file.ioctl(ENABLE, TRACE_PC)
        return True

    def stop(self) -> None:
        """Take over what was recorded. The process may have died since: then nothing is."""
        memory, self._memory = self._memory, None
        if memory is None:
            return
        count = min(struct.unpack("<Q", memory.read(0, 8, 8))[0], WORDS - 1)
        if count:
            data = memory.read(8, count * 8, 8)
            self.places |= set(struct.unpack(f"<{count}Q", data))
