"""The machines kdrv boots in QEMU, as data."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass

from kdrv.core.errors import UsageError
from kdrv.kernel.arch import Arch

KVM = "kvm"
TCG = "tcg"


@dataclass(frozen=True)
class Board:
    """What differs between QEMU's machines.

    ``machine`` are the options that choose board and firmware; ``cpu`` is the processor model by
    accelerator; ``cmdline`` brings the kernel's messages to the serial line, from as early as they
    can be had; ``hotplug`` makes PCIe ports take devices while the machine runs; ``host`` is what
    ``uname -m`` says where KVM can run it.
    """

    arch: Arch
    program: str
    machine: tuple[str, ...]
    cpu: Mapping[str, str]
    cmdline: tuple[str, ...]
    hotplug: tuple[str, ...]
    host: str

    def accelerable(self) -> bool:
        """Whether this computer's processor is of the board's architecture."""
        return platform.machine() == self.host


BOARDS = {
    Arch.X86_64: Board(
        Arch.X86_64,
        "qemu-system-x86_64",
        # qboot and a PVH start of vmlinux skip the BIOS and the decompressor: 0.8 s of 1.9 s.
        machine=("-M", "q35", "-bios", "qboot.rom"),
        # smap catches a driver that touches user memory by itself. Newer models have fast string
        # instructions, which an emulator executes byte by byte: copies take 8 times as long.
        cpu={KVM: "host", TCG: "qemu64,+smep,+smap"},
        # no_timer_check: KVM guests get it by themselves; it saves a wait of 40 ms.
        cmdline=("earlyprintk=serial,ttyS0,115200", "console=ttyS0", "no_timer_check"),
        # PCIe's own hotplug instead of ACPI's: the same on both boards.
        hotplug=("-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"),
        host="x86_64",
    ),
    Arch.ARM64: Board(
        Arch.ARM64,
        "qemu-system-aarch64",
        machine=("-M", "virt,gic-version=3"),
        cpu={KVM: "host", TCG: "cortex-a57"},
        cmdline=("earlycon=pl011,0x9000000", "console=ttyAMA0"),
        hotplug=(),
        host="aarch64",
    ),
}


def board_of(arch: Arch) -> Board:
    """The board of an architecture. Raises :class:`UsageError` for one QEMU cannot boot."""
    if arch not in BOARDS:
        raise UsageError(
            f"QEMU boots no kernel of architecture {arch}",
            expected="one of: " + ", ".join(BOARDS),
            remedy="kdrv test --sim" if arch is Arch.UM else "",
        )
    return BOARDS[arch]
