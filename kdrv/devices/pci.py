"""A PCI device model: a :class:`~kdrv.devices.model.Device` with config space and interrupts."""

from __future__ import annotations

import struct
from typing import ClassVar

from kdrv.devices.config import (
    COMMAND_INTX_OFF,
    COMMAND_MASTER,
    COMMAND_MEMORY,
    DEVCTL_FLR,
    STATUS,
    STATUS_INTERRUPT,
    Capability,
    ConfigSpace,
    Express,
    Identity,
    Msi,
    Msix,
    Power,
)
from kdrv.devices.errors import Misuse
from kdrv.devices.host import Host
from kdrv.devices.model import Device

MSI_ENABLE, MSIX_ENABLE, MSIX_MASK_ALL = 1 << 0, 1 << 15, 1 << 14
ENTRY_BYTES, ENTRY_MASKED = 16, 1
POWER_STATE = 3


class PciDevice(Device):
    """One PCI function with memory BARs (the ``regions``).

    A subclass sets ``identity``, ``regions`` and, as the hardware has them, ``msi``, ``msix``,
    ``express`` and ``power``. The model calls :meth:`irq` for a message-signalled interrupt and
    :meth:`intx` to drive its pin; enabling, masking and pending bits are kept here.
    """

    identity: ClassVar[Identity]
    msi: ClassVar[Msi | None] = None
    msix: ClassVar[Msix | None] = None
    express: ClassVar[Express | None] = None
    power: ClassVar[Power | None] = None

    def __init__(self, host: Host) -> None:
        known: list[Capability | None] = [self.power, self.express, self.msi, self.msix]
        capabilities = [capability for capability in known if capability]
        self.config = ConfigSpace(self.identity, self.regions, capabilities, self._config_changed)
        self._table = bytearray()
        self._pending: set[int] = set()
        super().__init__(host)

    def reset(self) -> None:
        """Back to power-on, the whole config space and all vectors included."""
        self.config.reset()
        self._clear_vectors()
        super().reset()

    def _clear_vectors(self) -> None:
        count = self.msix.vectors if self.msix else 0
        self._table = bytearray(struct.pack("<QII", 0, 0, ENTRY_MASKED) * count)
        self._pending.clear()

    def function_reset(self) -> None:
        """What a function level reset does: as power-on, but firmware's BAR addresses stay."""
        if self.fault("reset_fail") is not None:
            return
        kept = bytes(self.config.data[0x10:0x28])
        self.reset()
        self.config.data[0x10:0x28] = kept

    def may_master(self) -> bool:
        """Whether the driver has set the bus master bit, and the device is in D0."""
        return self.config.command(COMMAND_MASTER) and not self.asleep

    @property
    def asleep(self) -> bool:
        """Whether the driver has put the device into another power state than D0."""
        place = self.config.places.get(Power.ident)
        return place is not None and bool(self.config.get(place + Power.control, 2) & POWER_STATE)

    # --- interrupts

    @property
    def msi_enabled(self) -> bool:
        """Whether the driver has turned MSI on."""
        place = self.config.places.get(Msi.ident)
        return place is not None and bool(self.config.get(place + 2, 2) & MSI_ENABLE)

    @property
    def msix_enabled(self) -> bool:
        """Whether the driver has turned MSI-X on."""
        return bool(self._msix_control() & MSIX_ENABLE)

    def may_signal(self) -> bool:
        """Whether the driver has turned on MSI or MSI-X, and bus mastering, which they need."""
        return (self.msi_enabled or self.msix_enabled) and self.may_master()

    def irq(self, vector: int = 0) -> None:
        """Signal ``vector``; a masked one stays pending, and without MSI it is lost."""
        vectors = self.msix.vectors if self.msix else self.msi.vectors if self.msi else 0
        if not 0 <= vector < vectors:
            raise ValueError(f"the device has no interrupt vector {vector}")
        if not self.may_signal():
            self.note("interrupt dropped", vector=vector)
        elif self._masked(vector):
            self._pending.add(vector)
            self._show_pending()
        else:
            self.host.message(vector)

    def intx(self, asserted: bool) -> None:
        """Drive the interrupt pin, as far as the driver has not turned it off."""
        status = self.config.get(STATUS, 2) & ~STATUS_INTERRUPT
        self.config.put(STATUS, 2, status | (STATUS_INTERRUPT if asserted else 0))
        if not self.config.command(COMMAND_INTX_OFF):
            self.host.line(asserted)

    def msi_message(self, vector: int) -> tuple[int, int]:
        """Address and data of the memory write that ``vector`` is, as the driver set them up."""
        if self.msix_enabled:
            address, data, _ = struct.unpack_from("<QII", self._table, vector * ENTRY_BYTES)
            return address, data
        place = self.config.places[Msi.ident]
        allotted = 1 << (self.config.get(place + 2, 2) >> 4 & 7)
        data = self.config.get(place + 12, 2) & ~(allotted - 1) | vector % allotted
        return self.config.get(place + 4, 8), data

    def _msix_control(self) -> int:
        place = self.config.places.get(Msix.ident)
        return self.config.get(place + 2, 2) if place is not None else 0

    def _masked(self, vector: int) -> bool:
        if self.msix_enabled:
            (control,) = struct.unpack_from("<I", self._table, vector * ENTRY_BYTES + 12)
            return bool(self._msix_control() & MSIX_MASK_ALL or control & ENTRY_MASKED)
        if self.msi is None or not self.msi.maskable:
            return False
        return bool(self.config.get(self.config.places[Msi.ident] + 16, 4) >> vector & 1)

    def _show_pending(self) -> None:
        if self.msi and self.msi.maskable and not self.msix_enabled:
            bits = sum(1 << vector for vector in self._pending)
            self.config.put(self.config.places[Msi.ident] + 20, 4, bits)

    def _deliver_pending(self) -> None:
        for vector in sorted(self._pending):
            if not self._masked(vector):
                self._pending.discard(vector)
                self._show_pending()
                self.host.message(vector)

    def _config_changed(self, offset: int) -> None:
        place = self.config.places.get(Express.ident)
        if place is not None and place + 8 <= offset < place + 10:
            control = self.config.get(place + 8, 2)
            if control & DEVCTL_FLR:
                self.function_reset()
                return
        if self._pending and (self.msi_enabled or self.msix_enabled):
            self._deliver_pending()

    # --- memory space

    def read(self, region: int, offset: int, width: int) -> int:
        """A driver's read of a BAR; all ones while memory space is off, or the device asleep."""
        self.check(region, offset, width)
        if not self._answers(region, offset):
            return (1 << 8 * width) - 1
        block = self._vector_block(region, offset, width)
        if block is not None:
            data, inner = block
            return int.from_bytes(data[inner : inner + width], "little")
        return super().read(region, offset, width)

    def write(self, region: int, offset: int, width: int, value: int) -> None:
        """A driver's write to a BAR; nothing happens while a read would give all ones."""
        self.check(region, offset, width)
        if not self._answers(region, offset):
            return
        block = self._vector_block(region, offset, width)
        if block is None:
            super().write(region, offset, width, value)
            return
        data, inner = block
        if data is self._table:
            self._table[inner : inner + width] = value.to_bytes(width, "little")
            self._deliver_pending()

    def _answers(self, region: int, offset: int) -> bool:
        """Whether the device takes accesses to its BARs now."""
        if not self.config.command(COMMAND_MEMORY):
            self.note("memory space is off", bar=region, offset=offset)
            return False
        if self.asleep:
            self.note("not in D0", bar=region, offset=offset)
            return False
        return True

    def _vector_block(self, region: int, offset: int, width: int) -> tuple[bytearray, int] | None:
        """The MSI-X structure an access falls into, and where in it."""
        if self.msix is None or region != self.msix.bar:
            return None
        inner = offset - self.msix.table
        if 0 <= inner < len(self._table):
            self._check_vector_access(offset, width)
            return self._table, inner
        bits = bytearray((self.msix.vectors + 63) // 64 * 8)
        inner = offset - self.msix.pending
        if 0 <= inner < len(bits):
            self._check_vector_access(offset, width)
            for vector in self._pending:
                bits[vector // 8] |= 1 << vector % 8
            return bits, inner
        return None

    def _check_vector_access(self, offset: int, width: int) -> None:
        if width not in (4, 8) or offset % width:
            raise Misuse(f"a {width}-byte access to the MSI-X structures at {offset:#x}")
