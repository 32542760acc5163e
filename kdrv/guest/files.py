"""An open file and a mapping in the guest, as Python's own."""

from __future__ import annotations

import mmap
import os
import select
from types import TracebackType
from typing import Self, overload

from kdrv.guest.operations import Operations
from kdrv.guest.values import GuestPath


class GuestFile:
    """An open file. Each method is one system call; close it by ``with``.

    ``timeout`` is how long the call may take, in seconds; the session's default when None.
    The descriptor is known to all sessions of the guest: ``other.begin.read(file, 4)`` works.
    """

    def __init__(self, begin: Operations, fd: int, path: GuestPath) -> None:
        self.path = path
        self._begin = begin
        self._fd = fd

    def fileno(self) -> int:
        """The descriptor. Raises ``ValueError`` when the file is closed."""
        if self._fd < 0:
            raise ValueError(f"{self.path!r} is closed")
        return self._fd

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._fd < 0

    def read(self, size: int, *, timeout: float | None = None) -> bytes:
        """read(2): at most ``size`` bytes."""
        return self._begin.read(self, size).result(timeout)

    def write(self, data: bytes, *, timeout: float | None = None) -> int:
        """write(2): how many bytes it took, perhaps not all."""
        return self._begin.write(self, data).result(timeout)

    def pread(self, size: int, offset: int, *, timeout: float | None = None) -> bytes:
        """pread(2): at most ``size`` bytes at ``offset``."""
        return self._begin.pread(self, size, offset).result(timeout)

    def pwrite(self, data: bytes, offset: int, *, timeout: float | None = None) -> int:
        """pwrite(2): how many bytes it took at ``offset``."""
        return self._begin.pwrite(self, data, offset).result(timeout)

    def seek(self, offset: int, whence: int = os.SEEK_SET, *, timeout: float | None = None) -> int:
        """lseek(2): the new position."""
        return self._begin.seek(self, offset, whence).result(timeout)

    @overload
    def ioctl(self, request: int, arg: int = 0, *, timeout: float | None = None) -> int: ...

    @overload
    def ioctl(self, request: int, arg: bytes, *, timeout: float | None = None) -> bytes: ...

    def ioctl(
        self, request: int, arg: int | bytes = 0, *, timeout: float | None = None
    ) -> int | bytes:
        """ioctl(2), like ``fcntl.ioctl``: for a number its result, for bytes what they became."""
        return self._begin.ioctl(self, request, arg).result(timeout)

    def poll(
        self,
        events: int = select.POLLIN,
        timeout_ms: int | None = None,
        *,
        timeout: float | None = None,
    ) -> int:
        """poll(2): the events that are there; 0 after ``timeout_ms`` of the guest's time."""
        return self._begin.poll(self, events, timeout_ms).result(timeout)

    def fsync(self, *, timeout: float | None = None) -> None:
        """fsync(2)."""
        self._begin.fsync(self).result(timeout)

    def dup(self) -> GuestFile:
        """dup(2): another descriptor of the same open file."""
        return GuestFile(self._begin, self._begin.dup(self).result(), self.path)

    def mmap(
        self,
        length: int,
        prot: int = mmap.PROT_READ | mmap.PROT_WRITE,
        flags: int = mmap.MAP_SHARED,
        offset: int = 0,
        *,
        timeout: float | None = None,
    ) -> GuestMapping:
        """mmap(2) of the file into the session's process."""
        pending = self._begin.mmap(self, length, prot, flags, offset)
        return GuestMapping(self._begin, pending.result(timeout), length)

    def close(self, *, timeout: float | None = None) -> None:
        """close(2); a second time does nothing. Raises what the driver's flush returns."""
        if self._fd >= 0:
            pending = self._begin.close(self)
            self._fd = -1
            pending.result(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._begin.link.lost:
            self.close()


class GuestMapping:
    """Memory of a session's process, ``length`` bytes at ``address``.

    Every access is ``width`` bytes wide (1, 2, 4 or 8), as a device's registers need it. An access
    that the kernel answers with a signal raises :class:`~kdrv.guest.errors.GuestCallDied`.
    """

    def __init__(self, begin: Operations, address: int, length: int) -> None:
        self.address = address
        self.length = length
        self._begin = begin

    def read(
        self, offset: int, size: int, width: int = 1, *, timeout: float | None = None
    ) -> bytes:
        """``size`` bytes at ``offset``. Raises ``ValueError`` outside of the mapping."""
        self._check(offset, size, width)
        return self._begin.peek(self.address + offset, size, width).result(timeout)

    def write(
        self, offset: int, data: bytes, width: int = 1, *, timeout: float | None = None
    ) -> None:
        """Put ``data`` at ``offset``. Raises ``ValueError`` outside of the mapping."""
        self._check(offset, len(data), width)
        self._begin.poke(self.address + offset, data, width).result(timeout)

    def _check(self, offset: int, size: int, width: int) -> None:
        if self.length == 0:
            raise ValueError("the mapping is closed")
        if width not in (1, 2, 4, 8) or size % width or offset % width:
            raise ValueError(f"{size} bytes at {offset} are no accesses of {width} bytes")
        if offset < 0 or size < 0 or offset + size > self.length:
            raise ValueError(f"{size} bytes at {offset} of a mapping of {self.length}")

    def close(self, *, timeout: float | None = None) -> None:
        """munmap(2); a second time does nothing."""
        if self.length:
            pending = self._begin.munmap(self.address, self.length)
            self.length = 0
            pending.result(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._begin.link.lost:
            self.close()
