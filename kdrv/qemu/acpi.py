"""Platform devices on ``q35``: an ACPI table of our own (ACPI 6.5, chapters 6 and 19).

The id ``PRP0001`` makes Linux match drivers by ``compatible``, as a device tree would
(Documentation/firmware-guide/acpi/enumeration.rst).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from kdrv.core.context import Context
from kdrv.core.store import Store, digest
from kdrv.machine.platform import PAGE, quoted
from kdrv.qemu.parts import Parts
from kdrv.qemu.platform import PlatformDevice
from kdrv.toolchain.base import Bind, Toolchain

KIND = "acpi-table"
DEADLINE = 30.0
MOUNT = "/run/kdrv/acpi"
PROPERTIES_UUID = "daffd814-6eba-4d8c-8a91-bc9bbf4aa301"
"""Device properties for _DSD (uefi.org, "_DSD Implementation Guide")."""


def acpi_parts(toolchain: Toolchain, ctx: Context, devices: Sequence[PlatformDevice]) -> Parts:
    """What makes QEMU's firmware tell of ``devices`` and keeps the kernel off their registers."""
    source = ssdt(devices)

    def compile_table(data: Path) -> Mapping[str, object]:
        (data / "kdrv.asl").write_text(source)
        command = toolchain.command(
            ("iasl", "-vs", "-p", "kdrv", "kdrv.asl"), binds=(Bind(data, MOUNT, True),), cwd=MOUNT
        )
        ctx.runner.run(command, deadline=DEADLINE)
        return {"devices": [device.compatible for device in devices]}

    key = digest("acpi-1", toolchain.identity, source)
    entry = Store(ctx).get(KIND, key, compile_table, waiting="an ACPI table")
    reserved = [f"memmap={d.size // PAGE * 4}K${d.address:#x}" for d in devices if d.size]
    return Parts(
        arguments=("-acpitable", f"file={MOUNT}/kdrv.aml"),
        cmdline=tuple(reserved),
        binds=(Bind(entry.data, MOUNT),),
    )


def ssdt(devices: Sequence[PlatformDevice]) -> str:
    """The ASL source of a secondary table with ``devices`` below ``\\_SB``."""
    nodes = "\n".join(_device(number, device) for number, device in enumerate(devices))
    header = 'DefinitionBlock ("", "SSDT", 2, "KDRV", "PLATFORM", 1)'
    return f"{header}\n{{\nScope (\\_SB)\n{{\n{nodes}}}\n}}\n"


def _device(number: int, device: PlatformDevice) -> str:
    properties = {"compatible": device.compatible, **device.properties}
    pairs = ",\n".join(
        f"      Package () {{ {quoted(name)}, {_value(value)} }}"
        for name, value in properties.items()
    )
    registers = f"    Memory32Fixed (ReadWrite, {device.address:#x}, {device.size:#x})\n"
    return (
        f"Device (KD{number:02X})\n{{\n"
        f'  Name (_HID, "PRP0001")\n'
        f"  Name (_UID, {number})\n"
        f"  Name (_CRS, ResourceTemplate ()\n  {{\n{registers if device.size else ''}  }})\n"
        f'  Name (_DSD, Package ()\n  {{\n    ToUUID ("{PROPERTIES_UUID}"),\n'
        f"    Package ()\n    {{\n{pairs}\n    }}\n  }})\n}}\n"
    )


def _value(value: str | int | bool) -> str:
    return quoted(value) if isinstance(value, str) else f"{int(value):#x}"
