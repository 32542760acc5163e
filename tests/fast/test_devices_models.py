"""The shipped models, driven as a driver would drive them."""

import struct
import zlib

import pytest

from kdrv.devices import ringdev
from kdrv.devices.bench import Bench
from kdrv.devices.config import Msi, Msix
from kdrv.devices.edu import Edu
from kdrv.devices.errors import Misuse
from kdrv.devices.ringdev import Error, Opcode, RingDev, Status
from kdrv.devices.testdev import TestDev

# --- testdev


def test_testdev_counts_the_right_write_only():
    bench = Bench(TestDev)
    bench.enable()
    device = bench.device
    assert device.read(0, 4, 4) == 0
    device.write(0, 0, 1, 0)
    offset, data = device.read(0, 4, 4), device.read(0, 8, 1)
    assert (offset, data) == (0x800, 0xFA)
    device.write(0, offset, 1, data)
    device.write(0, offset, 1, data ^ 1)
    device.write(0, offset + 4, 1, data)
    assert device.read(0, 0x0C, 4) == 1
    name = bytes(device.read(0, 0x10 + place, 1) for place in range(16))
    assert name == b"mmio-no-eventfd\0"


def test_testdev_wildcard_takes_any_byte_and_an_unknown_test_deselects():
    bench = Bench(TestDev)
    bench.enable()
    device = bench.device
    device.write(0, 0, 1, 1)
    device.write(0, 0x801, 1, 3)
    device.write(0, 0x801, 4, 4)
    assert device.read(0, 0x0C, 4) == 2
    device.write(0, 0, 1, 9)
    assert device.read(0, 0x0C, 4) == 0
    assert device.state()["selected"] is None


# --- edu


@pytest.fixture
def edu():
    bench = Bench(Edu)
    bench.enable()
    place = bench.device.config.places[Msi.ident]
    bench.device.config.write(place + 2, 2, 1)
    return bench


def test_edu_identifies_and_inverts(edu):
    assert edu.device.read(0, 0, 4) == 0x010000ED
    edu.device.write(0, 4, 4, 0x0F0F_00FF)
    assert edu.device.read(0, 4, 4) == 0xF0F0_FF00
    assert edu.device.read(0, 0x50, 4) == 0xFFFF_FFFF
    assert edu.device.read(0, 0, 8) == (1 << 64) - 1


@pytest.mark.parametrize(
    ("number", "product"), [(0, 1), (1, 1), (5, 120), (13, 1932053504), (40, 0)]
)
def test_edu_factorial(edu, number, product):
    edu.device.write(0, 8, 4, number)
    edu.device.write(0, 8, 4, 3)
    assert edu.device.read(0, 0x20, 4) & 1
    edu.run(2_000_000)
    assert edu.device.read(0, 0x20, 4) & 1 == 0
    assert edu.device.read(0, 8, 4) == product
    assert edu.host.messages == []


def test_edu_raises_and_takes_the_acknowledgement(edu):
    edu.device.write(0, 0x20, 4, 0x80)
    edu.device.write(0, 8, 4, 4)
    edu.run(1_000_000)
    edu.device.write(0, 0x60, 4, 0x20)
    assert edu.host.messages == [0, 0]
    assert edu.device.read(0, 0x24, 4) == 0x21
    edu.device.write(0, 0x64, 4, 1)
    assert edu.device.read(0, 0x24, 4) == 0x20


def test_edu_without_msi_drives_its_pin():
    bench = Bench(Edu)
    bench.enable()
    bench.device.write(0, 0x60, 4, 3)
    assert bench.host.pin
    bench.device.write(0, 0x64, 4, 1)
    assert bench.host.pin
    bench.device.write(0, 0x64, 4, 2)
    assert not bench.host.pin


def test_edu_moves_data_both_ways(edu):
    device, memory = edu.device, edu.host.memory
    memory[0x1000:0x1004] = b"kdrv"
    for offset, value in ((0x80, 0x1000), (0x88, 0x40010), (0x90, 4), (0x98, 1)):
        device.write(0, offset, 8, value)
    device.write(0, 0x80, 8, 0)
    assert device.read(0, 0x98, 8) == 1
    edu.run(99_999_999)
    assert device.buffer[0x10:0x14] == bytes(4)
    edu.run(1)
    assert device.buffer[0x10:0x14] == b"kdrv"
    for offset, value in ((0x80, 0x40010), (0x88, 0x2000), (0x90, 4), (0x98, 7)):
        device.write(0, offset, 4, value)
    edu.run(100_000_000)
    assert memory[0x2000:0x2004] == b"kdrv"
    assert device.read(0, 0x24, 4) == 0x100
    assert edu.host.messages == [0]


def test_edu_refuses_a_transfer_beyond_its_buffer(edu):
    for offset, value in ((0x80, 0x1000), (0x88, 0x40FFF), (0x90, 2), (0x98, 1)):
        edu.device.write(0, offset, 4, value)
    with pytest.raises(Misuse, match="outside the device's buffer"):
        edu.run(100_000_000)


# --- ringdev

SQ, CQ, BUFFER = 0x1000, 0x2000, 0x4000


class Driver:
    """The least driver that keeps the manual's rules."""

    def __init__(self, entries=4, cq_entries=4):
        self.bench = Bench(RingDev)
        self.bench.enable()
        self.device, self.memory = self.bench.device, self.bench.host.memory
        place = self.device.config.places[Msix.ident]
        for vector in range(2):
            self.device.write(1, 16 * vector + 12, 4, 0)
        self.device.config.write(place + 2, 2, 0x8000)
        self.entries, self.cq_entries = entries, cq_entries
        self.tail = self.head = 0
        self.phase = 1
        for offset, value in ((0x18, entries), (0x1C, cq_entries), (0x40, 3)):
            self.device.write(0, offset, 4, value)
        self.device.write(0, 0x20, 8, SQ)
        self.device.write(0, 0x28, 4, CQ)
        self.device.write(0, 0x0C, 4, 1)

    def submit(self, opcode, tag=0, length=0, address=BUFFER, offset=0, flags=0):
        entry = struct.pack("<BBHIQQQ", opcode, flags, tag, length, address, offset, 0)
        place = SQ + 32 * self.tail
        self.memory[place : place + 32] = entry
        self.tail = (self.tail + 1) % self.entries
        self.device.write(0, 0x30, 4, self.tail)

    def completions(self, consume=True):
        found = []
        while True:
            place = CQ + 16 * self.head
            tag, status, result, _, phase, _ = struct.unpack(
                "<HHIHHI", self.memory[place : place + 16]
            )
            if phase != self.phase:
                break
            found.append((tag, status, result))
            self.head = (self.head + 1) % self.cq_entries
            self.phase ^= self.head == 0
        if found and consume:
            self.device.write(0, 0x34, 4, self.head)
        return found

    def read(self, offset):
        return self.device.read(0, offset, 4)

    def run(self, ns=1_000_000):
        self.bench.run(ns)


@pytest.fixture
def ring():
    driver = Driver()
    driver.run(ringdev.ENABLE_NS)
    assert driver.read(0x10) == ringdev.READY
    return driver


def test_ringdev_stores_and_gives_back(ring):
    data = bytes(range(100))
    ring.memory[BUFFER : BUFFER + 100] = data
    ring.submit(Opcode.WRITE, 1, 100, BUFFER, 0x200)
    ring.submit(Opcode.READ, 2, 100, BUFFER + 0x1000, 0x200)
    ring.submit(Opcode.CHECKSUM, 3, 100, 0, 0x200)
    assert ring.completions() == []
    ring.run()
    assert ring.completions() == [(1, 0, 100), (2, 0, 100), (3, 0, zlib.crc32(data))]
    assert ring.memory[BUFFER + 0x1000 : BUFFER + 0x1064] == data
    assert ring.bench.host.messages == [0, 0, 0]
    assert ring.read(0x3C) == ringdev.CAUSE_COMPLETION
    ring.device.write(0, 0x3C, 4, 1)
    assert ring.read(0x3C) == 0


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ({"opcode": 9}, Status.BAD_COMMAND),
        ({"opcode": Opcode.NOP, "flags": 1}, Status.BAD_COMMAND),
        ({"opcode": Opcode.READ, "length": 0}, Status.BAD_RANGE),
        ({"opcode": Opcode.READ, "length": 2, "offset": 0xFFFF}, Status.BAD_RANGE),
        ({"opcode": Opcode.WRITE, "length": 1, "offset": 1 << 40}, Status.BAD_RANGE),
    ],
)
def test_ringdev_refuses_bad_commands_and_goes_on(ring, command, status):
    ring.submit(**command, tag=7)
    ring.submit(Opcode.NOP, tag=8)
    ring.run()
    assert ring.completions() == [(7, status, 0), (8, 0, 0)]


def test_ringdev_phases_over_many_rounds(ring):
    for tag in range(50):
        ring.submit(Opcode.NOP, tag)
        ring.run()
        assert ring.completions() == [(tag, 0, 0)]
    assert ring.device.completed == 50


def test_ringdev_waits_for_room_in_the_completion_ring():
    ring = Driver(entries=8, cq_entries=2)
    ring.run()
    for tag in range(3):
        ring.submit(Opcode.NOP, tag)
    ring.run()
    assert ring.device.completed == 1
    assert ring.completions() == [(0, 0, 0)]
    ring.run()
    assert ring.completions() == [(1, 0, 0)]
    ring.run()
    assert ring.completions() == [(2, 0, 0)]


@pytest.mark.parametrize(("offset", "value"), [(0x18, 3), (0x18, 512), (0x1C, 1), (0x20, 0x1008)])
def test_ringdev_refuses_a_bad_ring(offset, value):
    ring = Driver()
    ring.device.write(0, offset, 4, value)
    ring.run()
    assert ring.read(0x10) == ringdev.FAILED
    assert ring.read(0x14) == Error.BAD_RING
    assert ring.bench.host.messages == [1]
    ring.device.write(0, 0x0C, 4, ringdev.RESET)
    assert (ring.read(0x10), ring.read(0x14), ring.read(0x18)) == (0, 0, 0)


@pytest.mark.parametrize("doorbell", [(0x30, 4), (0x34, 2), (0x34, 9)])
def test_ringdev_stops_at_a_bad_doorbell(ring, doorbell):
    ring.device.write(0, doorbell[0], 4, doorbell[1])
    assert ring.read(0x10) == ringdev.FAILED
    assert ring.read(0x14) == Error.BAD_DOORBELL


def test_ringdev_a_tail_may_not_go_back(ring):
    ring.submit(Opcode.NOP)
    ring.submit(Opcode.NOP)
    ring.submit(Opcode.NOP)
    ring.device.write(0, 0x30, 4, 2)
    assert ring.read(0x14) == Error.BAD_DOORBELL


def test_ringdev_is_busy_until_its_dma_is_over(ring):
    ring.memory[BUFFER : BUFFER + 4] = b"late"
    ring.submit(Opcode.WRITE, 1, 4)
    ring.submit(Opcode.NOP, 2)
    ring.device.write(0, 0x0C, 4, 0)
    assert ring.read(0x10) == ringdev.BUSY
    ring.run()
    assert ring.read(0x10) == 0
    assert ring.device.store[:4] == b"late"
    assert ring.completions() == []


def test_ringdev_drops_what_was_under_way_when_restarted(ring):
    ring.submit(Opcode.WRITE, 1, 60_000)
    ring.device.write(0, 0x0C, 4, 0)
    ring.device.write(0, 0x0C, 4, 1)
    ring.run()
    assert ring.read(0x10) == ringdev.READY
    assert ring.completions() == []
    ring.tail = 0
    ring.submit(Opcode.NOP, 5)
    ring.run()
    assert ring.completions() == [(5, 0, 0)]


def test_ringdev_a_cause_fires_when_it_is_enabled(ring):
    ring.device.write(0, 0x40, 4, 0)
    ring.submit(Opcode.NOP)
    ring.run()
    assert ring.bench.host.messages == []
    ring.device.write(0, 0x40, 4, 1)
    assert ring.bench.host.messages == [0]
