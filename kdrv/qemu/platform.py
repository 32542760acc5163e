"""Platform devices: what a machine has without a bus that could be asked.

Firmware tells the kernel of them: ACPI on ``q35`` (:mod:`kdrv.qemu.acpi`), a device tree on
``virt`` (:mod:`kdrv.qemu.devicetree`). Their registers are a piece of the machine's RAM that the
kernel is kept from using: plain memory that a driver can map, read and write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdrv.machine.contract import DeviceSpec
from kdrv.machine.platform import read


@dataclass(frozen=True)
class PlatformDevice:
    """A validated platform device.

    ``address`` and ``size`` are those of its registers, ``size`` 0 for none. ``properties`` go
    into the firmware's description; a true one is a flag.
    """

    compatible: str
    address: int
    size: int
    properties: Mapping[str, str | int | bool]


def layout(specs: Sequence[DeviceSpec], top: int) -> tuple[PlatformDevice, ...]:
    """The devices with their registers placed downwards from ``top``, a page boundary.

    Raises :class:`UsageError` for a description no firmware could hold.
    """
    placed = []
    for spec in specs:
        said = read(spec)
        top -= said.size
        address = top if said.size else 0
        placed.append(PlatformDevice(said.compatible, address, said.size, said.properties))
    return tuple(placed)
