"""Booting machines in QEMU.

Everything that makes a machine is an ingredient (:class:`~kdrv.qemu.parts.Parts`): plain devices,
platform devices, and the models that kdrv itself plays.
"""

from __future__ import annotations

import contextlib
import json
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from kdrv.core.context import Context
from kdrv.core.errors import SetupError, UsageError
from kdrv.core.process import Command
from kdrv.kernel.arch import Arch
from kdrv.machine.console import Console
from kdrv.machine.contract import BootSpec, named
from kdrv.machine.platform import PLATFORM_KIND
from kdrv.qemu import models, platform
from kdrv.qemu.acpi import acpi_parts
from kdrv.qemu.boards import KVM, TCG, Board, board_of
from kdrv.qemu.catalog import Catalog, device_option
from kdrv.qemu.devicetree import devicetree_parts
from kdrv.qemu.kvm import kvm_works
from kdrv.qemu.machine import SLOT, QemuMachine
from kdrv.qemu.monitor import Monitor
from kdrv.qemu.parts import Parts
from kdrv.qemu.serial import SerialLine
from kdrv.qemu.vfiouser.server import Server
from kdrv.toolchain.base import Bind, Toolchain

MIB = 1 << 20
MOUNT = "/run/kdrv/boot"
LEAST_MEMORY_MIB = 64
RAM_BASE = {Arch.X86_64: 0, Arch.ARM64: 1 << 30}
BELOW_4G_MIB = 2048
"""What ``q35`` puts below 4 GiB of more memory than that (hw/i386/pc_q35.c)."""
AGENT_PORT = "/dev/vport0p1"
AGENT_SLOT = 0x1E
HOTPLUG_SLOT = 0x10


class QemuWorld:
    """See :class:`kdrv.machine.contract.World`.

    ``accel`` is ``kvm`` or ``tcg``; ``None`` takes KVM where it really works. ``hotplug_slots``
    are PCIe ports for :meth:`~kdrv.qemu.machine.QemuMachine.plug`.
    """

    name = "qemu"

    def __init__(
        self,
        toolchain: Toolchain,
        ctx: Context,
        accel: str | None = None,
        *,
        hotplug_slots: int = 0,
    ) -> None:
        self._toolchain = toolchain
        self._ctx = ctx
        self._accel = accel
        self._slots = hotplug_slots
        self._checked: BootSpec | None = None

    def check(self, spec: BootSpec) -> None:
        """See :meth:`kdrv.machine.contract.World.check`."""
        catalog = Catalog(self._toolchain, self._ctx, board_of(spec.kernel.arch))
        for device in spec.devices:
            if device.kind != PLATFORM_KIND:
                models.check(device, catalog)
        self._checked = spec

    @contextmanager
    def boot(self, spec: BootSpec) -> Iterator[QemuMachine]:
        """See :meth:`kdrv.machine.contract.World.boot`.

        Raises :class:`UsageError` for a device, an option or an image that cannot be,
        :class:`SetupError` when KVM was demanded and does not work, and
        :class:`~kdrv.devices.errors.DeviceFault` for a model that cannot even be made.
        """
        if spec != self._checked:
            self.check(spec)
        board = board_of(spec.kernel.arch)
        catalog = Catalog(self._toolchain, self._ctx, board)
        console = Console()
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(Server())
            base = self._base(board, spec)
            parts = base + self._devices(board, catalog, base, spec, server) + _kernel(board, spec)
            append = ("-append", " ".join((*parts.cmdline, *spec.cmdline)))
            said = stack.enter_context(tempfile.TemporaryFile())
            ours, theirs = socket.socketpair()
            stack.enter_context(ours)
            stack.enter_context(theirs)
            serial = stack.enter_context(SerialLine(console))
            monitor = stack.enter_context(Monitor())
            wires = (
                *serial.arguments(),
                *monitor.arguments(),
                *_agent(f"socket,fd={theirs.fileno()}"),
            )
            command = self._command(board, (*parts.arguments, *append, *wires), parts.binds)
            child = stack.enter_context(
                self._ctx.runner.start(
                    command,
                    stdout=said,
                    pass_fds=(*serial.guest_fds, *monitor.guest_fds, theirs.fileno()),
                )
            )
            theirs.close()
            serial.started()
            monitor.started()
            if server.devices or self._slots:
                server.start(child.kill)
            by_hand = (*parts.arguments, *append, "-serial", "mon:stdio", *_agent("null"))
            yield QemuMachine(
                child,
                serial=serial,
                console=console,
                monitor=monitor,
                agent=ours,
                said=said,
                vmlinux=spec.kernel.vmlinux,
                catalog=catalog,
                slots=self._slots,
                server=server,
                reproducer=self._command(board, by_hand, parts.binds).shell(),
            )

    def _base(self, board: Board, spec: BootSpec) -> Parts:
        """Board, processors and memory."""
        if spec.memory_mib < LEAST_MEMORY_MIB:
            raise UsageError(
                f"{spec.memory_mib} MiB of memory are too few to boot",
                expected=f"at least {LEAST_MEMORY_MIB} MiB",
            )
        accel = self._accelerator(board)
        return Parts(
            arguments=(
                *board.machine,
                *("-accel", accel, "-cpu", board.cpu[accel]),
                *("-m", f"{spec.memory_mib}M", "-smp", str(spec.cpus)),
                *("-nodefaults", "-no-user-config", "-display", "none", "-nic", "none"),
                # A panic restarts at once (panic=-1) and so ends QEMU.
                "-no-reboot",
            ),
            cmdline=(*board.cmdline, "panic=-1", f"kdrv_agent={AGENT_PORT}"),
        )

    def _accelerator(self, board: Board) -> str:
        if self._accel not in (None, KVM, TCG):
            raise UsageError(
                f"QEMU cannot accelerate by {self._accel!r}", expected=f"{KVM} or {TCG}"
            )
        if self._accel == TCG:
            return TCG
        probe = kvm_works(self._toolchain, self._ctx, board.arch)
        if self._accel == KVM and not probe.works:
            raise SetupError(
                f"KVM does not work here: {probe.reason}",
                expected="a KVM that boots a guest",
                remedy="leave the accelerator to kdrv, or: kdrv doctor",
            )
        return KVM if probe.works else TCG

    def _devices(
        self, board: Board, catalog: Catalog, base: Parts, spec: BootSpec, server: Server
    ) -> Parts:
        arguments: list[str] = []
        for name, device in named(spec.devices):
            if device.kind == PLATFORM_KIND:
                continue
            if models.is_model(device, catalog):
                option = models.device_option(device, name, server)
                arguments += ["-device", json.dumps(option)]
            else:
                arguments += ["-device", device_option(models.of_qemu(device))]
        arguments += board.hotplug if self._slots else ()
        for number in range(self._slots):
            port = f"pcie-root-port,id={SLOT.format(number)},chassis={number},slot={number}"
            arguments += ["-device", f"{port},addr={HOTPLUG_SLOT + number:#x}"]
        parts = Parts(tuple(arguments))
        if server.devices or self._slots:
            parts += models.reachable(server, spec.memory_mib)
        described = [device for device in spec.devices if device.kind == PLATFORM_KIND]
        if not described:
            return parts
        placed = platform.layout(described, _registers_top(board, spec))
        if board.arch is Arch.X86_64:
            return parts + acpi_parts(self._toolchain, self._ctx, placed)
        machine = (board.program, *base.arguments)
        return parts + devicetree_parts(self._toolchain, self._ctx, machine, placed)

    def _command(self, board: Board, arguments: Sequence[str], binds: Sequence[Bind]) -> Command:
        kvm = ("/dev/kvm",) if KVM in arguments else ()
        return self._toolchain.command((board.program, *arguments), binds=binds, devices=kvm)


def _kernel(board: Board, spec: BootSpec) -> Parts:
    for what, path in (("kernel image", spec.kernel.image), ("initramfs", spec.initramfs)):
        if not path.is_file():
            raise UsageError(
                f"there is no {what} {path}",
                expected="a built kernel and an initramfs",
                remedy=f"kdrv build --arch {board.arch}",
            )
    kernel, initramfs = f"{MOUNT}/kernel", f"{MOUNT}/initramfs"
    return Parts(
        arguments=("-kernel", kernel, "-initrd", initramfs),
        binds=(Bind(spec.kernel.image, kernel), Bind(spec.initramfs, initramfs)),
    )


def _agent(backend: str) -> tuple[str, ...]:
    """The virtio-serial port, at a fixed place so that devices keep their addresses."""
    kind, _, rest = backend.partition(",")
    chardev = ",".join(filter(None, (kind, "id=agent", rest)))
    return (
        *("-chardev", chardev),
        *("-device", f"virtio-serial-pci,addr={AGENT_SLOT:#x},max_ports=2"),
        *("-device", "virtserialport,chardev=agent,nr=1,name=kdrv.agent"),
    )


def _registers_top(board: Board, spec: BootSpec) -> int:
    """Where the RAM under platform devices' registers ends: below what the loader puts on top.

    QEMU places a PVH kernel's initramfs at the end of memory (hw/i386/x86-common.c), and ``virt``
    places it below the middle or 128 MiB (hw/arm/boot.c).
    """
    memory = spec.memory_mib * MIB
    if board.arch is Arch.X86_64:
        memory = min(memory, BELOW_4G_MIB * MIB) - spec.initramfs.stat().st_size - 8 * MIB
    else:
        memory -= 8 * MIB
    return RAM_BASE[board.arch] + memory // MIB * MIB
