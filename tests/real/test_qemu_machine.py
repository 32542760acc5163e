"""QEMU's machines with real kernels: devices, hotplug, ends, diagnosis, the console by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from kdrv.build.api import BuildRequest, Workbench, build
from kdrv.build.intree import built_module
from kdrv.build.lane import Language
from kdrv.core.context import Context
from kdrv.core.errors import UsageError
from kdrv.guest.base import base_initramfs
from kdrv.guest.session import Guest
from kdrv.kernel.arch import Arch
from kdrv.machine.contract import BootSpec, DeviceSpec, KernelImage, MachineEnded
from kdrv.qemu.boards import TCG, board_of
from kdrv.qemu.kvm import try_accelerator
from kdrv.qemu.machine import QemuMachine
from kdrv.qemu.shell import SHELL, console_expect
from kdrv.qemu.world import QemuWorld

pytestmark = pytest.mark.real

PLATFORM = DeviceSpec(
    "platform",
    {
        "compatible": "test,rust-device",
        "regs": 4096,
        "acme,label": 'a "b" c',
        "acme,depth": 42,
        "acme,fast": True,
        "acme,slow": False,
    },
)
ACPI = "/sys/bus/platform/devices/PRP0001:00"

Boot = Callable[..., AbstractContextManager[QemuMachine]]


@pytest.fixture
def boot(ctx: Context, bench: Workbench, rust_image: KernelImage) -> Boot:
    initramfs = base_initramfs(ctx, bench.toolchain, bench.tree, Arch.X86_64)

    @contextmanager
    def start(
        *devices: DeviceSpec, cmdline: tuple[str, ...] = (), cpus: int = 1, hotplug_slots: int = 0
    ) -> Iterator[QemuMachine]:
        world = QemuWorld(bench.toolchain, ctx, hotplug_slots=hotplug_slots)
        spec = BootSpec(rust_image, initramfs, devices, cmdline=cmdline, cpus=cpus)
        with world.boot(spec) as machine:
            yield machine

    return start


@pytest.fixture(scope="session")
def arm64_image(ctx: Context, bench: Workbench) -> KernelImage:
    (lane,) = build(ctx, BuildRequest(arch=Arch.ARM64, languages=(Language.RUST,)), bench)
    assert lane.kernel.image
    return lane.kernel.image


def _load(guest: Guest, image: KernelImage, module: str) -> None:
    path = f"/{module}.ko"
    guest.write_bytes(path, built_module(image.build, module).read_bytes())
    guest.load(path)


def _found_idle(machine: QemuMachine, cpus: int) -> tuple[str, ...]:
    """A diagnosis that found all processors idle: idle ones do a little now and then, too."""
    for _ in range(10):
        lines = machine.diagnose()
        idle = [line for line in lines if "(idle: waiting for an interrupt)" in line]
        if len(idle) == cpus:
            return lines
    raise AssertionError(lines)


def _end(machine: QemuMachine) -> MachineEnded:
    with pytest.raises(MachineEnded) as ended:
        for _ in range(30):
            machine.channel.receive(1.0)
    return ended.value


def test_a_pci_device_is_where_it_was_put(boot: Boot, rust_image: KernelImage) -> None:
    with boot(DeviceSpec("edu", {"addr": "5"}), DeviceSpec("pci-testdev")) as machine:
        guest = Guest.of(machine)
        ids = {
            address: guest.read_text(f"/sys/bus/pci/devices/{address}/vendor").strip()
            for address in guest.listdir("/sys/bus/pci/devices")
        }
        assert ids["0000:00:05.0"] == "0x1234"
        _load(guest, rust_image, "rust_driver_pci")
        assert any("pci-testdev data-match count" in line for line in guest.dmesg())
        guest.power_off()
        assert _end(machine).reason == "the guest powered off"


def test_a_platform_device_binds_and_its_registers_are_memory(
    boot: Boot, rust_image: KernelImage
) -> None:
    with boot(PLATFORM, DeviceSpec("platform", {"compatible": "acme,other"})) as machine:
        guest = Guest.of(machine)
        _load(guest, rust_image, "rust_driver_platform")
        assert guest.readlink(f"{ACPI}/driver").endswith("/rust_driver_platform")
        iomem = guest.read_text("/proc/iomem")
        claimed = next(line for line in iomem.splitlines() if "PRP0001:00" in line)
        start, end = (int(x, 16) for x in claimed.split(" : ")[0].strip().split("-"))
        assert end - start + 1 == 4096
        ram = [line for line in iomem.splitlines() if line.endswith("System RAM")]
        for line in ram:
            low, high = (int(x, 16) for x in line.split(" : ")[0].split("-"))
            assert end < low or high < start
        assert guest.exists("/sys/bus/platform/devices/PRP0001:01")


@pytest.mark.late("rust-arm64")
def test_the_arm64_machine_has_the_same_devices(
    ctx: Context, bench: Workbench, arm64_image: KernelImage
) -> None:
    initramfs = base_initramfs(ctx, bench.toolchain, bench.tree, Arch.ARM64)
    spec = BootSpec(arm64_image, initramfs, (DeviceSpec("pci-testdev"), PLATFORM), cpus=2)
    with QemuWorld(bench.toolchain, ctx).boot(spec) as machine:
        guest = Guest.of(machine)
        _load(guest, arm64_image, "rust_driver_pci")
        assert any("pci-testdev data-match count" in line for line in guest.dmesg())
        devices = guest.listdir("/sys/bus/platform/devices")
        (name,) = (name for name in devices if name.endswith(".rust-device"))
        node = f"/sys/bus/platform/devices/{name}/of_node"
        assert guest.read_bytes(f"{node}/acme,label") == b'a "b" c\0'
        assert guest.read_bytes(f"{node}/acme,depth") == (42).to_bytes(4, "big")
        assert guest.exists(f"{node}/acme,fast")
        assert not guest.exists(f"{node}/acme,slow")
        address = int(name.partition(".")[0], 16)
        for line in guest.read_text("/proc/iomem").splitlines():
            if line.endswith("System RAM"):
                low, high = (int(x, 16) for x in line.split(" : ")[0].split("-"))
                assert address + 4095 < low or high < address
        assert _found_idle(machine, cpus=2)
        guest.power_off()
        assert _end(machine).reason == "the guest powered off"


def test_a_device_comes_and_goes_while_the_machine_runs(boot: Boot) -> None:
    with boot(hotplug_slots=1) as machine:
        guest = Guest.of(machine)
        before = set(guest.listdir("/sys/bus/pci/devices"))
        machine.plug(DeviceSpec("edu"), "late")
        for _ in range(50):
            guest.sleep(0.2)
            if new := set(guest.listdir("/sys/bus/pci/devices")) - before:
                break
        (address,) = new
        assert guest.read_text(f"/sys/bus/pci/devices/{address}/device") == "0x11e8\n"
        with pytest.raises(UsageError, match="no free slot"):
            machine.plug(DeviceSpec("edu"), "more")
        machine.unplug("late")
        assert set(guest.listdir("/sys/bus/pci/devices")) == before


def test_a_panic_ends_the_machine_with_its_words_on_the_console(boot: Boot) -> None:
    with boot() as machine:
        Guest.of(machine).begin.write_file("/proc/sysrq-trigger", b"c")
        assert _end(machine).reason == "the guest reset itself"
        assert any("sysrq triggered crash" in line for line in machine.console.since())


def test_a_device_qemu_cannot_make_is_told_in_its_words(boot: Boot) -> None:
    with boot(DeviceSpec("edu", {"dma_mask": "many"})) as machine:
        end = _end(machine)
    assert end.status == 1
    assert "'dma_mask' expects integer" in end.reason


def test_an_idle_machine_is_said_to_be_idle(boot: Boot) -> None:
    with boot(cpus=2) as machine:
        Guest.of(machine)
        lines = _found_idle(machine, cpus=2)
    assert any("Show backtrace of all active CPUs" in line for line in lines)


def test_a_kernel_before_its_console_is_found_by_its_symbols(
    ctx: Context, bench: Workbench, rust_image: KernelImage, tmp_path: Path
) -> None:
    # An endless loop in place of the first function that is not the architecture's.
    image = bytearray(rust_image.image.read_bytes())
    with rust_image.image.open("rb") as file:
        elf = ELFFile(file)
        (symbol,) = elf.get_section_by_name(".symtab").get_symbol_by_name("start_kernel")
        segment = next(
            s
            for s in elf.iter_segments("PT_LOAD")
            if s["p_vaddr"] <= symbol["st_value"] < s["p_vaddr"] + s["p_filesz"]
        )
        at = symbol["st_value"] - segment["p_vaddr"] + segment["p_offset"]
    image[at : at + 2] = b"\xeb\xfe"
    broken = tmp_path / "vmlinux"
    broken.write_bytes(image)
    initramfs = base_initramfs(ctx, bench.toolchain, bench.tree, Arch.X86_64)
    spec = BootSpec(replace(rust_image, image=broken), initramfs)
    with QemuWorld(bench.toolchain, ctx).boot(spec) as machine:
        for _ in range(20):
            assert machine.channel.receive(0.5) == b""
            lines = machine.diagnose()
            if "start_kernel" in lines[0]:
                break
    assert lines[0] == "cpu0 in start_kernel+0x0"
    assert machine.console.since() == ()


def test_a_person_has_a_shell_on_the_console(boot: Boot) -> None:
    with boot(cmdline=(SHELL,)) as machine, console_expect(machine) as console:
        console.expect("kdrv:.*# ")
        console.sendline("echo $((6 * 7)) > /answer; cat /answer")
        console.expect("\r\n42\r\n")
        assert Guest.of(machine).read_text("/answer") == "42\n"


@pytest.mark.parametrize("arch", [Arch.X86_64, Arch.ARM64])
def test_the_guest_that_probes_kvm_ends_in_an_emulator(
    arch: Arch, ctx: Context, bench: Workbench
) -> None:
    assert try_accelerator(bench.toolchain, ctx, board_of(arch), TCG).works
