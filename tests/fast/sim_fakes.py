"""The guest's side of the simulator's protocols, for tests without a kernel."""

import mmap
import os
import struct

from kdrv.devices.clock import Clock
from kdrv.devices.edu import Edu
from kdrv.sim.faults import FaultPlan, Schedule
from kdrv.sim.memory import GuestMemory
from kdrv.sim.pcidev import PciTransport
from kdrv.sim.trace import Trace
from kdrv.sim.vhost import VhostServer
from kdrv.sim.wire import PCI_MESSAGE, PciOp

START, SIZE = 0x10000, 0x10000
RINGS = (START, START + 0x1000)
DATA = START + 0x4000
ENTRIES = 8


class Guest:
    """The driver's side of two virtqueues in a memfd."""

    def __init__(self):
        self.fd = os.memfd_create("guest")
        os.ftruncate(self.fd, SIZE)
        self.map = mmap.mmap(self.fd, SIZE)
        self.offered = [0, 0]
        self.descriptor = [0, 0]

    def place(self, queue):
        base = RINGS[queue]
        return base, base + 0x400, base + 0x800

    def put(self, address, data):
        self.map[address - START : address - START + len(data)] = data

    def get(self, address, length):
        return self.map[address - START : address - START + length]

    def offer(self, queue, readable=(), writable=()):
        """Make a request available; parts are (address, length)."""
        table, available, _ = self.place(queue)
        parts = [(*part, 0) for part in readable] + [(*part, 2) for part in writable]
        head = self.descriptor[queue]
        for number, (address, length, flags) in enumerate(parts):
            index = head + number
            more = number + 1 < len(parts)
            entry = struct.pack("<QIHH", address, length, flags | more, index + 1 if more else 0)
            self.put(table + 16 * index, entry)
        self.descriptor[queue] = (head + len(parts)) % ENTRIES
        slot = self.offered[queue] % ENTRIES
        self.put(available + 4 + 2 * slot, struct.pack("<H", head))
        self.offered[queue] += 1
        self.put(available + 2, struct.pack("<H", self.offered[queue]))
        return head

    def used(self, queue):
        _, _, used = self.place(queue)
        (count,) = struct.unpack("<H", self.get(used + 2, 2))
        return [struct.unpack("<II", self.get(used + 4 + 8 * i, 8)) for i in range(count)]

    def attach(self, server):
        server.memory = GuestMemory(START, SIZE, os.dup(self.fd), 0)
        for queue in range(2):
            ring = server.queues[queue]
            ring.size = ENTRIES
            ring.descriptors, ring.available, ring.used = self.place(queue)


class Bus:
    """An edu device and the driver's side of its queues."""

    def __init__(self, make=Edu, *rules, seed=1, jitter=0.0):
        schedule = self.schedule = Schedule(FaultPlan(seed, rules, jitter))
        self.clock, self.trace, self.guest = Clock(), Trace(), Guest()
        self.transport = PciTransport("edu", self.clock, self.trace, schedule, make, VhostServer)
        self.guest.attach(self.transport.server)
        self.ask(PciOp.CFG_WRITE, 4, (6).to_bytes(2, "little"))

    def ask(self, operation, address, data=b"", size=0, bar=0):
        message = PCI_MESSAGE.pack(operation, bar, 0, size or len(data), address) + data
        self.guest.put(DATA, message)
        writable = [(DATA + 0x800, size)] if size else []
        self.guest.offer(0, [(DATA, len(message))], writable)
        self.transport.kicked(0)
        return self.guest.get(DATA + 0x800, size)

    def words(self):
        return [record.words() for record in self.trace]
