"""The guest's memory as QEMU maps it into kdrv: what a model's DMA reaches.

By message DMA would deadlock: QEMU answers none while it waits for a register access.
"""

from __future__ import annotations

import bisect
import errno
import mmap
from collections.abc import Iterator

from kdrv.devices.errors import Misuse
from kdrv.qemu.vfiouser.wire import MAP_WRITE, Refused


class Area:
    """A piece of the bus's address space; without ``content`` only QEMU itself can reach it."""

    __slots__ = ("content", "end", "start", "writable")

    def __init__(self, start: int, size: int, content: mmap.mmap | None, writable: bool) -> None:
        self.start = start
        self.end = start + size
        self.content = content
        self.writable = writable

    def close(self) -> None:
        """Unmap."""
        if self.content is not None:
            self.content.close()


class DmaMemory:
    """All areas of one device, kept in order."""

    def __init__(self) -> None:
        self._areas: list[Area] = []
        self._starts: list[int] = []

    def map(self, start: int, size: int, offset: int, flags: int, descriptor: int | None) -> None:
        """Add an area; the descriptor stays the caller's.

        Raises :class:`Refused` when it cannot be mapped or overlaps another.
        """
        if not size:
            raise Refused(errno.EINVAL)
        at = bisect.bisect_right(self._starts, start)
        before, after = self._areas[max(at - 1, 0) : at], self._areas[at : at + 1]
        if any(a.end > start for a in before) or any(a.start < start + size for a in after):
            raise Refused(errno.EEXIST)
        writable = bool(flags & MAP_WRITE)
        content = None
        if descriptor is not None:
            access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
            try:
                content = mmap.mmap(descriptor, size, prot=access, offset=offset)
            except (OSError, ValueError, OverflowError):
                raise Refused(errno.EINVAL) from None
        self._areas.insert(at, Area(start, size, content, writable))
        self._starts.insert(at, start)

    def unmap(self, start: int, size: int) -> None:
        """Drop the areas inside the range. Raises :class:`Refused` for one that is partly in it."""
        inside = [area for area in self._areas if area.start < start + size and start < area.end]
        if not inside or any(a.start < start or a.end > start + size for a in inside):
            raise Refused(errno.EINVAL if inside else errno.ENOENT)
        self._keep([area for area in self._areas if area not in inside], inside)

    def clear(self) -> None:
        """Drop all areas."""
        self._keep([], self._areas)

    def _keep(self, kept: list[Area], dropped: list[Area]) -> None:
        self._areas, self._starts = kept, [area.start for area in kept]
        for area in dropped:
            area.close()

    def read(self, address: int, length: int) -> bytes:
        """Memory at a bus address. Raises :class:`Misuse` where there is none."""
        return b"".join(
            content[first : first + size]
            for content, first, size in self._pieces(address, length, write=False)
        )

    def write(self, address: int, data: bytes) -> None:
        """Change memory. Raises :class:`Misuse` where there is none, and then changes nothing."""
        done = 0
        for content, first, size in tuple(self._pieces(address, len(data), write=True)):
            content[first : first + size] = data[done : done + size]
            done += size

    def _pieces(
        self, address: int, length: int, *, write: bool
    ) -> Iterator[tuple[mmap.mmap, int, int]]:
        """Content, place and size of every piece: RAM may be mapped as neighbours."""
        here, end = address, address + length
        while here < end:
            at = bisect.bisect_right(self._starts, here) - 1
            area = self._areas[at] if at >= 0 else None
            if area is None or here >= area.end:
                lack = "where the machine has no memory"
            elif area.content is None:
                lack = "in what is no RAM"
            elif write and not area.writable:
                lack = "to memory that devices may only read"
            else:
                size = min(end, area.end) - here
                yield area.content, here - area.start, size
                here += size
                continue
            kind = "write" if write else "read"
            raise Misuse(f"DMA {kind} of {length} bytes at {address:#x}, {lack}")
