"""Which of a driver's instructions a run reached: KCOV, of the calling processes alone.

Source: ``Documentation/dev-tools/kcov.rst``. Only the driver is instrumented, and only what its
callers execute is seen: interrupt handlers and work queues are not.
"""

from __future__ import annotations

import mmap
import os
import struct

from kdrv.guest.files import GuestMapping
from kdrv.guest.session import Session
from kdrv.testing.traces import Code

KCOV = "/sys/kernel/debug/kcov"
INIT_TRACE, ENABLE, DISABLE = 0x80086301, 0x6364, 0x6365
TRACE_PC = 0
WORDS = 1 << 13
"""How many places one process can report in a run; what comes after is lost."""
SECTION_SHIFT = 32
CHECKED = 1 << 62
"""Marks places of the driver as it was built for the checked kernel: it is other code."""


class Recorder:
    """Records what one session's process reaches, from now on."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._process = 0
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


def offsets(places: set[int], code: Code) -> frozenset[int]:
    """Addresses in the guest as places in the driver: section and offset, the same in every run."""
    found = set()
    for address in places:
        for number, (start, section) in enumerate(code.sections):
            if start <= address < start + section.size:
                found.add(number << SECTION_SHIFT | address - start)
    return frozenset(found)


def marked(places: frozenset[int], checked: bool) -> frozenset[int]:
    """Places told apart by the kernel that the driver was built for."""
    return frozenset(place | CHECKED for place in places) if checked else places


def of_kernel(places: frozenset[int], checked: bool) -> frozenset[int]:
    """The places of one kernel, as they were before :func:`marked`."""
    return frozenset(place & ~CHECKED for place in places if bool(place & CHECKED) == checked)
