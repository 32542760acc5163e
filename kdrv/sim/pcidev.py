"""A PCI device model behind ``virtio_pcidev``: messages to accesses, interrupts to messages.

Source: Linux ``arch/um/drivers/virtio_pcidev.c``, ``include/uapi/linux/virtio_pcidev.h``. What
the kernel's side cannot do is said here too: ``memset_io`` arrives as a write to config space
(:meth:`PciTransport._write_config` tells them apart, except 1, 2, 4 or 8 bytes at the start of
BAR 0), and nothing in ``arch/um`` handles the interrupt pin.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from kdrv.devices.clock import Clock
from kdrv.devices.config import PIN, Power
from kdrv.devices.pci import POWER_STATE, PciDevice
from kdrv.sim.attachment import WIDTHS, Attachment
from kdrv.sim.faults import Schedule
from kdrv.sim.memory import Chain, gather, scatter
from kdrv.sim.trace import ConfigAccess, Interrupt, Trace
from kdrv.sim.vhost import Backend, VhostServer
from kdrv.sim.wire import PCI_MESSAGE, PciOp, ProtocolError

VIRTIO_ID = 1234
"""The virtio device id, as um.config's CONFIG_UML_PCI_OVER_VIRTIO_DEVICE_ID says."""
COMMANDS, INTERRUPTS = 0, 1
POSTED = 20
"""``arch/um/drivers/virtio_pcidev.c``: VIRTIO_PCIDEV_WRITE_BUFS."""
Connect = Callable[[Backend], VhostServer]


def perform(server: VhostServer, chain: Chain, handle: Callable[..., bytes]) -> int:
    """Carry out one request by ``handle(operation, bar, address, size, data)``.

    Gives the number of bytes written into the request: what ``handle`` answered.
    """
    assert server.memory
    request = gather(server.memory, chain)
    operation, bar, _, size, address = PCI_MESSAGE.unpack_from(request)
    if operation not in list(PciOp):
        raise ProtocolError(f"the kernel sent virtio-pcidev operation {operation}")
    answer = handle(PciOp(operation), bar, address, size, request[PCI_MESSAGE.size :])
    return scatter(server.memory, chain, answer)


def perform_all(server: VhostServer, handle: Callable[..., bytes]) -> None:
    """Carry out all requests that wait; see :func:`perform`.

    The kernel does not wait for a write as long as it has one of its buffers for it. A read takes
    back what was given back of those first, and lets a microsecond pass for each: an interrupt
    then, whose handler reads a register itself, takes away the answer the first read polls for, and
    the kernel warns ("um virt-pci delay") and goes on with garbage. So these buffers are kept: from
    then on the kernel waits for each write as it does for a read, and no time passes in either.
    """
    while chain := server.pop(COMMANDS):
        written = perform(server, chain, handle)
        if chain.writable or server.queues[COMMANDS].kept >= POSTED:
            server.push(COMMANDS, chain, written)
        else:
            server.keep(COMMANDS)


class PciTransport:
    """Carries the accesses to one model, and its interrupts."""

    def __init__(
        self,
        name: str,
        clock: Clock,
        trace: Trace,
        schedule: Schedule,
        make: Callable[[Attachment[PciDevice]], PciDevice],
        connect: Connect,
    ) -> None:
        self.server = connect(self)
        self._interrupts: deque[int] = deque()
        self._wrote = False
        self.device = Attachment(name, clock, trace, schedule, self.server, make, self._deliver)

    @property
    def model(self) -> PciDevice:
        """The device's model."""
        return self.device.model

    # --- interrupts

    def _deliver(self, vector: int) -> None:
        if not self.model.may_signal():
            self.device.note("interrupt dropped", {"vector": vector})
            return
        self._interrupts.append(vector)
        self._drain_interrupts()

    def _drain_interrupts(self) -> None:
        """Hand over interrupts as long as the kernel has buffers for them."""
        device, memory, delivered = self.device, self.server.memory, False
        while self._interrupts and memory and (chain := self.server.pop(INTERRUPTS)):
            vector = self._interrupts.popleft()
            _, data = self.model.msi_message(vector)
            payload = data.to_bytes(4, "little")
            message = PCI_MESSAGE.pack(PciOp.MSI, 0, 0, len(payload), 0) + payload
            self.server.push(INTERRUPTS, chain, scatter(memory, chain, message))
            device.trace.add(Interrupt(device.now, device.name, vector))
            delivered = True
        if delivered:
            self.server.call(INTERRUPTS)

    # --- accesses

    def kicked(self, queue: int) -> None:
        """See :class:`~kdrv.sim.vhost.Backend`."""
        if queue == INTERRUPTS:
            if self._interrupts:
                self.device.clock.after(0, self._drain_interrupts)
            return
        self._wrote = False
        perform_all(self.server, self._handle)
        if self._wrote:
            # A device that answers at once interrupts the instruction after the one that asked. In
            # a read that is not possible: a handler that reads would take the answer away.
            clock = self.device.clock
            while (due := clock.due()) is not None and due <= clock.now:
                clock.step()

    def _handle(self, operation: PciOp, bar: int, address: int, size: int, data: bytes) -> bytes:
        match operation:
            case PciOp.CFG_READ:
                return self._read_config(address, size)
            case PciOp.CFG_WRITE:
                self._write_config(bar, address, size, data)
            case PciOp.MMIO_READ:
                return self.device.read(bar, address, size)
            case PciOp.MMIO_WRITE:
                self.device.write(bar, address, data[:size])
                self._wrote = True
            case PciOp.MMIO_MEMSET:
                self._fill(bar, address, size, data[:1])
            case _:
                raise ProtocolError(f"the kernel sent virtio-pcidev operation {operation.name}")
        return b""

    def _fill(self, bar: int, address: int, size: int, byte: bytes) -> None:
        """A memset of device memory; of one that is longer than any BAR, as much as shows it."""
        self.device.write(bar, address, byte * min(size, max(self.model.regions) + 8))

    def _read_config(self, offset: int, width: int) -> bytes:
        device = self.device
        doing = f"{width}-byte read of config space at {offset:#x}"
        value = device.guard(doing, lambda: self.model.config.read(offset, width))
        if self._is_power_state(offset, width):
            device.bus.power()
        if offset <= PIN < offset + width:
            # No line leads anywhere here, so a driver must not be told of one to fall back on.
            value &= ~(0xFF << 8 * (PIN - offset))
        if device.bus.silent:
            value = (1 << 8 * width) - 1
        device.trace.add(ConfigAccess(device.now, device.name, False, offset, width, value))
        return value.to_bytes(width, "little")

    def _write_config(self, bar: int, offset: int, size: int, data: bytes) -> None:
        device = self.device
        if bar or size not in WIDTHS or offset + size > self.model.config.size:
            self._fill(bar, offset, size, data[:1])
            return
        value = int.from_bytes(data[:size], "little")
        device.trace.add(ConfigAccess(device.now, device.name, True, offset, size, value))
        doing = f"{size}-byte write of {value:#x} to config space at {offset:#x}"
        if self._is_power_state(offset, size) and not value & POWER_STATE:
            device.bus.power()
        if not device.bus.silent:
            device.guard(doing, lambda: self.model.config.write(offset, size, value))

    def _is_power_state(self, offset: int, width: int) -> bool:
        """Whether these bytes of config space are the power management control register."""
        place = self.model.config.places.get(Power.ident)
        return place is not None and offset <= place + Power.control < offset + width
