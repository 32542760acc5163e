"""The guest's memory, mapped into the simulator, and the virtqueues that live in it."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from kdrv.devices.errors import Misuse

DESCRIPTOR = struct.Struct("<QIHH")
"""``struct vring_desc``: address, length, flags, next (virtio 1.2, section 2.7.5)."""
NEXT, DEVICE_WRITES = 1, 2
NO_INTERRUPT = 1
_U16 = struct.Struct("<H")
_USED = struct.Struct("<II")


class GuestMemory:
    """One region of guest memory behind a file descriptor, which it takes over."""

    def __init__(self, start: int, size: int, descriptor: int, offset: int) -> None:
        slack = offset % mmap.ALLOCATIONGRANULARITY
        try:
            self._map = mmap.mmap(descriptor, size + slack, offset=offset - slack)
        finally:
            os.close(descriptor)
        self.start = start
        self.size = size
        self._shift = start - slack

    def read(self, address: int, length: int) -> bytes:
        """``length`` bytes at a guest physical address. Raises :class:`Misuse` outside memory."""
        self._check(address, length)
        inner = address - self._shift
        return self._map[inner : inner + length]

    def write(self, address: int, data: bytes) -> None:
        """Change memory at a guest physical address. Raises :class:`Misuse` outside memory."""
        self._check(address, len(data))
        inner = address - self._shift
        self._map[inner : inner + len(data)] = data

    def _check(self, address: int, length: int) -> None:
        if length < 0 or not self.start <= address <= self.start + self.size - length:
            raise Misuse(
                f"DMA of {length} bytes at {address:#x}, outside the machine's memory "
                f"({self.start:#x}-{self.start + self.size:#x})"
            )

    def u16(self, address: int) -> int:
        """A little-endian 16-bit word. Raises :class:`Misuse` outside memory."""
        self._check(address, _U16.size)
        value: int = _U16.unpack_from(self._map, address - self._shift)[0]
        return value

    def put_u16(self, address: int, value: int) -> None:
        """Store a little-endian 16-bit word. Raises :class:`Misuse` outside memory."""
        self._check(address, _U16.size)
        _U16.pack_into(self._map, address - self._shift, value & 0xFFFF)

    def close(self) -> None:
        """Unmap."""
        self._map.close()


@dataclass(frozen=True)
class Chain:
    """A request the driver has made available: places to read from and places to write to."""

    head: int
    readable: Sequence[tuple[int, int]]
    writable: Sequence[tuple[int, int]]


class Virtqueue:
    """The device's side of a split virtqueue (virtio 1.2, section 2.7).

    ``kept`` counts requests that were carried out and are never given back.
    """

    def __init__(self) -> None:
        self.size = 0
        self.kept = 0
        self.base = 0
        self.descriptors = 0
        self.available = 0
        self.used = 0

    def pop(self, memory: GuestMemory) -> Chain | None:
        """The next available request, or None. Raises :class:`Misuse` for one without an end."""
        if not self.size or memory.u16(self.available + 2) == self.base & 0xFFFF:
            return None
        head = memory.u16(self.available + 4 + 2 * (self.base % self.size))
        self.base += 1
        readable: list[tuple[int, int]] = []
        writable: list[tuple[int, int]] = []
        index = head
        # A chain that is longer than the queue goes in a circle: who wrote it wrote over it.
        for _ in range(self.size):
            place = self.descriptors + DESCRIPTOR.size * index
            address, length, flags, following = DESCRIPTOR.unpack(
                memory.read(place, DESCRIPTOR.size)
            )
            (writable if flags & DEVICE_WRITES else readable).append((address, length))
            if not flags & NEXT:
                return Chain(head, readable, writable)
            index = following
        raise Misuse(f"the descriptors of request {head} go in a circle: memory was overwritten")

    def push(self, memory: GuestMemory, chain: Chain, written: int) -> None:
        """Give a request back to the driver, ``written`` bytes of it filled."""
        index = memory.u16(self.used + 2)
        place = self.used + 4 + _USED.size * (index % self.size)
        memory.write(place, _USED.pack(chain.head, written))
        memory.put_u16(self.used + 2, index + 1)

    def wants_call(self, memory: GuestMemory) -> bool:
        """Whether the driver asks to be interrupted."""
        return not memory.u16(self.available) & NO_INTERRUPT


def gather(memory: GuestMemory, chain: Chain) -> bytes:
    """The bytes of a request's readable part."""
    return b"".join(memory.read(address, length) for address, length in chain.readable)


def scatter(memory: GuestMemory, chain: Chain, data: bytes) -> int:
    """Fill a request's writable part with ``data``, as far as it fits; the number of bytes."""
    done = 0
    for address, length in chain.writable:
        piece = data[done : done + length]
        memory.write(address, piece)
        done += len(piece)
    return done
