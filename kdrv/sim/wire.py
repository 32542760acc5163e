"""The messages between the kernel and the simulator, as bytes.

Sources: Linux ``include/uapi/linux/um_timetravel.h``, ``arch/um/drivers/vhost_user.h``,
``include/uapi/linux/virtio_pcidev.h``. Everything is in the host's byte order.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import struct
from dataclasses import dataclass, field
from enum import IntEnum

from kdrv.core.errors import SetupError


class TimeOp(IntEnum):
    """``enum um_timetravel_ops``."""

    ACK = 0
    START = 1
    REQUEST = 2
    WAIT = 3
    GET = 4
    UPDATE = 5
    RUN = 6
    FREE_UNTIL = 7
    GET_TOD = 8
    BROADCAST = 9


TIME_MESSAGE = struct.Struct("=IIQ")
"""``struct um_timetravel_msg``: operation, sequence number, time in nanoseconds."""


class VhostRequest(IntEnum):
    """``enum vhost_user_request``, as far as ``virtio_uml.c`` sends them."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    SET_MEM_TABLE = 5
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18
    SET_SLAVE_REQ_FD = 21
    VRING_KICK = 35


SLAVE_VRING_CALL = 4
VHOST_HEADER = struct.Struct("=III")
"""``struct vhost_user_header``: request, flags, size of what follows."""
VRING_STATE = struct.Struct("=II")
VRING_ADDRESS = struct.Struct("=IIQQQQ")
MEMORY_REGION = struct.Struct("=QQQQ")
VERSION, REPLY, NEED_REPLY = 1, 1 << 2, 1 << 3
FEATURE_PROTOCOL, FEATURE_VERSION_1 = 1 << 30, 1 << 32
PROTOCOL_REPLY_ACK, PROTOCOL_SLAVE_REQ, PROTOCOL_INBAND = 1 << 3, 1 << 5, 1 << 14


class PciOp(IntEnum):
    """``enum virtio_pcidev_ops``."""

    CFG_READ = 1
    CFG_WRITE = 2
    MMIO_READ = 3
    MMIO_WRITE = 4
    MMIO_MEMSET = 5
    INT = 6
    MSI = 7
    PME = 8


PCI_MESSAGE = struct.Struct("=BBHIQ")
"""``struct virtio_pcidev_msg``: operation, BAR, reserved, size, address; the data follows."""


class ProtocolError(SetupError):
    """The kernel spoke otherwise than the simulator knows it to; the message says where."""


class Hangup(Exception):
    """The kernel closed a connection, as it does when it powers off."""


@dataclass(frozen=True)
class VhostMessage:
    """One vhost-user message with the descriptors that came along."""

    request: int
    flags: int
    payload: bytes
    descriptors: list[int] = field(default_factory=list)

    @property
    def wants_reply(self) -> bool:
        """Whether the sender waits for an acknowledgement."""
        return bool(self.flags & NEED_REPLY)


def receive_exactly(connection: socket.socket, size: int) -> bytes:
    """``size`` bytes. Raises :class:`Hangup` when the other side is gone."""
    data = b""
    while len(data) < size:
        try:
            piece = connection.recv(size - len(data))
        except ConnectionResetError:
            piece = b""
        if not piece:
            raise Hangup
        data += piece
    return data


def send_all(connection: socket.socket, data: bytes) -> None:
    """Send ``data``. Raises :class:`Hangup` when the other side is gone."""
    try:
        connection.sendall(data)
    except (BrokenPipeError, ConnectionResetError) as error:
        raise Hangup from error


def receive_vhost(connection: socket.socket) -> VhostMessage:
    """The next vhost-user message. Raises :class:`Hangup` when the other side is gone."""
    descriptors = array.array("i")
    try:
        header, ancillary, _, _ = connection.recvmsg(VHOST_HEADER.size, socket.CMSG_SPACE(4 * 4))
    except ConnectionResetError:
        header, ancillary = b"", []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    if not header:
        raise Hangup
    header += receive_exactly(connection, VHOST_HEADER.size - len(header))
    request, flags, size = VHOST_HEADER.unpack(header)
    return VhostMessage(request, flags, receive_exactly(connection, size), list(descriptors))


def close_all(descriptors: list[int]) -> None:
    """Close file descriptors, whatever their state."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
