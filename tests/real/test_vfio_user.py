"""kdrv's own device models in QEMU: real kernels and drivers, registers to rings."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from kdrv.build.api import BuildRequest, LaneBuild, Workbench, build
from kdrv.build.intree import built_module
from kdrv.build.lane import Language
from kdrv.core.context import Context
from kdrv.core.errors import UsageError
from kdrv.devices.catalog import MODELS
from kdrv.devices.config import COMMAND, COMMAND_MASTER
from kdrv.devices.edu import Edu
from kdrv.devices.errors import Blame, DeviceFault
from kdrv.devices.ringdev import COMPLETION, SUBMISSION, Opcode, RingDev, Status
from kdrv.guest.base import base_initramfs
from kdrv.guest.errors import GuestSilent
from kdrv.guest.files import GuestMapping
from kdrv.guest.session import Guest
from kdrv.kernel.arch import Arch
from kdrv.machine.contract import BootSpec, DeviceSpec, KernelImage, MachineEnded
from kdrv.qemu.machine import QemuMachine
from kdrv.qemu.world import QemuWorld

from .conftest import Kdrv

pytestmark = pytest.mark.real

PAGE = 4096
DEVICES = "/sys/bus/pci/devices"
Boot = Callable[..., AbstractContextManager[tuple[QemuMachine, Guest]]]


@pytest.fixture
def boot(ctx: Context, bench: Workbench, rust_image: KernelImage) -> Boot:
    @contextmanager
    def start(
        *devices: DeviceSpec, arch: Arch = Arch.X86_64, hotplug_slots: int = 0
    ) -> Iterator[tuple[QemuMachine, Guest]]:
        initramfs = base_initramfs(ctx, bench.toolchain, bench.tree, arch)
        image = rust_image
        if arch is not Arch.X86_64:
            (lane,) = build(ctx, BuildRequest(arch=arch, languages=(Language.RUST,)), bench)
            assert lane.kernel.image
            image = lane.kernel.image
        spec = BootSpec(image, initramfs, devices)
        world = QemuWorld(bench.toolchain, ctx, hotplug_slots=hotplug_slots)
        with world.boot(spec) as machine:
            yield machine, Guest.of(machine)

    return start


def _find(guest: Guest, device: int) -> str:
    for address in guest.listdir(DEVICES):
        if guest.read_text(f"{DEVICES}/{address}/device").strip() == f"{device:#06x}":
            return f"{DEVICES}/{address}"
    raise AssertionError(f"no device {device:#x}")


def _switch_on(guest: Guest, place: str) -> None:
    guest.write_text(f"{place}/enable", "1")
    with guest.open(f"{place}/config") as config:
        command = int.from_bytes(config.pread(2, COMMAND), "little")
        config.pwrite((command | COMMAND_MASTER).to_bytes(2, "little"), COMMAND)


@contextmanager
def _registers(guest: Guest, place: str) -> Iterator[GuestMapping]:
    with guest.open(f"{place}/resource0", os.O_RDWR | os.O_SYNC) as bar, bar.mmap(PAGE) as mapped:
        yield mapped


def _write(registers: GuestMapping, offset: int, value: int, width: int = 4) -> None:
    registers.write(offset, value.to_bytes(width, "little"), width)


def _read(registers: GuestMapping, offset: int) -> int:
    return int.from_bytes(registers.read(offset, 4, 4), "little")


def _frame(guest: Guest, address: int) -> int:
    """The physical address of a page of the agent's (Documentation/admin-guide/mm/pagemap.rst)."""
    with guest.open("/proc/self/pagemap", os.O_RDONLY) as pagemap:
        (entry,) = struct.unpack("<Q", pagemap.pread(8, address // PAGE * 8))
    return int(entry & (1 << 55) - 1) * PAGE


@pytest.mark.parametrize(
    "arch", [Arch.X86_64, pytest.param(Arch.ARM64, marks=pytest.mark.late("rust-arm64"))]
)
def test_rings_in_guest_memory_are_served_without_any_driver(boot: Boot, arch: Arch) -> None:
    with boot(DeviceSpec("ringdev"), arch=arch) as (machine, guest):
        place = _find(guest, RingDev.identity.device)
        _switch_on(guest, place)
        with _registers(guest, place) as registers, guest.memory(4 * PAGE) as memory:
            memory.write(0, bytes(4 * PAGE), 8)
            submissions, completions, source, target = (
                _frame(guest, memory.address + page * PAGE) for page in range(4)
            )
            assert registers.read(0, 4, 4) == b"RING"
            _write(registers, 0x18, 8)
            _write(registers, 0x1C, 8)
            _write(registers, 0x20, submissions, 8)
            _write(registers, 0x28, completions, 8)
            _write(registers, 0x0C, 1)
            _wait(lambda: _read(registers, 0x10) == 1)
            memory.write(2 * PAGE, b"sixteen bytes ok", 8)
            for number, (opcode, length, buffer) in enumerate(
                ((Opcode.NOP, 0, 0), (Opcode.WRITE, 16, source), (Opcode.READ, 16, target))
            ):
                entry = SUBMISSION.pack(opcode, 0, 7 + number, length, buffer, 64, 0)
                memory.write(number * SUBMISSION.size, entry, 8)
            _write(registers, 0x30, 3)
            _wait(lambda: memory.read(PAGE + 2 * COMPLETION.size, 1) != b"\0")
            done = [
                COMPLETION.unpack(memory.read(PAGE + n * COMPLETION.size, COMPLETION.size, 8))
                for n in range(3)
            ]
            assert done == [(7 + n, Status.OK, (0, 16, 16)[n], n + 1, 1, 0) for n in range(3)]
            assert memory.read(3 * PAGE, 16) == b"sixteen bytes ok"
        model = machine.devices["ringdev"]
        assert isinstance(model, RingDev)
        assert model.completed == 3
        assert model.store[64:80] == b"sixteen bytes ok"
        # By function level reset, which the kernel does for whoever writes here.
        guest.write_text(f"{place}/reset", "1")
        assert model.completed == 0
        assert model.store[64:80] == bytes(16)
        with _registers(guest, place) as registers:
            assert registers.read(0, 4, 4) == b"RING"


def _wait(until: Callable[[], bool]) -> None:
    for _ in range(500):
        if until():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")


def test_the_sample_driver_binds_to_the_same_device_made_by_either(
    boot: Boot, rust_image: KernelImage
) -> None:
    module = built_module(rust_image.build, "rust_driver_pci").read_bytes()
    with boot(DeviceSpec("testdev"), DeviceSpec("testdev", {"model": True})) as (machine, guest):
        guest.write_bytes("/sample.ko", module)
        guest.load("/sample.ko")
        said = [line for line in guest.dmesg() if "pci-testdev data-match count: 1" in line]
        assert len(said) == 2
        assert list(machine.devices) == ["testdev1"]
        assert machine.devices["testdev1"].state()["count"] == 1


def _outcomes(kdrv: Kdrv, place: Path) -> dict[str, Any]:
    said = kdrv("test", "--qemu", place, "--json")
    assert said.status == 0, [case["detail"] for case in said.data["cases"]]
    return {case["name"].rpartition("::")[2]: case["outcome"] for case in said.data["cases"]}


def test_the_edu_driver_cannot_tell_qemus_device_from_ours(
    kdrv: Kdrv, project: Callable[..., Path], rust_lane: LaneBuild
) -> None:
    place = project("pci", name="widget")
    theirs = _outcomes(kdrv, place)
    toml = place / "kdrv.toml"
    toml.write_text(toml.read_text().replace('kind = "edu"', 'kind = "edu"\nmodel = true'))
    assert _outcomes(kdrv, place) == theirs
    assert len(theirs) >= 22


def test_the_ringdev_driver_passes_its_tests(
    kdrv: Kdrv, project: Callable[..., Path], rust_lane: LaneBuild
) -> None:
    outcomes = _outcomes(kdrv, project("pci", name="rings", device="ringdev"))
    assert set(outcomes.values()) == {"passed"}
    assert len(outcomes) >= 10


def test_a_model_comes_and_goes_while_the_machine_runs(boot: Boot) -> None:
    model = {"model": True}
    with boot(hotplug_slots=2) as (machine, guest):
        for _ in range(2):
            machine.plug(DeviceSpec("edu", model), "late")
            _wait(lambda: any("11e8" in line for line in _ids(guest)))
            place = _find(guest, Edu.identity.device)
            _switch_on(guest, place)
            with _registers(guest, place) as registers:
                assert _read(registers, 0) == 0x010000ED
            assert machine.devices["late"].state()["liveness"] == 0
            machine.unplug("late")
            assert not any("11e8" in line for line in _ids(guest))
            assert machine.devices == {}
        machine.plug(DeviceSpec("ringdev"), "rings")
        with pytest.raises(UsageError, match="QEMU aborts"):
            machine.unplug("rings")
        guest.ping()


def _ids(guest: Guest) -> list[str]:
    return [guest.read_text(f"{DEVICES}/{name}/device") for name in guest.listdir(DEVICES)]


def test_a_driver_that_asks_for_what_cannot_be_ends_the_machine(boot: Boot) -> None:
    with boot(DeviceSpec("ringdev")) as (machine, guest):
        place = _find(guest, RingDev.identity.device)
        _switch_on(guest, place)
        with _registers(guest, place) as registers:
            with pytest.raises(DeviceFault, match="no register allows a 1-byte read") as fault:
                registers.read(0x10, 1, 1)
            assert fault.value.blame is Blame.DRIVER
            assert fault.value.doing == "1-byte read at BAR 0 + 0x10"
        assert not machine.alive
        with pytest.raises(MachineEnded, match="device fault: ringdev: the driver asked"):
            machine.channel.receive(1.0)


def test_a_model_that_raises_or_never_answers_is_named(
    boot: Boot, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sick(RingDev):
        def read(self, region: int, offset: int, width: int) -> int:
            if (region, offset) == (0, 0x18):
                raise IndexError("a bug in the model")
            while (region, offset) == (0, 0x1C):
                time.sleep(0.1)
            return super().read(region, offset, width)

    monkeypatch.setitem(MODELS, "sick", Sick)
    for offset in (0x18, 0x1C):
        with boot(DeviceSpec("sick")) as (_, guest):
            place = _find(guest, RingDev.identity.device)
            _switch_on(guest, place)
            with _registers(guest, place) as registers:
                error = DeviceFault if offset == 0x18 else GuestSilent
                with pytest.raises(error) as raised:
                    registers.read(offset, 4, 4, timeout=3.0)
        told = str(raised.value) + "\n".join(raised.value.detail)
        assert f"4-byte read at BAR 0 + {offset:#x}" in told
        assert "sick: the device model" in told
