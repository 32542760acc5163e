"""The agent's channel: a virtio console (``/dev/hvc0``), its bytes sent as events in virtual time.

Source: virtio 1.2, section 5.3; Linux ``drivers/char/virtio_console.c``.
"""

from __future__ import annotations

from collections.abc import Callable

from kdrv.devices.clock import Clock
from kdrv.sim.memory import gather, scatter
from kdrv.sim.vhost import VhostServer

VIRTIO_ID = 3
TO_GUEST, FROM_GUEST = 0, 1


class Port:
    """Both directions of the byte stream. ``received`` holds what no one has read yet."""

    def __init__(self, clock: Clock, connect: Callable[[Port], VhostServer]) -> None:
        self.clock = clock
        self.received = bytearray()
        self._outgoing = bytearray()
        self.server = connect(self)

    def send(self, data: bytes) -> None:
        """Send bytes to the guest, now."""
        self.clock.at(self.clock.now, lambda: self._arrive(data))

    def _arrive(self, data: bytes) -> None:
        self._outgoing += data
        self._fill()

    def _fill(self) -> None:
        """Put waiting bytes into the buffers the guest has offered."""
        memory, filled = self.server.memory, False
        while self._outgoing and memory and (chain := self.server.pop(TO_GUEST)):
            done = scatter(memory, chain, bytes(self._outgoing))
            del self._outgoing[:done]
            self.server.push(TO_GUEST, chain, done)
            filled = True
        if filled:
            self.server.call(TO_GUEST)

    def kicked(self, queue: int) -> None:
        """See :class:`~kdrv.sim.vhost.Backend`."""
        if queue == TO_GUEST:
            if self._outgoing:
                self.clock.at(self.clock.now, self._fill)
            return
        memory = self.server.memory
        while memory and (chain := self.server.pop(FROM_GUEST)):
            self.received += gather(memory, chain)
            self.server.push(FROM_GUEST, chain)
