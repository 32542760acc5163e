"""Platform devices on ``virt``: nodes added to the device tree QEMU makes (Devicetree v0.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from kdrv.core.context import Context
from kdrv.core.store import Store, digest
from kdrv.machine.platform import cells, node_name, property_source, quoted
from kdrv.qemu.parts import Parts
from kdrv.qemu.platform import PlatformDevice
from kdrv.toolchain.base import Bind, Toolchain

KIND = "device-tree"
DEADLINE = 30.0
MOUNT = "/run/kdrv/dt"


def devicetree_parts(
    toolchain: Toolchain, ctx: Context, machine: Sequence[str], devices: Sequence[PlatformDevice]
) -> Parts:
    """What hands the kernel a tree with ``devices``; ``machine`` is QEMU with its own options.

    QEMU's tree depends on processors and memory, so it is asked for the tree of this machine.
    """
    source = nodes(devices)

    def compile_tree(data: Path) -> Mapping[str, object]:
        (data / "kdrv.dtsi").write_text(source)
        binds = (Bind(data, MOUNT, True),)
        for argv in (
            (*machine, "-machine", f"dumpdtb={MOUNT}/qemu.dtb"),
            ("dtc", "-q", "-I", "dtb", "-O", "dts", "-o", "qemu.dts", "qemu.dtb"),
        ):
            ctx.runner.run(toolchain.command(argv, binds=binds, cwd=MOUNT), deadline=DEADLINE)
        whole = (data / "qemu.dts").read_text() + source
        (data / "kdrv.dts").write_text(whole)
        argv = ("dtc", "-q", "-I", "dts", "-O", "dtb", "-o", "kdrv.dtb", "kdrv.dts")
        ctx.runner.run(toolchain.command(argv, binds=binds, cwd=MOUNT), deadline=DEADLINE)
        return {"devices": [device.compatible for device in devices]}

    key = digest("dt-1", toolchain.identity, list(machine), source)
    entry = Store(ctx).get(KIND, key, compile_tree, waiting="a device tree")
    return Parts(arguments=("-dtb", f"{MOUNT}/kdrv.dtb"), binds=(Bind(entry.data, MOUNT),))


def nodes(devices: Sequence[PlatformDevice]) -> str:
    """Source that adds ``devices`` to a tree whose root has two cells of address and of size."""
    text = ""
    reserved = ""
    for number, device in enumerate(devices):
        name = node_name(device.compatible)
        unit = f"@{device.address:x}" if device.size else f"-{number}"
        lines = [f"compatible = {quoted(device.compatible)};"]
        if device.size:
            reg = f"<{cells(device.address)} {cells(device.size)}>"
            lines.append(f"reg = {reg};")
            # no-map: the driver's ioremap() refuses memory that the kernel has mapped itself.
            reserved += f"kdrv-regs@{device.address:x} {{ reg = {reg}; no-map; }};\n"
        lines += [property_source(name, value) for name, value in device.properties.items()]
        text += f"{name}{unit} {{ {' '.join(lines)} }};\n"
    if reserved:
        text += "reserved-memory {\n#address-cells = <2>;\n#size-cells = <2>;\nranges;\n"
        text += reserved + "};\n"
    return f"/ {{\n{text}}};\n"
