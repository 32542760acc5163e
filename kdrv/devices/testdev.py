"""QEMU's ``pci-testdev``: pick a test, write the given byte to the given place, see it counted.

The in-tree sample ``samples/rust/rust_driver_pci.rs`` drives it. Source: QEMU
``hw/misc/pci-testdev.c``. Its second BAR, of I/O ports, is left out: no I/O ports exist in the
simulator.
"""

from __future__ import annotations

from kdrv.devices.config import Identity
from kdrv.devices.host import Host
from kdrv.devices.pci import PciDevice
from kdrv.devices.register import Access, Register

TESTS = (b"mmio-no-eventfd", b"mmio-wildcard-eventfd", b"mmio-datamatch-eventfd")
WILDCARD = 1
DATA_MATCH, DATA_WILDCARD = 0xFA, 0xCE
NAME, DOORBELLS = 0x10, 0x800


class TestDev(PciDevice):
    """The device; ``data`` and ``count`` are those of the selected test, zero before one is."""

    __test__ = False  # pytest takes a class of this name for tests otherwise

    identity = Identity(vendor=0x1B36, device=0x0005, class_code=0x00FF00)
    regions = (0x1000,)

    test = Register(0x00, width=1)
    access_width = Register(0x01, width=1, access=Access.RO)
    offset = Register(0x04, access=Access.RO, widths=(1, 2, 4))
    data = Register(0x08, width=1, access=Access.RO)
    count = Register(0x0C, access=Access.RO, widths=(1, 2, 4))

    def __init__(self, host: Host) -> None:
        self.selected: int | None = None
        super().__init__(host)

    def restart(self) -> None:
        """No test is selected."""
        self.selected = None

    @test.on_write
    def _select(self, value: int) -> None:
        self.values = dict.fromkeys(self.values, 0)
        self.selected = value if value < len(TESTS) else None
        if self.selected is not None:
            self.test = value
            self.access_width = 1
            self.offset = DOORBELLS + value
            self.data = DATA_WILDCARD if value == WILDCARD else DATA_MATCH

    def unassigned_read(self, region: int, offset: int, width: int) -> int:
        """The test's name, and zero elsewhere."""
        name = TESTS[self.selected] if self.selected is not None else b""
        return int.from_bytes(name[offset - NAME :][:width], "little") if offset >= NAME else 0

    def unassigned_write(self, region: int, offset: int, width: int, value: int) -> None:
        """Count a write of the right byte to the selected test's place; ignore any other."""
        if self.selected is None or offset != self.offset:
            return
        if self.selected == WILDCARD or (width == 1 and value == self.data):
            self.count += 1

    def inspect(self) -> dict[str, object]:
        """Which test is selected."""
        return {"selected": self.selected}
