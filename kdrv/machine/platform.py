"""Platform devices as a machine's description has them: read, checked, in a device tree's words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from kdrv.core.errors import UsageError
from kdrv.machine.contract import DeviceSpec

PLATFORM_KIND = "platform"
PAGE = 4096
MOST_REGISTERS = 1 << 20

_COMPATIBLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9,._+-]*")
_PROPERTY = re.compile(r"[A-Za-z0-9#][A-Za-z0-9,._+?#-]{0,30}")
_PRINTABLE = re.compile(r"[ -~]*")
_EXAMPLE = 'kind = "platform", compatible = "acme,widget", regs = 4096'


@dataclass(frozen=True)
class Described:
    """What a validated description says.

    ``size`` is that of the registers, in whole pages, 0 for none. A property that is true is a
    flag; those that are false are left out.
    """

    compatible: str
    size: int
    properties: Mapping[str, str | int | bool]


def read(spec: DeviceSpec) -> Described:
    """Read a device's options. Raises :class:`UsageError` for what no firmware could hold."""
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
    properties = {name: value for name, value in options.items() if value is not False}
    return Described(compatible, -(-regs // PAGE) * PAGE, properties)


def quoted(text: str) -> str:
    """A printable string as ASL and device-tree source write it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def cells(value: int) -> str:
    """A number as two cells of device-tree source."""
    return f"{value >> 32:#x} {value & 0xFFFFFFFF:#x}"


def property_source(name: str, value: str | int | bool) -> str:
    """A property as device-tree source writes it."""
    if isinstance(value, bool):
        return f"{name};"
    if isinstance(value, str):
        return f"{name} = {quoted(value)};"
    return f"{name} = <{cells(value) if value >> 32 else hex(value)}>;"


def node_name(compatible: str) -> str:
    """The name of a device's node, without its address."""
    return compatible.rpartition(",")[2].lower().replace("_", "-")


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
