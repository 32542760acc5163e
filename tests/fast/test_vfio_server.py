"""Device models served over vfio-user, to a client that plays QEMU."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdrv.core.errors import SetupError, UsageError
from kdrv.devices.catalog import MODELS
from kdrv.devices.config import (
    COMMAND,
    COMMAND_INTX_OFF,
    COMMAND_MASTER,
    COMMAND_MEMORY,
    DEVCTL_FLR,
    STATUS,
    STATUS_INTERRUPT,
    Express,
    Identity,
    Msi,
    Msix,
)
from kdrv.devices.errors import Blame, DeviceFault
from kdrv.devices.pci import PciDevice
from kdrv.devices.register import Register
from kdrv.qemu.vfiouser import server as server_module
from kdrv.qemu.vfiouser import wire
from kdrv.qemu.vfiouser.server import Server
from kdrv.qemu.vfiouser.wire import Command, Irq, IrqSet

SECONDS = 10
PAGE = 4096
CONFIG = wire.CONFIG_REGION
ON = COMMAND_MEMORY | COMMAND_MASTER


class Probe(PciDevice):
    """Does on a register write what a test wants done."""

    identity = Identity(vendor=0x1234, device=0x5678, class_code=0xFF0000, pin=1)
    regions = (0x1000, 0, 0x100)
    msi = Msi(vectors=4)
    express = Express()

    plain = Register(0x00, width=8, widths=(1, 2, 4, 8))
    address = Register(0x08, width=8, widths=(8,))
    word = Register(0x10)
    fetch = Register(0x14)
    store = Register(0x18)
    pin = Register(0x1C)
    signal = Register(0x20)
    later = Register(0x24)
    fail = Register(0x28)
    hang = Register(0x2C)
    other = Register(0x10, bar=2)
    released = threading.Event()

    @fetch.on_write
    def _fetch(self, length: int) -> None:
        self.word = int.from_bytes(self.dma.read(self.address, length)[-4:], "little")

    @store.on_write
    def _store(self, length: int) -> None:
        self.dma.write(self.address, bytes(n & 0xFF for n in range(length)))

    @pin.on_write
    def _pin(self, level: int) -> None:
        self.intx(bool(level))

    @signal.on_write
    def _signal(self, vector: int) -> None:
        self.irq(vector)

    @later.on_write
    def _later(self, nanoseconds: int) -> None:
        self.after(nanoseconds, lambda: setattr(self, "word", 0xD00E))

    @fail.on_write
    def _fail(self, _: int) -> None:
        raise KeyError("a bug in the model")

    @hang.on_write
    def _hang(self, _: int) -> None:
        assert self.released.wait(SECONDS)


class Vectors(PciDevice):
    """Has MSI-X; its register signals a vector."""

    identity = Identity(vendor=0x1234, device=0x5679, class_code=0xFF0000)
    regions = (0x1000,)
    msix = Msix(vectors=3, bar=0, table=0x800, pending=0xC00)
    signal = Register(0x00)

    @signal.on_write
    def _signal(self, vector: int) -> None:
        self.irq(vector)


class Client:
    """QEMU's side of a connection."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(SECONDS)
        self.socket.connect(str(path))
        self._ident = 0

    def send(self, command: int, payload: bytes, descriptors: Sequence[int] = ()) -> None:
        self._ident += 1
        head = wire.HEADER.pack(self._ident, command, wire.HEADER.size + len(payload), 0, 0)
        socket.send_fds(self.socket, [head + payload], list(descriptors))

    def ask(self, command: int, payload: bytes = b"", descriptors: Sequence[int] = ()) -> bytes:
        """The answer's payload. Raises ``OSError`` for an error, ``EOFError`` at the end."""
        self.send(command, payload, descriptors)
        head = self._receive(wire.HEADER.size)
        ident, answered, size, flags, number = wire.HEADER.unpack(head)
        assert (ident, answered) == (self._ident, command)
        payload = self._receive(size - wire.HEADER.size)
        if flags == wire.REPLY | wire.ERROR:
            raise OSError(number, os.strerror(number))
        assert (flags, number) == (wire.REPLY, 0)
        return payload

    def _receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def read(self, region: int, offset: int, count: int) -> int:
        asked = wire.REGION_ACCESS.pack(offset, region, count)
        answer = self.ask(Command.REGION_READ, asked)
        assert answer[: len(asked)] == asked
        assert len(answer) == len(asked) + count
        return int.from_bytes(answer[len(asked) :], "little")

    def write(self, region: int, offset: int, count: int, value: int) -> None:
        asked = wire.REGION_ACCESS.pack(offset, region, count)
        answer = self.ask(Command.REGION_WRITE, asked + value.to_bytes(count, "little"))
        assert answer == asked

    def map(
        self, start: int, size: int, descriptor: int | None, offset: int = 0, flags: int = 3
    ) -> None:
        asked = wire.MAP.pack(wire.MAP.size, flags, offset, start, size)
        self.ask(Command.DMA_MAP, asked, [] if descriptor is None else [descriptor])

    def unmap(self, start: int, size: int, flags: int = 0) -> None:
        asked = wire.UNMAP.pack(wire.UNMAP.size, flags, start, size)
        assert self.ask(Command.DMA_UNMAP, asked) == asked

    def irqs(
        self, index: int, flags: int, count: int, given: Sequence[int] = (), start: int = 0
    ) -> None:
        asked = wire.IRQ_SET.pack(wire.IRQ_SET.size, flags, index, start, count)
        self.ask(Command.SET_IRQS, asked, given)


class Served:
    """A server, a client of its only model, and how the machine was ended."""

    def __init__(self, server: Server, name: str, client: Client) -> None:
        self.server = server
        self.name = name
        self.client = client
        self.ended = threading.Event()

    def over(self) -> bool:
        """Whether the server hangs up, or ends the machine, in good time."""
        for _ in range(SECONDS * 1000):
            ready, _, _ = select.select([self.client.socket], (), (), 0.001)
            if self.ended.is_set() or (ready and not self.client.socket.recv(PAGE)):
                return True
        return False

    @property
    def model(self) -> PciDevice:
        model = self.server.devices[self.name]
        assert isinstance(model, PciDevice)
        return model


Serve = Callable[..., contextlib.AbstractContextManager[Served]]


@contextlib.contextmanager
def serve(model: type[PciDevice] = Probe, *, command: int = ON) -> Iterator[Served]:
    with Server() as server:
        door = server.add("probe", model, {})
        client = Client(server.place / door)
        served = Served(server, "probe", client)
        server.start(served.ended.set)
        with client.socket:
            if command:
                client.write(CONFIG, COMMAND, 2, command)
            yield served


@pytest.fixture
def memory() -> Iterator[int]:
    descriptor = os.memfd_create("memory")
    os.truncate(descriptor, 16 * PAGE)
    yield descriptor
    os.close(descriptor)


@contextlib.contextmanager
def eventfds(count: int) -> Iterator[list[int]]:
    made = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(count)]
    try:
        yield made
    finally:
        for eventfd in made:
            os.close(eventfd)


def _fired(eventfd: int) -> int:
    with contextlib.suppress(BlockingIOError):
        return os.eventfd_read(eventfd)
    return 0


# --- the description of a device


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_a_device_is_described_as_its_model_says(kind: str) -> None:
    model = MODELS[kind]
    with serve(model, command=0) as served:
        client = served.client
        said = client.ask(Command.VERSION, wire.VERSION_HEAD.pack(0, 0) + b"{}\0")
        assert wire.VERSION_HEAD.unpack_from(said) == (0, 0)
        assert json.loads(said[4:].rstrip(b"\0"))["capabilities"]["max_msg_fds"] == 8
        info = client.ask(Command.GET_INFO, wire.DEVICE_INFO.pack(16, 0, 0, 0))
        assert wire.DEVICE_INFO.unpack(info) == (16, 3, 9, 5)
        sizes = []
        for region in range(9):
            asked = wire.REGION_INFO.pack(32, 0, region, 0, 0, 0)
            said = client.ask(Command.GET_REGION_INFO, asked)
            _, flags, index, _, size, _ = wire.REGION_INFO.unpack(said)
            assert (index, bool(flags)) == (region, bool(size))
            sizes.append(size)
        assert tuple(sizes[: len(model.regions)]) == model.regions
        assert sizes[CONFIG] == (4096 if model.express else 256)
        counts = []
        for index in range(5):
            said = client.ask(Command.GET_IRQ_INFO, wire.IRQ_INFO.pack(16, 0, index, 0))
            counts.append(wire.IRQ_INFO.unpack(said)[3])
        pins = 1 if model.identity.pin else 0
        msi = model.msi.vectors if model.msi else 0
        msix = model.msix.vectors if model.msix else 0
        assert counts == [pins, msi, msix, 0, 0]
        assert client.read(CONFIG, 0, 2) == model.identity.vendor


def test_another_version_is_refused() -> None:
    with serve() as served, pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        served.client.ask(Command.VERSION, wire.VERSION_HEAD.pack(1, 0) + b"{}\0")


# --- accesses


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_an_access_has_the_drivers_width(width: int) -> None:
    value = 0x8877665544332211 & ((1 << 8 * width) - 1)
    with serve() as served:
        served.client.write(0, 0, 8, (1 << 64) - 1)
        served.client.write(0, 0, width, value)
        assert served.client.read(0, 0, width) == value
        rest = (1 << 64) - 1 & ~((1 << 8 * width) - 1)
        assert served.client.read(0, 0, 8) == value | rest


def test_regions_are_told_apart() -> None:
    with serve() as served:
        served.client.write(0, 0x10, 4, 1)
        served.client.write(2, 0x10, 4, 2)
        assert served.model.state()["word"] == 1
        assert served.model.state()["other"] == 2


def test_memory_space_that_is_off_reads_all_ones() -> None:
    with serve(command=0) as served:
        assert served.client.read(0, 0, 4) == 0xFFFF_FFFF


def test_config_space_is_read_whole_and_written_as_the_model_allows() -> None:
    with serve() as served:
        whole = served.client.read(CONFIG, 0, 4096).to_bytes(4096, "little")
        assert whole == bytes(served.model.config.data)
        served.client.write(CONFIG, 0, 2, 0xBEEF)
        assert served.client.read(CONFIG, 0, 2) == 0x1234


def test_reset_and_function_level_reset_bring_the_device_back() -> None:
    with serve() as served:
        served.client.write(0, 0x10, 4, 7)
        served.client.write(CONFIG, 0x10, 4, 0xFE00_0000)
        place = served.model.config.places[Express.ident]
        served.client.write(CONFIG, place + 8, 2, DEVCTL_FLR)
        assert served.model.state()["word"] == 0
        assert served.client.read(CONFIG, 0x10, 4) == 0xFE00_0000
        assert served.client.ask(Command.RESET) == b""
        assert served.client.read(CONFIG, 0x10, 4) == 0


def test_a_timer_runs_without_any_message() -> None:
    with serve() as served:
        served.client.write(0, 0x24, 4, 1_000_000)
        for _ in range(SECONDS * 100):
            if served.model.state()["word"] == 0xD00E:
                return
            select.select((), (), (), 0.01)
        raise AssertionError("the timer did not run")


def test_a_timer_that_starts_itself_keeps_nobody_waiting() -> None:
    class Restless(Probe):
        def restart(self) -> None:
            self.after(0, self.restart)

    with serve(Restless) as served:
        assert served.client.read(0, 0, 4) == 0


# --- DMA


def test_dma_goes_both_ways_through_the_mapped_memory(memory: int) -> None:
    with serve() as served:
        # Two neighbours, in the file the other way round; the third is elsewhere.
        served.client.map(0x10000, PAGE, memory, PAGE)
        served.client.map(0x11000, PAGE, memory, 0)
        served.client.map(0x40000, PAGE, memory, 2 * PAGE)
        served.client.write(0, 0x08, 8, 0x11000 - 6)
        served.client.write(0, 0x18, 4, 10)
        assert os.pread(memory, 6, 2 * PAGE - 6) == bytes(range(6))
        assert os.pread(memory, 5, 0) == bytes([6, 7, 8, 9, 0])
        os.pwrite(memory, b"\x78\x56\x34\x12", 2 * PAGE)
        served.client.write(0, 0x08, 8, 0x40000)
        served.client.write(0, 0x14, 4, 4)
        assert served.client.read(0, 0x10, 4) == 0x12345678


def test_a_device_that_may_not_master_the_bus_reaches_nothing(memory: int) -> None:
    with serve(command=COMMAND_MEMORY) as served:
        served.client.map(0, PAGE, memory)
        served.client.write(0, 0x18, 4, 4)
        assert os.pread(memory, 4, 0) == bytes(4)
        served.client.write(0, 0x14, 4, 4)
        assert served.client.read(0, 0x10, 4) == 0xFFFF_FFFF


@pytest.mark.parametrize(
    ("prepare", "register", "says"),
    [
        (lambda c, m: None, 0x18, "no memory"),
        (lambda c, m: c.map(0, PAGE, None), 0x18, "no RAM"),
        (lambda c, m: c.map(0, PAGE, m, flags=wire.MAP_READ), 0x18, "only read"),
        (lambda c, m: (c.map(0, PAGE, m), c.unmap(0, PAGE)), 0x14, "no memory"),
        (lambda c, m: (c.map(0, PAGE, m), c.unmap(0, 0, wire.UNMAP_ALL)), 0x14, "no memory"),
    ],
)
def test_dma_outside_memory_is_the_drivers_bug(
    memory: int, prepare: Callable[[Client, int], object], register: int, says: str
) -> None:
    with serve() as served:
        prepare(served.client, memory)
        served.client.send(
            Command.REGION_WRITE, wire.REGION_ACCESS.pack(register, 0, 4) + b"\4\0\0\0"
        )
        assert served.ended.wait(SECONDS)
        fault = served.server.fault
        assert isinstance(fault, DeviceFault)
        assert fault.blame is Blame.DRIVER
        assert says in fault.message


def test_memory_is_mapped_once_and_unmapped_as_it_was(memory: int) -> None:
    with serve() as served:
        client = served.client
        client.map(PAGE, 2 * PAGE, memory)
        for start, size in ((0, 2 * PAGE), (PAGE, PAGE), (2 * PAGE, PAGE), (0, 8 * PAGE)):
            with pytest.raises(OSError, match=os.strerror(errno.EEXIST)):
                client.map(start, size, memory)
        with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
            client.unmap(PAGE, PAGE)
        with pytest.raises(OSError, match=os.strerror(errno.ENOENT)):
            client.unmap(8 * PAGE, PAGE)
        for size, offset in ((17 * PAGE, 0), (PAGE, 7), (0, 0), (1 << 63, 0)):
            with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
                client.map(32 * PAGE, size, memory, offset)
        client.unmap(PAGE, 2 * PAGE)
        client.map(0, 4 * PAGE, memory)


# --- interrupts


def test_every_msi_vector_has_its_eventfd() -> None:
    with serve() as served, eventfds(4) as fds:
        client = served.client
        place = served.model.config.places[Msi.ident]
        client.write(CONFIG, place + 2, 2, 0x21)
        client.write(0, 0x20, 4, 3)  # early: QEMU hands its eventfds over after the write
        client.irqs(Irq.MSI, IrqSet.EVENTFD | IrqSet.TRIGGER, 4, fds)
        assert [_fired(fd) for fd in fds] == [0, 0, 0, 1]
        client.write(0, 0x20, 4, 1)
        client.write(0, 0x20, 4, 1)
        assert [_fired(fd) for fd in fds] == [0, 2, 0, 0]
        client.irqs(Irq.MSI, IrqSet.NONE | IrqSet.TRIGGER, 0)
        client.write(0, 0x20, 4, 1)
        assert [_fired(fd) for fd in fds] == [0, 0, 0, 0]


def test_an_msix_vector_without_an_eventfd_stays_pending() -> None:
    with serve(Vectors) as served, eventfds(2) as fds:
        client = served.client
        client.write(CONFIG, served.model.config.places[Msix.ident] + 2, 2, 0x8000)
        client.irqs(Irq.MSIX, IrqSet.EVENTFD | IrqSet.TRIGGER, 1, fds[:1], start=0)
        client.write(0, 0, 4, 2)
        assert client.read(0, 0xC00, 4) == 1 << 2
        client.irqs(Irq.MSIX, IrqSet.EVENTFD | IrqSet.TRIGGER, 1, fds[1:], start=2)
        assert [_fired(fd) for fd in fds] == [0, 1]
        assert client.read(0, 0xC00, 4) == 0
        client.write(0, 0, 4, 0)
        assert [_fired(fd) for fd in fds] == [1, 0]
        client.irqs(Irq.MSIX, IrqSet.EVENTFD | IrqSet.TRIGGER, 1, (), start=0)
        client.write(0, 0, 4, 0)
        assert client.read(0, 0xC00, 4) == 1


def test_vectors_are_open_again_after_the_driver_restores_a_reset_device() -> None:
    with serve(Vectors) as served, eventfds(1) as fds:
        client = served.client
        control = served.model.config.places[Msix.ident] + 2
        client.write(CONFIG, control, 2, 0x8000)
        client.irqs(Irq.MSIX, IrqSet.EVENTFD | IrqSet.TRIGGER, 1, fds)
        client.ask(Command.RESET)
        client.write(CONFIG, COMMAND, 2, ON)
        client.write(CONFIG, control, 2, 0x8000)
        client.write(0, 0, 4, 0)
        assert _fired(fds[0]) == 1


def test_the_pin_interrupts_once_until_it_is_unmasked() -> None:
    with serve() as served, eventfds(1) as (fd,):
        client = served.client
        client.irqs(Irq.INTX, IrqSet.EVENTFD | IrqSet.TRIGGER, 1, [fd])
        client.write(0, 0x1C, 4, 1)
        client.write(0, 0x1C, 4, 1)
        assert _fired(fd) == 1
        client.irqs(Irq.INTX, IrqSet.NONE | IrqSet.UNMASK, 1)
        assert _fired(fd) == 1, "the level is still high"
        client.write(0, 0x1C, 4, 0)
        client.irqs(Irq.INTX, IrqSet.NONE | IrqSet.UNMASK, 1)
        assert _fired(fd) == 0
        client.irqs(Irq.INTX, IrqSet.NONE | IrqSet.MASK, 1)
        client.write(0, 0x1C, 4, 1)
        assert _fired(fd) == 0
        client.irqs(Irq.INTX, IrqSet.NONE | IrqSet.UNMASK, 1)
        assert _fired(fd) == 1


def test_a_pin_that_fell_before_qemu_looked_interrupts_nobody() -> None:
    with serve() as served, eventfds(1) as (fd,):
        client = served.client
        client.irqs(Irq.INTX, IrqSet.EVENTFD | IrqSet.TRIGGER, 1, [fd])
        client.write(0, 0x1C, 4, 1)
        client.write(0, 0x1C, 4, 0)
        assert _fired(fd) == 0
        client.write(0, 0x1C, 4, 1)
        assert _fired(fd) == 1


def test_the_pin_follows_the_drivers_switch_and_a_reset() -> None:
    with serve() as served, eventfds(1) as (fd,):
        client = served.client
        client.irqs(Irq.INTX, IrqSet.EVENTFD | IrqSet.TRIGGER, 1, [fd])
        client.write(CONFIG, COMMAND, 2, ON | COMMAND_INTX_OFF)
        client.write(0, 0x1C, 4, 1)
        assert _fired(fd) == 0
        assert client.read(CONFIG, STATUS, 2) & STATUS_INTERRUPT
        client.write(CONFIG, COMMAND, 2, ON)
        assert _fired(fd) == 1
        client.ask(Command.RESET)
        client.irqs(Irq.INTX, IrqSet.NONE | IrqSet.UNMASK, 1)
        assert _fired(fd) == 0


# --- what cannot be


@pytest.mark.parametrize(
    ("command", "payload", "number"),
    [
        (99, b"", errno.ENOSYS),
        (11, bytes(16), errno.ENOSYS),
        (Command.VERSION, b"", errno.EINVAL),
        (Command.GET_INFO, bytes(15), errno.EINVAL),
        (Command.GET_REGION_INFO, bytes(31), errno.EINVAL),
        (Command.GET_REGION_INFO, wire.REGION_INFO.pack(32, 0, 9, 0, 0, 0), errno.EINVAL),
        (Command.GET_IRQ_INFO, wire.IRQ_INFO.pack(16, 0, 5, 0), errno.EINVAL),
        (Command.DMA_MAP, bytes(31), errno.EINVAL),
        (Command.DMA_UNMAP, bytes(23), errno.EINVAL),
        (Command.REGION_READ, bytes(15), errno.EINVAL),
        (Command.REGION_READ, wire.REGION_ACCESS.pack(0, 0, 3), errno.EINVAL),
        (Command.REGION_READ, wire.REGION_ACCESS.pack(0, 0, 0), errno.EINVAL),
        (Command.REGION_READ, wire.REGION_ACCESS.pack(0xFFD, 0, 4), errno.EINVAL),
        (Command.REGION_READ, wire.REGION_ACCESS.pack(1 << 63, 0, 4), errno.EINVAL),
        (Command.REGION_READ, wire.REGION_ACCESS.pack(0, 1, 4), errno.EINVAL),
        (Command.REGION_READ, wire.REGION_ACCESS.pack(0, 8, 4), errno.EINVAL),
        (Command.REGION_READ, wire.REGION_ACCESS.pack(0, 1 << 31, 4), errno.EINVAL),
        (Command.REGION_READ, wire.REGION_ACCESS.pack(0, 7, (1 << 32) - 1), errno.EINVAL),
        (Command.REGION_READ, wire.REGION_ACCESS.pack(4095, 7, 4), errno.EINVAL),
        (Command.REGION_WRITE, wire.REGION_ACCESS.pack(0, 0, 4), errno.EINVAL),
        (Command.REGION_WRITE, wire.REGION_ACCESS.pack(0, 0, 4) + bytes(8), errno.EINVAL),
        (Command.SET_IRQS, wire.IRQ_SET.pack(20, 36, 3, 0, 1), errno.EINVAL),
        (Command.SET_IRQS, wire.IRQ_SET.pack(20, 36, 1, 0, 5), errno.EINVAL),
        (Command.SET_IRQS, wire.IRQ_SET.pack(20, 36, 2, 0, 1), errno.EINVAL),
        (Command.SET_IRQS, wire.IRQ_SET.pack(20, 0, 0, 0, 1), errno.EINVAL),
        (Command.SET_IRQS, wire.IRQ_SET.pack(20, 17, 1, 0, 1), errno.EINVAL),
    ],
)
def test_a_message_that_asks_for_what_cannot_be_is_refused(
    command: int, payload: bytes, number: int
) -> None:
    with serve() as served:
        with pytest.raises(OSError, match=os.strerror(number)):
            served.client.ask(command, payload)
        assert served.client.read(CONFIG, 0, 2) == 0x1234, "and all goes on"
        assert served.server.fault is None


def test_a_wrong_number_of_eventfds_is_refused_and_none_is_kept() -> None:
    with serve() as served, eventfds(2) as fds:
        before = _descriptors()
        with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
            served.client.irqs(Irq.MSI, IrqSet.EVENTFD | IrqSet.TRIGGER, 3, fds)
        assert _descriptors() == before


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\x01", "ended a message after 1 bytes"),
        (wire.HEADER.pack(1, 4, 15, 0, 0), "message of 15 bytes"),
        (wire.HEADER.pack(1, 4, 1 << 31, 0, 0), "message of 2147483648 bytes"),
        (wire.HEADER.pack(1, 4, 16, 1, 0), "flags 0x1"),
        (wire.HEADER.pack(1, 4, 32, 0, 0) + bytes(15), "sent 15 of the 16 bytes"),
    ],
)
def test_a_broken_stream_ends_the_machine_in_a_sentence(data: bytes, says: str) -> None:
    with serve() as served:
        served.client.socket.sendall(data)
        served.client.socket.shutdown(socket.SHUT_WR)
        assert served.ended.wait(SECONDS)
        assert isinstance(served.server.fault, wire.ProtocolError)
        assert says in served.server.fault.message


def test_a_message_that_never_ends_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "PATIENCE", 0.02)
    with serve() as served:
        served.client.socket.sendall(b"\1\0")
        assert served.ended.wait(SECONDS)
        assert isinstance(served.server.fault, wire.ProtocolError)


def test_too_many_descriptors_end_the_machine_and_leak_none() -> None:
    with serve() as served, eventfds(12) as fds:
        before = _descriptors()
        served.client.send(Command.RESET, b"", fds)
        assert served.ended.wait(SECONDS)
        assert "more than 8 descriptors" in str(served.server.fault)
        assert _descriptors() == before


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.integers(0, 16), st.binary(max_size=48), st.integers(0, 2)), max_size=6),
    st.binary(max_size=24),
)
def test_no_bytes_hang_it_or_make_it_fall_over(
    messages: list[tuple[int, bytes, int]], tail: bytes
) -> None:
    with serve(Vectors) as served, eventfds(2) as fds:
        with contextlib.suppress(OSError):
            for command, payload, given in messages:
                served.client.send(command, payload, fds[:given])
            served.client.socket.sendall(tail)
        served.client.socket.shutdown(socket.SHUT_WR)
        assert served.over()
        fault = served.server.fault
        assert fault is None or isinstance(fault, wire.ProtocolError | DeviceFault), fault


# --- models that fail, and the end


def test_a_model_that_raises_ends_the_machine_and_names_the_place() -> None:
    with serve() as served:
        served.client.send(Command.REGION_WRITE, wire.REGION_ACCESS.pack(0x28, 0, 4) + bytes(4))
        assert served.ended.wait(SECONDS)
        fault = served.server.fault
        assert isinstance(fault, DeviceFault)
        assert fault.blame is Blame.MODEL
        assert fault.device == "probe"
        assert fault.doing == "4-byte write of 0x0 to BAR 0 + 0x28"
        assert any("_fail" in line for line in fault.trace)
        served.client.socket.settimeout(0.05)
        with pytest.raises(TimeoutError):
            served.client.socket.recv(1)  # no answer: the guest goes no further


def test_a_model_that_raises_in_its_timer_ends_the_machine() -> None:
    class Late(Probe):
        def restart(self) -> None:
            self.after(1000, self._explode)

        def _explode(self) -> None:
            raise ZeroDivisionError

    with Server() as server:
        ended = threading.Event()
        server.add("late", Late, {})
        server.start(ended.set)
        assert ended.wait(SECONDS)
        assert isinstance(server.fault, DeviceFault)
        assert "_explode" in server.fault.doing


def test_a_model_that_cannot_be_made_is_told_at_once() -> None:
    class Broken(Probe):
        def restart(self) -> None:
            raise RuntimeError("no")

    with Server() as server, pytest.raises(DeviceFault, match="RuntimeError: no"):
        server.add("broken", Broken, {})


def test_a_server_that_fails_itself_ends_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module.Session, "serve", lambda self: 1 // 0)
    with serve(command=0) as served:
        served.client.send(Command.RESET, b"")
        assert served.ended.wait(SECONDS)
        assert isinstance(served.server.fault, SetupError)
        assert "ZeroDivisionError" in served.server.fault.message


def test_a_model_that_never_answers_is_named_and_can_be_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kdrv.qemu.vfiouser.slot.STUCK_SECONDS", 0.0)
    monkeypatch.setattr(server_module, "JOIN_SECONDS", 0.05)
    Probe.released.clear()
    try:
        with serve() as served:
            assert served.server.stuck() == ()
            served.client.send(Command.REGION_WRITE, wire.REGION_ACCESS.pack(0x2C, 0, 4) + bytes(4))
            for _ in range(SECONDS * 100):
                if said := served.server.stuck():
                    break
                select.select((), (), (), 0.01)
            assert "probe: the device model has been busy" in said[0]
            assert "4-byte write of 0x0 to BAR 0 + 0x2c" in said[0]
            assert any("test_vfio_server.py" in line and "in _hang" in line for line in said)
    finally:
        Probe.released.set()


def test_a_diagnosis_has_what_was_last_on_the_bus() -> None:
    with serve() as served:
        for value in range(9):
            served.client.write(0, 0x10, 4, value)
        served.client.read(0, 0x10, 4)
        served.client.write(0, 0x20, 4, 1)
        lines = served.server.diagnose()
    assert len(lines) == 8
    assert lines[-4:] == (
        "last on the bus: probe: BAR0+0x10 word/4 <- 0x8",
        "last on the bus: probe: BAR0+0x10 word/4 -> 0x8",
        "last on the bus: probe: BAR0+0x20 signal/4 <- 0x1",
        "last on the bus: probe: interrupt dropped vector=1",
    )


def test_nothing_happens_in_a_device_that_qemu_has_let_go_of(memory: int) -> None:
    class Busy(Probe):
        @Probe.later.on_write
        def _later(self, nanoseconds: int) -> None:
            self.after(nanoseconds, lambda: self.dma.write(0, b"late"))

    with serve(Busy) as served:
        served.client.map(0, PAGE, memory)
        served.client.write(0, 0x24, 4, 50_000_000)
        served.client.socket.shutdown(socket.SHUT_WR)
        assert served.over()
        again = Client(served.server.place / "d1")
        assert again.socket.recv(1) == b"", "QEMU does not come back"
        again.socket.close()
        assert not served.ended.wait(0.1)
        assert served.server.fault is None
        assert os.pread(memory, 4, 0) == bytes(4)


def test_models_come_and_go_while_others_are_served() -> None:
    with serve() as served:
        server, descriptors = served.server, _descriptors()
        late = Client(server.place / server.add("late", Vectors, {}))
        assert late.read(CONFIG, 2, 2) == 0x5679
        assert sorted(server.devices) == ["late", "probe"]
        with pytest.raises(UsageError, match="a device late already"):
            server.add("late", Vectors, {})
        server.remove("late")
        assert late.socket.recv(1) == b""
        late.socket.close()
        assert sorted(server.devices) == ["probe"]
        assert _descriptors() == descriptors
        server.remove("late")
        assert served.client.read(CONFIG, 2, 2) == 0x5678


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_nothing_is_left_behind(memory: int) -> None:
    threads, descriptors = threading.active_count(), _descriptors()
    with eventfds(4) as fds:
        with serve() as served:
            place = served.server.place
            served.client.map(0, PAGE, memory)
            served.client.irqs(Irq.MSI, IrqSet.EVENTFD | IrqSet.TRIGGER, 4, fds)
        assert not place.exists()
    assert (threading.active_count(), _descriptors()) == (threads, descriptors)
