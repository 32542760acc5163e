"""The calendar: who runs until when (``time-travel=ext``, in its shared-memory form).

The kernel runs freely up to the time of our first event; then it waits, we run our events, and
let it go on. Source: Linux ``include/uapi/linux/um_timetravel.h``, ``arch/um/kernel/time.c``.
"""

from __future__ import annotations

import array
import mmap
import os
import socket
import struct

from kdrv.devices.clock import Clock
from kdrv.sim.wire import TIME_MESSAGE, ProtocolError, TimeOp, receive_exactly, send_all

KERNEL, OURSELVES = 1, 0
HEADER_BYTES, CLIENT_BYTES, CLIENTS = 4096, 128, 2
VERSION = 2
_HEADER = struct.Struct("=IIQQHH")
_CLIENT = struct.Struct("=IIQQ")
_U64 = struct.Struct("=Q")
_U16 = struct.Struct("=H")
FREE_UNTIL, CURRENT, RUNNING = 8, 16, 24
TIME_SHARE, WANTS_RUN = 1, 1
FOREVER = (1 << 63) - 1
"""What a kernel asks for that waits for nothing (S64_MAX)."""
TIME_OF_DAY = 1_704_067_200 * 1_000_000_000
"""The date at which every machine starts: 2024-01-01, in nanoseconds."""


class Calendar:
    """Shares ``clock`` with one kernel over ``connection``, once the kernel has connected.

    ``waiting`` says that the kernel stands still and expects us to move the clock.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.waiting = False
        self.connection: socket.socket | None = None
        self._descriptor = os.memfd_create("calendar", os.MFD_CLOEXEC)
        length = HEADER_BYTES + CLIENTS * CLIENT_BYTES
        os.ftruncate(self._descriptor, length)
        self._shared = mmap.mmap(self._descriptor, length)
        _HEADER.pack_into(self._shared, 0, VERSION, length, 0, 0, KERNEL, CLIENTS)
        # We keep to the rules of shared memory too, or the kernel would send messages for us.
        _CLIENT.pack_into(self._shared, HEADER_BYTES, TIME_SHARE, 0, 0, 0)

    def close(self) -> None:
        """Let go of the connection and the shared memory."""
        if self.connection:
            self.connection.close()
        self._shared.close()
        os.close(self._descriptor)

    def serve(self) -> None:
        """Handle one message of the kernel. Raises :class:`~kdrv.sim.wire.Hangup`."""
        assert self.connection
        operation, sequence, _ = TIME_MESSAGE.unpack(
            receive_exactly(self.connection, TIME_MESSAGE.size)
        )
        if operation == TimeOp.START:
            self._acknowledge_start(sequence)
        elif operation == TimeOp.WAIT:
            self.waiting = True
            _U16.pack_into(self._shared, RUNNING, OURSELVES)
        elif operation == TimeOp.GET_TOD:
            self._send(TimeOp.ACK, sequence, TIME_OF_DAY)
        else:
            raise ProtocolError(f"the kernel sent time-travel operation {operation}")

    def _acknowledge_start(self, sequence: int) -> None:
        """The kernel reads two descriptors here: the shared memory, and a log that it ignores."""
        assert self.connection
        self.limit()
        descriptors = array.array("i", [self._descriptor, self._descriptor])
        self.connection.sendmsg(
            [TIME_MESSAGE.pack(TimeOp.ACK, sequence, KERNEL)],
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)],
        )

    def _send(self, operation: TimeOp, sequence: int, time: int) -> None:
        assert self.connection
        send_all(self.connection, TIME_MESSAGE.pack(operation, sequence, time))

    def catch_up(self) -> None:
        """Take over the kernel's time, which it tells before every message to a device."""
        if not self.waiting:
            (self.clock.now,) = _U64.unpack_from(self._shared, CURRENT)

    def limit(self, *, here: bool = False) -> None:
        """Tell the running kernel how far it may go: to our first event, or not past ``here``."""
        due = self.clock.now if here else self.clock.due()
        _U64.pack_into(self._shared, FREE_UNTIL, FOREVER if due is None else due)

    def publish(self) -> None:
        """Show the waiting kernel our time: it reads it when it takes an interrupt."""
        _U64.pack_into(self._shared, CURRENT, self.clock.now)

    @property
    def request(self) -> int:
        """When the waiting kernel wants to run again."""
        _, flags, time, _ = _CLIENT.unpack_from(self._shared, HEADER_BYTES + CLIENT_BYTES)
        return time if flags & WANTS_RUN else FOREVER

    def grant(self, time: int) -> None:
        """Let the waiting kernel run at ``time``."""
        self.clock.now = time
        self.publish()
        self.limit()
        _U16.pack_into(self._shared, RUNNING, KERNEL)
        self.waiting = False
        self._send(TimeOp.RUN, 0, time)
