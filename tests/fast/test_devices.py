"""The model framework: registers, regions, config space, interrupts."""

import struct

import pytest

from kdrv.core.errors import UsageError
from kdrv.devices import catalog
from kdrv.devices.bench import Bench, BenchHost
from kdrv.devices.clock import Clock
from kdrv.devices.config import (
    COMMAND,
    COMMAND_MASTER,
    COMMAND_MEMORY,
    DEVCTL_FLR,
    Express,
    Identity,
    Msi,
    Msix,
)
from kdrv.devices.edu import Edu
from kdrv.devices.errors import Blame, DeviceFault, Misuse
from kdrv.devices.model import Device
from kdrv.devices.pci import PciDevice
from kdrv.devices.register import Access, Register

WHO = Identity(vendor=0x1234, device=1, class_code=0xFF0000, pin=1)


class Sampler(Device):
    regions = (0x100, 0, 0x10)

    plain = Register(0x00, reset=7)
    fixed = Register(0x04, access=Access.RO, reset=9)
    order = Register(0x08, access=Access.WO)
    flags = Register(0x0C, access=Access.W1C, reset=0b1110)
    wide = Register(0x10, width=8, widths=(4, 8))
    whole = Register(0x18, width=8, widths=(4, 8), zero_extend=True)
    other = Register(0x00, bar=2, widths=(1, 2, 4))
    doubled = Register(0x20)
    counted = Register(0x24)

    @doubled.on_read
    def _double(self) -> int:
        return 2 * self.doubled

    @counted.on_write
    def _count(self, value: int) -> None:
        self.counted += value


@pytest.fixture
def sampler():
    return Bench(Sampler).device


def test_access_rules(sampler):
    sampler.write(0, 0x00, 4, 0x1_0000_0001)
    sampler.write(0, 0x04, 4, 1)
    sampler.write(0, 0x08, 4, 5)
    sampler.write(0, 0x0C, 4, 0b0110)
    assert [sampler.read(0, offset, 4) for offset in (0, 4, 8, 12)] == [1, 9, 0, 0b1000]
    assert sampler.order == 5


def test_narrow_accesses_leave_the_rest_alone(sampler):
    sampler.write(0, 0x10, 8, 0x1111_2222_3333_4444)
    sampler.write(0, 0x14, 4, 0xAAAA_BBBB)
    assert sampler.read(0, 0x10, 8) == 0xAAAA_BBBB_3333_4444
    assert sampler.read(0, 0x14, 4) == 0xAAAA_BBBB
    sampler.write(2, 1, 1, 0x7F)
    sampler.write(2, 2, 2, 0x1234)
    assert sampler.read(2, 0, 4) == 0x1234_7F00


def test_a_zero_extending_register_forgets_the_rest(sampler):
    sampler.write(0, 0x18, 8, (1 << 64) - 1)
    sampler.write(0, 0x18, 4, 5)
    assert sampler.read(0, 0x18, 8) == 5
    with pytest.raises(Misuse):
        sampler.read(0, 0x1C, 4)


def test_hooks_take_the_place_of_the_plain_action(sampler):
    sampler.write(0, 0x20, 4, 21)
    sampler.write(0, 0x24, 4, 3)
    sampler.write(0, 0x24, 4, 4)
    assert (sampler.read(0, 0x20, 4), sampler.doubled, sampler.counted) == (42, 21, 7)


@pytest.mark.parametrize(
    ("region", "offset", "width", "words"),
    [
        (1, 0, 4, "no BAR 1"),
        (3, 0, 4, "no BAR 3"),
        (0, 0x100, 4, "outside the BAR"),
        (0, 0xFE, 4, "outside the BAR"),
        (0, -4, 4, "outside the BAR"),
        (0, 0, 3, "3 bytes"),
        (0, 0, 2, "no register allows"),
        (0, 2, 4, "no register allows"),
        (0, 0x80, 4, "no register allows"),
    ],
)
def test_impossible_accesses(sampler, region, offset, width, words):
    with pytest.raises(Misuse, match=words):
        sampler.read(region, offset, width)
    with pytest.raises(Misuse, match=words):
        sampler.write(region, offset, width, 0)


def test_reset_restores_registers_and_stops_timers():
    bench = Bench(Sampler)
    fired = []
    bench.device.plain = 1
    bench.device.after(10, lambda: fired.append("before"))
    bench.run(10)
    bench.device.after(10, lambda: fired.append("after"))
    bench.device.reset()
    bench.run(100)
    assert fired == ["before"]
    assert bench.device.state()["plain"] == 7


def test_a_bad_class_body_is_refused():
    with pytest.raises(TypeError, match="overlaps"):

        class Overlap(Device):
            regions = (0x10,)
            one = Register(0x0, width=8)
            two = Register(0x4)

    with pytest.raises(TypeError, match="outside its region"):

        class Outside(Device):
            regions = (0x10,)
            one = Register(0x10)

    with pytest.raises(TypeError, match="widths"):
        Register(0, width=3)


def test_the_clock_orders_by_time_and_then_by_sequence():
    clock, seen = Clock(), []
    clock.after(5, lambda: seen.append("late"))
    clock.after(3, lambda: seen.append("first"))
    clock.after(3, lambda: seen.append("second"))
    clock.after(4, lambda: seen.append("never")).cancel()
    while clock.step():
        pass
    assert seen == ["first", "second", "late"]
    assert clock.now == 5
    with pytest.raises(ValueError, match="past"):
        clock.at(4, lambda: None)


class MsiDev(PciDevice):
    identity = WHO
    regions = (0x1000,)
    msi = Msi(vectors=4, maskable=True)
    value = Register(0)


class MsixDev(PciDevice):
    identity = WHO
    regions = (0x1000, 0x1000)
    msix = Msix(vectors=3, bar=1)
    express = Express()
    value = Register(0)


def test_config_space_says_who_the_device_is():
    config = Bench(MsiDev).device.config
    assert config.read(0, 4) == 0x0001_1234
    config.write(0, 4, 0)
    assert config.read(0, 2) == 0x1234
    config.write(0x10, 4, 0xFFFF_FFFF)
    assert config.read(0x10, 4) == 0xFFFF_F000
    config.write(0x14, 4, 0xFFFF_FFFF)
    assert config.read(0x14, 4) == 0
    with pytest.raises(Misuse):
        config.read(256, 4)


def test_capabilities_are_chained():
    config = Bench(MsixDev).device.config
    assert config.read(0x06, 2) & 0x10
    found, place = {}, config.read(0x34, 1)
    while place:
        found[config.read(place, 1)] = place
        place = config.read(place + 1, 1)
    assert set(found) == {Express.ident, Msix.ident}
    assert config.read(found[Msix.ident] + 2, 2) == 2
    assert config.size == 4096


def test_memory_space_off_reads_all_ones():
    bench = Bench(MsiDev)
    bench.device.write(0, 0, 4, 1)
    assert bench.device.read(0, 0, 4) == 0xFFFF_FFFF
    bench.enable()
    assert bench.device.read(0, 0, 4) == 0


def enable_msi(device, vectors=4):
    place = device.config.places[Msi.ident]
    device.config.write(place + 4, 4, 0xA0000)
    device.config.write(place + 12, 2, 0x40)
    device.config.write(place + 2, 2, 1 | (vectors.bit_length() - 1) << 4)
    return place


def test_msi_messages_and_masks():
    bench = Bench(MsiDev)
    bench.enable()
    place = enable_msi(bench.device)
    assert bench.device.msi_message(3) == (0xA0000, 0x43)
    bench.device.config.write(place + 16, 4, 0b0100)
    bench.device.irq(1)
    bench.device.irq(2)
    assert bench.host.messages == [1]
    assert bench.device.config.read(place + 20, 4) == 0b0100
    bench.device.config.write(place + 16, 4, 0)
    assert bench.host.messages == [1, 2]
    assert bench.device.config.read(place + 20, 4) == 0


def test_an_interrupt_without_bus_mastering_is_dropped():
    bench = Bench(MsiDev)
    enable_msi(bench.device)
    bench.device.irq()
    assert bench.host.messages == []
    assert bench.host.notes == [("interrupt dropped", {"vector": 0})]
    with pytest.raises(ValueError, match="no interrupt vector"):
        bench.device.irq(4)


def test_msix_table_masks_and_pending_bits():
    bench = Bench(MsixDev)
    bench.enable()
    device = bench.device
    place = device.config.places[Msix.ident]
    device.write(1, 16, 4, 0xA0000)
    device.write(1, 24, 4, 0x55)
    device.config.write(place + 2, 2, 0x8000)
    device.irq(1)
    assert bench.host.messages == []
    assert device.read(1, 0x800, 8) == 0b010
    device.write(1, 28, 4, 0)
    assert bench.host.messages == [1]
    assert device.read(1, 0x800, 4) == 0
    assert device.msi_message(1) == (0xA0000, 0x55)
    device.config.write(place + 2, 2, 0xC000)
    device.irq(1)
    device.config.write(place + 2, 2, 0x8000)
    assert bench.host.messages == [1, 1]
    with pytest.raises(Misuse, match="MSI-X"):
        device.read(1, 2, 2)


def test_a_function_level_reset_keeps_the_bars_only():
    bench = Bench(MsixDev)
    bench.enable()
    device = bench.device
    device.config.write(0x10, 4, 0xF000_0000)
    device.write(0, 0, 4, 5)
    device.config.write(device.config.places[Express.ident] + 8, 2, DEVCTL_FLR)
    assert device.value == 0
    assert device.config.read(0x10, 4) == 0xF000_0000
    assert device.config.read(COMMAND, 2) == 0


def test_the_pin_follows_the_driver_s_wish():
    bench = Bench(MsiDev)
    bench.device.intx(True)
    assert bench.host.pin
    assert bench.device.config.read(0x06, 2) & 8
    bench.device.intx(False)
    bench.device.config.write(COMMAND, 2, 1 << 10)
    bench.device.intx(True)
    assert not bench.host.pin


def test_dma_needs_bus_mastering():
    bench = Bench(MsiDev)
    bench.device.dma.write(0, b"lost")
    assert bench.device.dma.read(0, 4) == b"\xff" * 4
    assert bench.host.memory[:4] == bytes(4)
    bench.device.config.write(COMMAND, 2, COMMAND_MEMORY | COMMAND_MASTER)
    bench.device.dma.write(0, b"kept")
    assert bench.device.dma.read(0, 4) == b"kept"
    with pytest.raises(Misuse, match="outside memory"):
        bench.device.dma.read((1 << 20) - 2, 4)


def test_a_bar_must_be_a_power_of_two():
    class Odd(PciDevice):
        identity = WHO
        regions = (0x1800,)

    with pytest.raises(ValueError, match="power of two"):
        Odd(BenchHost())


def test_a_fault_says_whose_bug_it_is():
    try:
        struct.unpack("<I", b"")
    except struct.error as error:
        fault = DeviceFault("ring0", "4-byte write", 1_500_000_000, error)
    assert fault.blame is Blame.MODEL
    assert "struct.error" in fault.message or "error" in fault.message
    assert any("struct.unpack" in line for line in fault.detail)
    assert fault.detail[0] == "at 1.500000000 s, during 4-byte write"
    driver = DeviceFault("ring0", "4-byte write", 0, Misuse("a write to nowhere"))
    assert driver.blame is Blame.DRIVER
    assert len(driver.detail) == 1


def test_the_catalog_refuses_what_it_does_not_know():
    assert isinstance(catalog.make("edu", BenchHost(), {"dma_mask": 0xFF}), Edu)
    with pytest.raises(UsageError, match="no device model 'edv'"):
        catalog.make("edv", BenchHost(), {})
    with pytest.raises(UsageError, match="no option 'colour'"):
        catalog.make("edu", BenchHost(), {"colour": 1})
