"""Platform devices: registers in plain memory, on a ``simple-bus`` that a device tree describes.

One virtio device stands for the whole bus (``arch/um/drivers/virtio_pcidev.c``:
virtio_pcidev_virtio_platform_probe). The kernel's side gives platform devices no interrupts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdrv.core.context import Context
from kdrv.core.store import Store, digest
from kdrv.devices.clock import Clock
from kdrv.devices.host import Host
from kdrv.devices.model import Device
from kdrv.machine.contract import DeviceSpec
from kdrv.machine.platform import node_name, property_source, read
from kdrv.sim.attachment import Attachment
from kdrv.sim.faults import Schedule
from kdrv.sim.pcidev import COMMANDS, VIRTIO_ID, Connect, perform_all
from kdrv.sim.trace import Trace
from kdrv.sim.wire import PciOp, ProtocolError
from kdrv.toolchain.base import MODULE_OUTPUT, Bind, Toolchain

START = 0x1000_0000
"""Where the bus begins: ``virt_platform_resource`` in ``arch/um/drivers/virt-pci.c``."""
DEADLINE = 30.0


@dataclass(frozen=True)
class PlatformDevice:
    """A described device; ``size`` is that of its registers at ``address``, 0 for none."""

    name: str
    compatible: str
    address: int
    size: int
    properties: Mapping[str, str | int | bool]


class Memory(Device):
    """Registers that keep what is written to them."""

    def __init__(self, host: Host, size: int) -> None:
        self.size = size
        self.content = bytearray()
        super().__init__(host)

    def restart(self) -> None:
        """All zero."""
        self.content = bytearray(self.size)

    def check(self, region: int, offset: int, width: int) -> None:
        """Everything inside the memory is allowed: the bus has seen to the rest."""

    def unassigned_read(self, region: int, offset: int, width: int) -> int:
        """What is stored."""
        return int.from_bytes(self.content[offset : offset + width], "little")

    def unassigned_write(self, region: int, offset: int, width: int, value: int) -> None:
        """Store it."""
        self.content[offset : offset + width] = value.to_bytes(width, "little")

    def inspect(self) -> dict[str, object]:
        """The memory."""
        return {"content": bytes(self.content)}


def layout(devices: Sequence[tuple[str, DeviceSpec]]) -> tuple[PlatformDevice, ...]:
    """Named devices, placed one behind the other. Raises :class:`UsageError`."""
    placed: list[PlatformDevice] = []
    address = START
    for name, spec in devices:
        said = read(spec)
        placed.append(PlatformDevice(name, said.compatible, address, said.size, said.properties))
        address += said.size
    return tuple(placed)


def source(devices: Sequence[PlatformDevice], socket: str) -> str:
    """The device tree of a machine whose bus is served at ``socket``."""
    cells = "#address-cells = <1>; #size-cells = <1>; ranges;"
    nodes = []
    for number, device in enumerate(devices):
        base = node_name(device.compatible)
        lines = [f'compatible = "{device.compatible}";']
        if device.size:
            lines.append(f"reg = <{device.address:#x} {device.size:#x}>;")
        lines += [property_source(*item) for item in device.properties.items()]
        unit = f"@{device.address:x}" if device.size else f"-{number}"
        nodes.append(f"{base}{unit} {{ {' '.join(lines)} }};")
    return "\n".join(
        [
            '/dts-v1/; / { compatible = "kdrv,simulator";',
            "#address-cells = <1>; #size-cells = <1>;",
            f'bus {{ compatible = "virtio,uml"; socket-path = "{socket}";',
            f"virtio-device-id = <{VIRTIO_ID}>; {cells}",
            f'devices {{ compatible = "virtio,device{VIRTIO_ID:x}", "simple-bus"; {cells}',
            *nodes,
            "}; }; };",
        ]
    )


def device_tree(ctx: Context, toolchain: Toolchain, text: str) -> Path:
    """The compiled tree; compiled by the toolchain's ``dtc`` the first time."""

    def compile_tree(data: Path) -> Mapping[str, object]:
        (data / "sim.dts").write_text(text)
        command = toolchain.command(
            ["dtc", "-q", "-O", "dtb", "-o", "sim.dtb", "sim.dts"],
            binds=[Bind(data, MODULE_OUTPUT, writable=True)],
            cwd=MODULE_OUTPUT,
        )
        ctx.runner.run(command, deadline=DEADLINE)
        return {}

    entry = Store(ctx).get("sim-tree", digest(toolchain.identity, text), compile_tree)
    return entry.data / "sim.dtb"


class PlatformTransport:
    """Carries the accesses to all platform devices of a machine."""

    def __init__(
        self,
        devices: Sequence[PlatformDevice],
        clock: Clock,
        trace: Trace,
        schedule: Schedule,
        connect: Connect,
    ) -> None:
        self.server = connect(self)
        self._placed: list[tuple[PlatformDevice, Attachment[Memory]]] = []
        for device in devices:
            attachment = Attachment(
                device.name,
                clock,
                trace,
                schedule,
                self.server,
                _maker(device.size),
                lambda vector: None,
            )
            self._placed.append((device, attachment))

    @property
    def models(self) -> dict[str, Device]:
        """The models by name."""
        return {device.name: attachment.model for device, attachment in self._placed}

    def kicked(self, queue: int) -> None:
        """See :class:`~kdrv.sim.vhost.Backend`."""
        if queue == COMMANDS:
            perform_all(self.server, self._handle)

    def _handle(self, operation: PciOp, bar: int, address: int, size: int, data: bytes) -> bytes:
        attachment, offset = self._find(address, size)
        match operation:
            case PciOp.MMIO_READ:
                return attachment.read(0, offset, size)
            case PciOp.MMIO_WRITE:
                attachment.write(0, offset, data[:size])
            case PciOp.MMIO_MEMSET | PciOp.CFG_WRITE:
                # There is no config space here: it is memset_io, under the wrong name.
                attachment.write(0, offset, data[:1] * size)
            case _:
                raise ProtocolError(f"the kernel sent virtio-pcidev operation {operation.name}")
        return b""

    def _find(self, address: int, size: int) -> tuple[Attachment[Memory], int]:
        """Whose registers an access is to, and where in them."""
        for device, attachment in self._placed:
            offset = START + address - device.address
            if 0 <= offset <= device.size - size:
                return attachment, offset
        raise ProtocolError(f"no platform device has registers at {START + address:#x}")


def _maker(size: int) -> Callable[[Host], Memory]:
    return lambda host: Memory(host, size)
