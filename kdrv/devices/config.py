"""PCI configuration space: header, BARs, capabilities.

Sources: PCI Local Bus Specification 3.0, chapter 6; PCI Express Base Specification, section 7.5;
Linux ``include/uapi/linux/pci_regs.h`` for the names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from kdrv.devices.errors import Misuse

COMMAND, STATUS, BAR0, PIN = 0x04, 0x06, 0x10, 0x3D
COMMAND_MEMORY, COMMAND_MASTER, COMMAND_INTX_OFF = 1 << 1, 1 << 2, 1 << 10
STATUS_INTERRUPT, STATUS_CAPABILITIES = 1 << 3, 1 << 4
CAPABILITIES_START, FIRST_CAPABILITY = 0x34, 0x40
DEVCAP_FLR, DEVCTL_FLR = 1 << 28, 1 << 15


class Capability(Protocol):
    """A block of config space: its bytes at reset and which bits a driver may change."""

    @property
    def ident(self) -> int:
        """The capability ID."""
        ...

    def image(self) -> bytes:
        """Its bytes from the first after the link."""
        ...

    def writable(self) -> bytes:
        """A mask over :meth:`image`: bits a driver may change."""
        ...


@dataclass(frozen=True)
class Power:
    """Power management: D0 and D3hot, registers kept in both (PCI PM Interface 1.2, section 3.2).

    ``control`` is where the control/status register stands in the capability.
    """

    ident = 0x01
    control = 0x04

    def image(self) -> bytes:
        """See :class:`Capability`."""
        version, keeps_registers = 3, 1 << 3
        return version.to_bytes(2, "little") + keeps_registers.to_bytes(2, "little") + bytes(2)

    def writable(self) -> bytes:
        """See :class:`Capability`."""
        return b"\x00\x00" + b"\x03\x00" + bytes(2)


@dataclass(frozen=True)
class Msi:
    """Message-signalled interrupts: ``vectors`` is a power of two up to 32. 64-bit addresses."""

    vectors: int = 1
    maskable: bool = False
    ident = 0x05

    def image(self) -> bytes:
        """See :class:`Capability`."""
        control = (self.vectors.bit_length() - 1) << 1 | 1 << 7 | self.maskable << 8
        return control.to_bytes(2, "little") + bytes(18 if self.maskable else 10)

    def writable(self) -> bytes:
        """See :class:`Capability`."""
        mask = b"\x71\x00" + b"\xfc\xff\xff\xff" + b"\xff" * 4 + b"\xff\xff"
        return mask + (b"\x00\x00" + b"\xff" * 4 + bytes(4) if self.maskable else b"")


@dataclass(frozen=True)
class Msix:
    """MSI-X: up to 2048 ``vectors``, whose table and pending bits lie in ``bar``."""

    vectors: int
    bar: int
    table: int = 0
    pending: int = 0x800
    ident = 0x11

    def image(self) -> bytes:
        """See :class:`Capability`."""
        places = [(self.table | self.bar), (self.pending | self.bar)]
        control = (self.vectors - 1).to_bytes(2, "little")
        return control + b"".join(place.to_bytes(4, "little") for place in places)

    def writable(self) -> bytes:
        """See :class:`Capability`."""
        return b"\x00\xc0" + bytes(8)


@dataclass(frozen=True)
class Express:
    """A PCI Express endpoint (capability version 2) that can do a function level reset."""

    ident = 0x10
    control = 0x08

    def image(self) -> bytes:
        """See :class:`Capability`."""
        flags = (2).to_bytes(2, "little")
        link = 0x11  # one lane, 2.5 GT/s
        words = {0x04: DEVCAP_FLR, 0x0C: link, 0x10: link << 16}
        body = bytearray(0x3C - 2)
        body[0:2] = flags
        for offset, word in words.items():
            body[offset - 2 : offset + 2] = word.to_bytes(4, "little")
        return bytes(body)

    def writable(self) -> bytes:
        """See :class:`Capability`."""
        mask = bytearray(0x3C - 2)
        mask[6:8] = b"\xff\xff"
        return bytes(mask)


@dataclass(frozen=True)
class Identity:
    """Who a PCI function says it is; ``class_code`` has 24 bits."""

    vendor: int
    device: int
    class_code: int
    revision: int = 0
    subsystem_vendor: int = 0
    subsystem: int = 0
    pin: int = 0


class ConfigSpace:
    """The bytes of one function's config space, and what writing them does.

    ``changed`` is called with the first byte's offset after every write that a driver makes.
    """

    def __init__(
        self,
        identity: Identity,
        bars: Sequence[int],
        capabilities: Sequence[Capability],
        changed: Callable[[int], None],
    ) -> None:
        express = any(isinstance(capability, Express) for capability in capabilities)
        self.size = 4096 if express else 256
        self._identity = identity
        self._bars = bars
        self._capabilities = capabilities
        self._changed = changed
        self.places: dict[int, int] = {}
        self.data = bytearray()
        self._mask = bytearray()
        self.reset()

    def reset(self) -> None:
        """Every byte as after power-on."""
        self.data = bytearray(self.size)
        self._mask = bytearray(self.size)
        who = self._identity
        self.put(0x00, 2, who.vendor)
        self.put(0x02, 2, who.device)
        self._allow(COMMAND, 2, COMMAND_MEMORY | COMMAND_MASTER | COMMAND_INTX_OFF | 0x0140)
        self.put(0x08, 4, who.class_code << 8 | who.revision)
        self._allow(0x0C, 2, 0xFFFF)
        for bar, size in enumerate(self._bars):
            if not size:
                continue
            if size < 16 or size & (size - 1):
                raise ValueError(f"BAR {bar} cannot have {size:#x} bytes: not a power of two >= 16")
            self._allow(BAR0 + 4 * bar, 4, (1 << 32) - size)
        self.put(0x2C, 4, who.subsystem << 16 | who.subsystem_vendor)
        self._allow(0x3C, 1, 0xFF)
        self.put(PIN, 1, who.pin)
        self._chain()

    def _chain(self) -> None:
        link, place = CAPABILITIES_START, FIRST_CAPABILITY
        for capability in self._capabilities:
            image, mask = capability.image(), capability.writable()
            self.put(link, 1, place)
            self.put(place, 1, capability.ident)
            self.data[place + 2 : place + 2 + len(image)] = image
            self._mask[place + 2 : place + 2 + len(mask)] = mask
            self.places[capability.ident] = place
            link, place = place + 1, (place + 2 + len(image) + 3) & ~3
        if self._capabilities:
            self.put(STATUS, 2, STATUS_CAPABILITIES)

    def _allow(self, offset: int, width: int, mask: int) -> None:
        self._mask[offset : offset + width] = mask.to_bytes(width, "little")

    def get(self, offset: int, width: int) -> int:
        """The stored value, whoever asks."""
        return int.from_bytes(self.data[offset : offset + width], "little")

    def put(self, offset: int, width: int, value: int) -> None:
        """Store a value from the device's side."""
        self.data[offset : offset + width] = value.to_bytes(width, "little")

    def read(self, offset: int, width: int) -> int:
        """A driver's read. Raises :class:`Misuse` outside the space."""
        self._check(offset, width)
        return self.get(offset, width)

    def write(self, offset: int, width: int, value: int) -> None:
        """A driver's write: bits that it may not change stay. Raises :class:`Misuse`."""
        self._check(offset, width)
        mask = int.from_bytes(self._mask[offset : offset + width], "little")
        self.put(offset, width, self.get(offset, width) & ~mask | value & mask)
        self._changed(offset)

    def _check(self, offset: int, width: int) -> None:
        if width not in (1, 2, 4, 8) or not 0 <= offset <= self.size - width:
            raise Misuse(f"{width} bytes at {offset:#x} of config space ({self.size} bytes)")

    def command(self, bit: int) -> bool:
        """Whether a bit of the command register is set."""
        return bool(self.get(COMMAND, 2) & bit)
