"""The messages of vfio-user as bytes, in the host's byte order.

Sources: QEMU ``docs/interop/vfio-user.rst``, Linux ``include/uapi/linux/vfio.h``. No package for
Python speaks the protocol, and the C library for it (libvfio-user) wants to own the device's loop.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from kdrv.core.errors import SetupError


class Command(IntEnum):
    """``enum vfio_user_command``, as far as QEMU sends them."""

    VERSION = 1
    DMA_MAP = 2
    DMA_UNMAP = 3
    GET_INFO = 4
    GET_REGION_INFO = 5
    GET_IRQ_INFO = 7
    SET_IRQS = 8
    REGION_READ = 9
    REGION_WRITE = 10
    RESET = 13


class Irq(IntEnum):
    """The interrupt indexes of a PCI device (``VFIO_PCI_INTX_IRQ_INDEX`` and on)."""

    INTX = 0
    MSI = 1
    MSIX = 2


class IrqInfo(IntFlag):
    """``VFIO_IRQ_INFO_...``."""

    EVENTFD = 1
    MASKABLE = 2
    AUTOMASKED = 4


class IrqSet(IntFlag):
    """``VFIO_IRQ_SET_...``: what data comes along, and what to do."""

    NONE = 1
    EVENTFD = 4
    MASK = 8
    UNMASK = 16
    TRIGGER = 32


REQUEST, REPLY, TYPE, NO_REPLY, ERROR = 0, 1, 0xF, 0x10, 0x20
"""Flags of a header."""
REGIONS, CONFIG_REGION, BARS, IRQS = 9, 7, 6, 5
"""``VFIO_PCI_NUM_REGIONS`` and what they are."""
DEVICE_RESET, DEVICE_PCI = 1, 2
REGION_READ, REGION_WRITE = 1, 2
MAP_READ, MAP_WRITE, UNMAP_ALL = 1, 2, 2

MAJOR, MINOR = 0, 0
MOST_DESCRIPTORS = 8
MOST_DATA = 1 << 20
"""Bytes of one read or write."""

HEADER = struct.Struct("=HHIII")
"""``VFIOUserHdr``: number, command, size with the header, flags, errno."""
VERSION_HEAD = struct.Struct("=HH")
DEVICE_INFO = struct.Struct("=IIII")
REGION_INFO = struct.Struct("=IIIIQQ")
IRQ_INFO = struct.Struct("=IIII")
IRQ_SET = struct.Struct("=IIIII")
REGION_ACCESS = struct.Struct("=QII")
MAP = struct.Struct("=IIQQQ")
UNMAP = struct.Struct("=IIQQ")

PATIENCE = 5.0
"""Seconds for the rest of a message that has begun."""
_MOST_BYTES = HEADER.size + REGION_ACCESS.size + MOST_DATA
_SPACE = socket.CMSG_SPACE(MOST_DESCRIPTORS * 4)
_TIMEVAL = struct.Struct("@ll")
# Plain numbers: an operation on Python's enumeration of them takes longer than a system call.
_WAITALL, _TRUNCATED = int(socket.MSG_WAITALL), int(socket.MSG_CTRUNC)


class ProtocolError(SetupError):
    """QEMU spoke otherwise than kdrv knows it to, and cannot be understood from there on."""


class Refused(Exception):
    """A message asks for what cannot be; it is answered by ``errno`` and all goes on."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.errno = number


class Hangup(Exception):
    """QEMU closed the connection, as it does at its end and when a device is unplugged."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message with the descriptors that came along; who takes them closes them."""

    ident: int
    command: int
    flags: int
    payload: bytes
    descriptors: tuple[int, ...] = ()

    def unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        """The payload's head. Raises :class:`Refused` when it is too short."""
        if len(self.payload) < layout.size:
            raise Refused(errno.EINVAL)
        return layout.unpack_from(self.payload)


def bound_waits(connection: socket.socket) -> None:
    """Let no read or write of a connection wait for ever, at no cost: the kernel keeps time."""
    limit = _TIMEVAL.pack(int(PATIENCE), int(PATIENCE % 1 * 1_000_000))
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connection.setsockopt(socket.SOL_SOCKET, option, limit)


def receive(connection: socket.socket) -> Message:
    """The next message. Raises :class:`Hangup` and :class:`ProtocolError`."""
    # The header is read by itself: a longer read could take the next message's descriptors, too.
    try:
        head, control, said, _ = connection.recvmsg(HEADER.size, _SPACE, _WAITALL)
    except BlockingIOError:
        raise ProtocolError("QEMU did not finish a message's header") from None
    except OSError:
        raise Hangup from None
    if not head:
        raise Hangup
    descriptors = _descriptors(control) if control else ()
    try:
        if len(head) < HEADER.size:
            raise ProtocolError(f"QEMU ended a message after {len(head)} bytes of its header")
        if said & _TRUNCATED:
            raise ProtocolError(f"QEMU sent more than {MOST_DESCRIPTORS} descriptors at once")
        ident, command, size, flags, _ = HEADER.unpack(head)
        if not HEADER.size <= size <= _MOST_BYTES or flags & TYPE != REQUEST:
            raise ProtocolError(
                f"QEMU sent a message of {size} bytes with flags {flags:#x}, command {command}"
            )
        payload = _rest(connection, size - HEADER.size) if size > HEADER.size else b""
    except (ProtocolError, Hangup):
        close_all(descriptors)
        raise
    return Message(ident, command, flags, payload, descriptors)


def _rest(connection: socket.socket, size: int) -> bytes:
    try:
        data = connection.recv(size, _WAITALL)
    except OSError:
        data = b""
    if len(data) < size:
        raise ProtocolError(f"QEMU sent {len(data)} of the {size} bytes of a message")
    return data


def _descriptors(control: list[tuple[int, int, bytes]]) -> tuple[int, ...]:
    found = array.array("i")
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return tuple(found)


def reply(connection: socket.socket, message: Message, payload: bytes) -> None:
    """Answer a message, unless QEMU wants no answer. Raises :class:`Hangup`."""
    if not message.flags & NO_REPLY:
        size = HEADER.size + len(payload)
        _send(connection, HEADER.pack(message.ident, message.command, size, REPLY, 0) + payload)


def refuse(connection: socket.socket, message: Message, number: int) -> None:
    """Answer a message by an error number. Raises :class:`Hangup`."""
    if not message.flags & NO_REPLY:
        flags = REPLY | ERROR
        _send(connection, HEADER.pack(message.ident, message.command, HEADER.size, flags, number))


def _send(connection: socket.socket, data: bytes) -> None:
    try:
        connection.sendall(data)
    except OSError:
        raise Hangup from None


def close_all(descriptors: tuple[int, ...]) -> None:
    """Close descriptors that nobody took."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
