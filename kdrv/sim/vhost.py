"""The device's side of one vhost-user connection, as ``arch/um/drivers/virtio_uml.c`` speaks it.

Kicks and calls travel in band (INBAND_NOTIFICATIONS), and every message is acknowledged
(REPLY_ACK): the kernel stands still while its device works.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Protocol

from kdrv.sim.memory import Chain, GuestMemory, Virtqueue
from kdrv.sim.wire import (
    FEATURE_PROTOCOL,
    FEATURE_VERSION_1,
    MEMORY_REGION,
    NEED_REPLY,
    PROTOCOL_INBAND,
    PROTOCOL_REPLY_ACK,
    PROTOCOL_SLAVE_REQ,
    REPLY,
    SLAVE_VRING_CALL,
    VERSION,
    VHOST_HEADER,
    VRING_ADDRESS,
    VRING_STATE,
    Hangup,
    ProtocolError,
    VhostMessage,
    VhostRequest,
    close_all,
    receive_exactly,
    receive_vhost,
    send_all,
)

QUEUES = 2
_U64 = struct.Struct("=Q")


class Backend(Protocol):
    """What plays a virtio device: told of kicks, one queue at a time."""

    def kicked(self, queue: int) -> None:
        """The driver has put something into ``queue``."""
        ...


class VhostServer:
    """One virtio device with two queues. ``backend`` handles its requests.

    ``before`` runs before a kick is handled and ``after`` before it is acknowledged, while the
    kernel still stands still.
    """

    def __init__(
        self,
        backend: Backend,
        before: Callable[[], None] = lambda: None,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        self.backend = backend
        self.connection: socket.socket | None = None
        self.memory: GuestMemory | None = None
        self.queues = [Virtqueue() for _ in range(QUEUES)]
        self._requests: socket.socket | None = None
        self._before = before
        self._after = after

    def close(self) -> None:
        """Let go of the connections and the memory."""
        for connection in (self.connection, self._requests):
            if connection:
                connection.close()
        self.connection = self._requests = None
        if self.memory:
            self.memory.close()
            self.memory = None

    @property
    def reachable(self) -> bool:
        """Whether the kernel is connected and has told where its memory is."""
        return self.connection is not None and self.memory is not None

    def serve(self) -> None:
        """Handle one message of the kernel. Raises :class:`Hangup`."""
        assert self.connection
        message = receive_vhost(self.connection)
        answer = self._handle(message)
        if answer is None and message.wants_reply:
            answer = _U64.pack(0)
        if answer is not None:
            header = VHOST_HEADER.pack(message.request, VERSION | REPLY, len(answer))
            send_all(self.connection, header + answer)

    def _handle(self, message: VhostMessage) -> bytes | None:
        payload = message.payload
        match message.request:
            case VhostRequest.VRING_KICK:
                index, _ = VRING_STATE.unpack(payload)
                self._before()
                self.backend.kicked(index)
                self._after()
            case VhostRequest.GET_FEATURES:
                return _U64.pack(FEATURE_PROTOCOL | FEATURE_VERSION_1)
            case VhostRequest.GET_PROTOCOL_FEATURES:
                return _U64.pack(PROTOCOL_INBAND | PROTOCOL_SLAVE_REQ | PROTOCOL_REPLY_ACK)
            case VhostRequest.SET_SLAVE_REQ_FD:
                self._requests = socket.socket(fileno=message.descriptors[0])
                self._requests.settimeout(self.connection.gettimeout() if self.connection else None)
                return None
            case VhostRequest.SET_MEM_TABLE:
                self._map_memory(message)
                return None
            case VhostRequest.SET_VRING_NUM:
                index, size = VRING_STATE.unpack(payload)
                self.queues[index] = Virtqueue()
                self.queues[index].size = size
            case VhostRequest.SET_VRING_BASE:
                index, self.queues[index].base = VRING_STATE.unpack(payload)
            case VhostRequest.SET_VRING_ADDR:
                index, _, descriptors, used, available, _ = VRING_ADDRESS.unpack(payload)
                queue = self.queues[index]
                queue.descriptors, queue.used, queue.available = descriptors, used, available
            case (
                VhostRequest.SET_OWNER
                | VhostRequest.SET_FEATURES
                | VhostRequest.SET_PROTOCOL_FEATURES
                | VhostRequest.SET_VRING_ENABLE
                | VhostRequest.SET_VRING_KICK
                | VhostRequest.SET_VRING_CALL
            ):
                pass
            case _:
                raise ProtocolError(f"the kernel sent vhost-user request {message.request}")
        close_all(message.descriptors)
        return None

    def _map_memory(self, message: VhostMessage) -> None:
        count = int.from_bytes(message.payload[:4], "little")
        if count != 1 or len(message.descriptors) != 1:
            raise ProtocolError(f"the kernel described {count} regions of memory, not one")
        start, size, _, offset = MEMORY_REGION.unpack_from(message.payload, 8)
        if self.memory:
            self.memory.close()
        self.memory = GuestMemory(start, size, message.descriptors[0], offset)

    def pop(self, queue: int) -> Chain | None:
        """The next request in ``queue``; None when there is none, or no kernel yet."""
        return self.queues[queue].pop(self.memory) if self.memory else None

    def push(self, queue: int, chain: Chain, written: int = 0) -> None:
        """Give a request back, ``written`` bytes of it filled."""
        assert self.memory
        self.queues[queue].push(self.memory, chain, written)

    def keep(self, queue: int) -> None:
        """Never give the last request back."""
        self.queues[queue].kept += 1

    def call(self, queue: int) -> None:
        """Interrupt the kernel for ``queue`` and wait until it has taken notice.

        To be used only while the kernel waits: the effect then depends on nothing but our time.
        A kernel that has let go of the device, as at power-off, is left alone.
        """
        if not self._requests or not self.memory:
            return
        if not self.queues[queue].wants_call(self.memory):
            return
        flags = VERSION | NEED_REPLY
        body = VRING_STATE.pack(queue, 0)
        header = VHOST_HEADER.pack(SLAVE_VRING_CALL, flags, len(body))
        try:
            send_all(self._requests, header + body)
            receive_exactly(self._requests, VHOST_HEADER.size + _U64.size)
        except Hangup:
            self._requests.close()
            self._requests = None
