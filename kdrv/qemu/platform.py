"""Platform devices: what a machine has without a bus that could be asked.

Firmware tells the kernel of them: ACPI on ``q35`` (:mod:`kdrv.qemu.acpi`), a device tree on
``virt`` (:mod:`kdrv.qemu.devicetree`). Their registers are a piece of the machine's RAM that the
kernel is kept from using: plain memory that a driver can map, read and write.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdrv.core.errors import UsageError
from kdrv.machine.contract import DeviceSpec

KIND = "platform"
PAGE = 4096
MOST_REGISTERS = 1 << 20

_COMPATIBLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9,._+-]*")
_PROPERTY = re.compile(r"[A-Za-z0-9#][A-Za-z0-9,._+?#-]{0,30}")
_PRINTABLE = re.compile(r"[ -~]*")
_EXAMPLE = 'DeviceSpec("platform", {"compatible": "acme,widget", "regs": 4096})'


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
        compatible, size, properties = _read(spec)
        top -= size
        placed.append(PlatformDevice(compatible, top if size else 0, size, properties))
    return tuple(placed)


def quoted(text: str) -> str:
    """A printable string as ASL and device-tree source write it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _read(spec: DeviceSpec) -> tuple[str, int, dict[str, str | int | bool]]:
    options = dict(spec.options)
    compatible = options.pop("compatible", None)
    if not isinstance(compatible, str) or not _COMPATIBLE.fullmatch(compatible):
        raise UsageError(
            "a platform device needs compatible, which its driver is found by",
            expected=f"compatible = 'vendor,name', got {compatible!r}; for example {_EXAMPLE}",
        )
    regs = options.pop("regs", 0)
    if isinstance(regs, bool) or not isinstance(regs, int) or not 0 <= regs <= MOST_REGISTERS:
        raise UsageError(
            f"regs = {regs!r} of platform device {compatible} is no number of bytes",
            expected=f"0 (no registers) to {MOST_REGISTERS}",
        )
    for name, value in options.items():
        _check_property(compatible, name, value)
    flags_off = {name for name, value in options.items() if value is False}
    properties = {name: value for name, value in options.items() if name not in flags_off}
    return compatible, -(-regs // PAGE) * PAGE, properties


def _check_property(compatible: str, name: str, value: str | int | bool) -> None:
    if not _PROPERTY.fullmatch(name) or name in ("reg", "status", "phandle"):
        raise UsageError(
            f"{name!r} cannot be a property of platform device {compatible}",
            expected="a device-tree property name: at most 31 of A-Z a-z 0-9 , . _ + ? # -",
        )
    if isinstance(value, str) and not _PRINTABLE.fullmatch(value):
        raise UsageError(
            f"property {name} of platform device {compatible} holds {value!r}",
            expected="printable ASCII text",
        )
    if isinstance(value, int) and not 0 <= value < 1 << 64:
        raise UsageError(
            f"property {name} of platform device {compatible} is {value}",
            expected="a number from 0 to 2^64 - 1",
        )
