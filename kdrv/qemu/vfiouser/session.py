"""One connection of QEMU's: messages in, accesses to a :class:`~kdrv.qemu.vfiouser.slot.Slot`."""

from __future__ import annotations

import errno
import json
import socket

from kdrv.devices.register import WIDTHS
from kdrv.qemu.vfiouser import wire
from kdrv.qemu.vfiouser.slot import Slot
from kdrv.qemu.vfiouser.wire import Command, Irq, IrqInfo, Message, Refused

CAPABILITIES = {
    "max_msg_fds": wire.MOST_DESCRIPTORS,
    "max_data_xfer_size": wire.MOST_DATA,
    "pgsizes": 4096,
}
_IRQ_FLAGS = {
    Irq.INTX: IrqInfo.EVENTFD | IrqInfo.MASKABLE | IrqInfo.AUTOMASKED,
    Irq.MSI: IrqInfo.EVENTFD,
    Irq.MSIX: IrqInfo.EVENTFD,
}


class Session:
    """Serves ``slot`` on ``connection``, one message at a time."""

    def __init__(self, slot: Slot, connection: socket.socket) -> None:
        wire.bound_waits(connection)
        self.connection = connection
        self.slot = slot

    def serve(self) -> None:
        """Handle one message.

        Raises :class:`~kdrv.qemu.vfiouser.wire.Hangup`, ``ProtocolError`` and ``DeviceFault``.
        """
        message = wire.receive(self.connection)
        try:
            answer = self._handle(message)
        except Refused as refusal:
            wire.close_all(message.descriptors)
            wire.refuse(self.connection, message, refusal.errno)
            return
        if message.command != Command.SET_IRQS:
            wire.close_all(message.descriptors)
        wire.reply(self.connection, message, answer)

    def close(self) -> None:
        """End the connection and what came over it."""
        self.connection.close()
        self.slot.close()

    def _handle(self, message: Message) -> bytes:
        match message.command:
            case Command.REGION_READ:
                return self._read(message)
            case Command.REGION_WRITE:
                return self._write(message)
            case Command.DMA_MAP:
                _, flags, offset, start, size = message.unpack(wire.MAP)
                given = message.descriptors[0] if message.descriptors else None
                self.slot.memory.map(start, size, offset, flags, given)
                return b""
            case Command.DMA_UNMAP:
                _, flags, start, size = message.unpack(wire.UNMAP)
                if flags & wire.UNMAP_ALL:
                    self.slot.memory.clear()
                else:
                    self.slot.memory.unmap(start, size)
                return message.payload[: wire.UNMAP.size]
            case Command.SET_IRQS:
                _, flags, index, start, count = message.unpack(wire.IRQ_SET)
                self.slot.set_irqs(index, flags, start, count, message.descriptors)
                return b""
            case Command.RESET:
                self.slot.reset()
                return b""
            case Command.VERSION:
                return _version(message)
            case Command.GET_INFO:
                message.unpack(wire.DEVICE_INFO)
                flags = wire.DEVICE_RESET | wire.DEVICE_PCI
                size = wire.DEVICE_INFO.size
                return wire.DEVICE_INFO.pack(size, flags, wire.REGIONS, wire.IRQS)
            case Command.GET_REGION_INFO:
                return self._region_info(message)
            case Command.GET_IRQ_INFO:
                return self._irq_info(message)
            case _:
                raise Refused(errno.ENOSYS)

    def _region_info(self, message: Message) -> bytes:
        _, _, index, *_ = message.unpack(wire.REGION_INFO)
        size = self._size(index)
        flags = wire.REGION_READ | wire.REGION_WRITE if size else 0
        return wire.REGION_INFO.pack(wire.REGION_INFO.size, flags, index, 0, size, 0)

    def _size(self, region: int) -> int:
        """The bytes of a region. Raises :class:`Refused` for a number PCI devices do not have."""
        model = self.slot.model
        if region == wire.CONFIG_REGION:
            return model.config.size
        if region >= wire.REGIONS:
            raise Refused(errno.EINVAL)
        return model.regions[region] if region < min(wire.BARS, len(model.regions)) else 0

    def _irq_info(self, message: Message) -> bytes:
        _, _, index, _ = message.unpack(wire.IRQ_INFO)
        if index >= wire.IRQS:
            raise Refused(errno.EINVAL)
        # The other two, for errors and for requests of the device back, no model has.
        known = Irq(index) if index in list(Irq) else None
        count = self.slot.irqs.vectors[known] if known is not None else 0
        flags = _IRQ_FLAGS[known] if known is not None else 0
        return wire.IRQ_INFO.pack(wire.IRQ_INFO.size, flags, index, count)

    def _read(self, message: Message) -> bytes:
        offset, region, count = self._access(message)
        if region == wire.CONFIG_REGION:
            # QEMU copies the whole space at once: no driver's access, so no width to check.
            data = bytes(self.slot.model.config.data[offset : offset + count])
        elif count in WIDTHS:
            data = self.slot.read_bar(region, offset, count).to_bytes(count, "little")
        else:
            raise Refused(errno.EINVAL)
        return message.payload[: wire.REGION_ACCESS.size] + data

    def _write(self, message: Message) -> bytes:
        offset, region, count = self._access(message)
        data = message.payload[wire.REGION_ACCESS.size :]
        if count not in WIDTHS or len(data) != count:
            raise Refused(errno.EINVAL)
        value = int.from_bytes(data, "little")
        if region == wire.CONFIG_REGION:
            self.slot.write_config(offset, count, value)
        else:
            self.slot.write_bar(region, offset, count, value)
        return message.payload[: wire.REGION_ACCESS.size]

    def _access(self, message: Message) -> tuple[int, int, int]:
        """Offset, region and length. Raises :class:`Refused` when it is not inside the region."""
        offset, region, count = message.unpack(wire.REGION_ACCESS)
        if count > wire.MOST_DATA or offset + count > self._size(region):
            raise Refused(errno.EINVAL)
        return offset, region, count


def _version(message: Message) -> bytes:
    major, _ = message.unpack(wire.VERSION_HEAD)
    if major != wire.MAJOR:
        raise Refused(errno.EINVAL)
    said = json.dumps({"capabilities": CAPABILITIES}).encode() + b"\0"
    return wire.VERSION_HEAD.pack(wire.MAJOR, wire.MINOR) + said
