"""The simulator without a kernel: its protocols over socket pairs, its memory, its records."""

import array
import mmap
import os
import socket
import struct
from importlib import resources

import pytest

from kdrv.core.errors import UsageError
from kdrv.devices.clock import Clock
from kdrv.devices.edu import Edu
from kdrv.devices.errors import Blame, DeviceFault, Misuse
from kdrv.kernel.arch import Arch
from kdrv.machine.contract import BootSpec, DeviceSpec, KernelImage
from kdrv.sim import pcidev, platform
from kdrv.sim.attachment import pieces
from kdrv.sim.calendar import FOREVER, TIME_OF_DAY, Calendar
from kdrv.sim.engine import Ended, Engine, Rebooted, Stalled, open_door
from kdrv.sim.faults import CALM, Schedule
from kdrv.sim.host import host_cpu, settle
from kdrv.sim.memory import DESCRIPTOR, NEXT, GuestMemory, Virtqueue, gather, scatter
from kdrv.sim.pcidev import PciTransport
from kdrv.sim.port import Port
from kdrv.sim.trace import Access, Note, Trace, history_hash
from kdrv.sim.vhost import VhostServer
from kdrv.sim.wire import (
    NEED_REPLY,
    PCI_MESSAGE,
    REPLY,
    TIME_MESSAGE,
    VERSION,
    VHOST_HEADER,
    Hangup,
    PciOp,
    ProtocolError,
    TimeOp,
    VhostRequest,
)
from kdrv.sim.world import SimWorld, kernel_arguments
from tests.fast.sim_fakes import DATA, ENTRIES, SIZE, START, Bus, Guest


def test_a_virtqueue_gives_and_takes_chains():
    guest, server = Guest(), VhostServer(None)
    guest.attach(server)
    memory = server.memory
    assert server.pop(0) is None
    guest.put(DATA, b"headbody")
    head = guest.offer(0, [(DATA, 4), (DATA + 4, 4)], [(DATA + 0x100, 2), (DATA + 0x200, 8)])
    chain = server.pop(0)
    assert gather(memory, chain) == b"headbody"
    assert scatter(memory, chain, b"answer") == 6
    server.push(0, chain, 6)
    assert guest.used(0) == [(head, 6)]
    assert guest.get(DATA + 0x100, 2) + guest.get(DATA + 0x200, 4) == b"answer"
    assert server.pop(0) is None


def test_memory_ends_where_it_ends():
    fd = os.memfd_create("m")
    os.ftruncate(fd, 3 * mmap.PAGESIZE)
    memory = GuestMemory(0x5000, mmap.PAGESIZE, fd, mmap.PAGESIZE)
    memory.write(0x5000, b"ab")
    assert memory.read(0x5000, 2) == b"ab"
    for address, length in ((0x4FFF, 1), (0x5000 + mmap.PAGESIZE, 1), (0x5FFF, 2), (0x5000, -1)):
        with pytest.raises(Misuse, match="outside the machine's memory"):
            memory.read(address, length)
    assert Virtqueue().pop(memory) is None


# --- vhost-user


class Echo:
    def __init__(self):
        self.kicks = []

    def kicked(self, queue):
        self.kicks.append(queue)


def vhost_pair(**hooks):
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    server = VhostServer(Echo(), **hooks)
    server.connection = ours
    return server, theirs


def ask(server, theirs, request, payload=b"", flags=NEED_REPLY, fds=()):
    message = VHOST_HEADER.pack(request, VERSION | flags, len(payload)) + payload
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    theirs.sendmsg([message], rights)
    server.serve()
    header = theirs.recv(VHOST_HEADER.size)
    number, got, size = VHOST_HEADER.unpack(header)
    assert (number, got) == (request, VERSION | REPLY)
    return int.from_bytes(theirs.recv(size), "little")


def test_vhost_negotiates_what_exactness_needs():
    server, theirs = vhost_pair()
    assert ask(server, theirs, VhostRequest.GET_FEATURES, flags=0) == 1 << 30 | 1 << 32
    features = ask(server, theirs, VhostRequest.GET_PROTOCOL_FEATURES, flags=0)
    assert features == 1 << 3 | 1 << 5 | 1 << 14


def test_vhost_learns_memory_and_rings_and_handles_a_kick():
    order = []
    server, theirs = vhost_pair(
        before=lambda: order.append("before"), after=lambda: order.append("after")
    )
    guest = Guest()
    table = struct.pack("=II", 1, 0) + struct.pack("=QQQQ", START, SIZE, START, 0)
    assert ask(server, theirs, VhostRequest.SET_MEM_TABLE, table, fds=[guest.fd]) == 0
    descriptors, available, used = guest.place(1)
    ask(server, theirs, VhostRequest.SET_VRING_NUM, struct.pack("=II", 1, ENTRIES))
    address = struct.pack("=IIQQQQ", 1, 0, descriptors, used, available, 0)
    ask(server, theirs, VhostRequest.SET_VRING_ADDR, address)
    guest.put(DATA, b"x")
    guest.offer(1, [(DATA, 1)])
    assert gather(server.memory, server.pop(1)) == b"x"
    ask(server, theirs, VhostRequest.VRING_KICK, struct.pack("=II", 1, 0))
    assert server.backend.kicks == [1]
    assert order == ["before", "after"]


def test_vhost_refuses_what_it_does_not_know_and_sees_a_hangup():
    server, theirs = vhost_pair()
    theirs.sendall(VHOST_HEADER.pack(99, VERSION, 0))
    with pytest.raises(ProtocolError, match="99"):
        server.serve()
    theirs.close()
    with pytest.raises(Hangup):
        server.serve()


def test_a_call_waits_until_the_kernel_has_taken_notice():
    server, theirs = vhost_pair()
    guest = Guest()
    guest.attach(server)
    server.call(1)
    ours, kernel = socket.socketpair()
    ask(server, theirs, VhostRequest.SET_SLAVE_REQ_FD, fds=[ours.fileno()])
    reply = VHOST_HEADER.pack(4, VERSION | REPLY, 8) + bytes(8)
    kernel.sendall(reply)
    server.call(1)
    request, flags, size = VHOST_HEADER.unpack(kernel.recv(VHOST_HEADER.size))
    assert (request, flags, size) == (4, VERSION | NEED_REPLY, 8)
    assert struct.unpack("=II", kernel.recv(8)) == (1, 0)
    _, available, _ = guest.place(1)
    guest.put(available, struct.pack("<H", 1))
    server.call(1)
    kernel.setblocking(False)
    with pytest.raises(BlockingIOError):
        kernel.recv(1)
    guest.put(available, struct.pack("<H", 0))
    kernel.close()
    server.call(1)
    server.call(1)


# --- the calendar


class Kernel:
    """The kernel's side of the calendar, over its shared memory."""

    def __init__(self, calendar):
        ours, self.socket = socket.socketpair()
        self.socket.settimeout(5)
        calendar.connection = ours
        self.calendar = calendar
        self.say(TimeOp.START)
        calendar.serve()
        data, rights, _, _ = self.socket.recvmsg(16, 64)
        assert TIME_MESSAGE.unpack(data) == (TimeOp.ACK, 7, 1)
        fds = array.array("i")
        fds.frombytes(rights[0][2])
        assert len(fds) == 2
        self.shared = mmap.mmap(fds[0], 0)
        for fd in fds:
            os.close(fd)
        struct.pack_into("=I", self.shared, 4096 + 128, 1)

    def say(self, operation):
        self.socket.sendall(TIME_MESSAGE.pack(operation, 7, 0))

    def hear(self):
        return TIME_MESSAGE.unpack(self.socket.recv(16))

    def wants(self, time):
        struct.pack_into("=IQ", self.shared, 4096 + 128 + 4, 1, time)

    def arrives_at(self, time):
        struct.pack_into("=Q", self.shared, 16, time)

    @property
    def free_until(self):
        return struct.unpack_from("=Q", self.shared, 8)[0]

    @property
    def running(self):
        return struct.unpack_from("=H", self.shared, 24)[0]


def test_the_calendar_s_shared_memory():
    calendar = Calendar(Clock())
    kernel = Kernel(calendar)
    assert struct.unpack_from("=II", kernel.shared) == (2, 4096 + 256)
    assert kernel.running == 1
    assert struct.unpack_from("=I", kernel.shared, 4096) == (1,)
    kernel.say(TimeOp.GET_TOD)
    calendar.serve()
    assert kernel.hear() == (TimeOp.ACK, 7, TIME_OF_DAY)


def test_the_kernel_runs_up_to_our_next_event():
    calendar = Calendar(Clock())
    kernel = Kernel(calendar)
    assert kernel.free_until == FOREVER
    kernel.arrives_at(40)
    calendar.catch_up()
    calendar.clock.after(60, lambda: None)
    calendar.limit()
    assert kernel.free_until == 100
    calendar.limit(here=True)
    assert kernel.free_until == 40
    kernel.say(TimeOp.WAIT)
    calendar.serve()
    assert (calendar.waiting, kernel.running, calendar.request) == (True, 0, FOREVER)
    kernel.wants(70)
    assert calendar.request == 70
    calendar.grant(70)
    assert kernel.hear() == (TimeOp.RUN, 0, 70)
    assert (calendar.waiting, kernel.running, kernel.free_until) == (False, 1, 100)


def test_the_calendar_refuses_what_shared_memory_makes_needless():
    calendar = Calendar(Clock())
    kernel = Kernel(calendar)
    kernel.say(TimeOp.REQUEST)
    with pytest.raises(ProtocolError):
        calendar.serve()


# --- the engine


def make_engine(tmp_path, watch=lambda: None):
    calendar = Calendar(Clock())
    return calendar, Engine(calendar, [open_door(tmp_path, "t", calendar)], 5.0, watch)


def connect(tmp_path):
    handle = os.open(tmp_path, os.O_PATH)
    kernel = socket.socket(socket.AF_UNIX)
    kernel.connect(f"/proc/self/fd/{handle}/t")
    kernel.settimeout(5)
    os.close(handle)
    return kernel


def test_the_engine_runs_events_before_a_kernel_that_waits_for_later(tmp_path):
    deep = tmp_path / ("long" * 40)
    deep.mkdir()
    calendar, engine = make_engine(deep)
    kernel = connect(deep)
    seen = []
    calendar.clock.after(10, lambda: seen.append(10))
    calendar.clock.after(20, lambda: seen.append(20))
    calendar.clock.after(30, lambda: seen.append(30))
    kernel.sendall(TIME_MESSAGE.pack(TimeOp.START, 1, 0) + TIME_MESSAGE.pack(TimeOp.WAIT, 2, 0))
    struct.pack_into("=IQ", calendar._shared, 4096 + 128 + 4, 1, 25)
    engine.run(lambda: len(seen) == 2 and not calendar.waiting, no)
    assert seen == [10, 20]
    assert calendar.clock.now == 25
    kernel.close()
    with pytest.raises(Ended):
        engine.run(lambda: False, no)
    engine.close()


def no():
    return False


def test_the_engine_gives_up_on_a_kernel_that_nothing_can_wake(tmp_path):
    _, engine = make_engine(tmp_path)
    kernel = connect(tmp_path)
    kernel.sendall(TIME_MESSAGE.pack(TimeOp.START, 1, 0) + TIME_MESSAGE.pack(TimeOp.WAIT, 2, 0))
    with pytest.raises(Stalled, match="sleeps for ever"):
        engine.run(lambda: False, no)
    engine.close()


def test_a_kernel_that_dies_while_it_waits_has_ended(tmp_path):
    calendar, engine = make_engine(tmp_path)
    kernel = connect(tmp_path)
    kernel.sendall(TIME_MESSAGE.pack(TimeOp.START, 1, 0) + TIME_MESSAGE.pack(TimeOp.WAIT, 2, 0))
    calendar.clock.after(5, kernel.close)
    struct.pack_into("=IQ", calendar._shared, 4096 + 128 + 4, 1, 25)
    with pytest.raises(Ended):
        engine.run(lambda: False, no)
    engine.close()


def test_a_second_calendar_is_a_reboot(tmp_path):
    _, engine = make_engine(tmp_path)
    first = connect(tmp_path)
    first.sendall(TIME_MESSAGE.pack(TimeOp.START, 1, 0))
    second = connect(tmp_path)
    with pytest.raises(Rebooted):
        engine.run(lambda: False, no)
    assert second.recv(1) == b""
    engine.close()


def test_the_engine_gives_up_on_a_silent_kernel_and_on_a_dead_one(tmp_path):
    _, engine = make_engine(tmp_path)
    engine.patience = 0.0
    with pytest.raises(Stalled, match="without waiting"):
        engine.run(lambda: False, no)
    with pytest.raises(Ended):
        engine.run(lambda: False, lambda: True)
    engine.close()


def test_the_engine_gives_up_on_a_kernel_that_prints_without_an_end(tmp_path):
    calendar = Calendar(Clock())
    doors = [open_door(tmp_path, "t", calendar)]
    engine = Engine(calendar, doors, 60.0, lambda: None, lambda: True)
    with pytest.raises(Stalled, match="prints without an end"):
        engine.run(lambda: False, no)
    engine.close()


def test_endless_talk_in_no_time_is_a_stall(tmp_path, monkeypatch):
    monkeypatch.setattr("kdrv.sim.engine.BUSY_MESSAGES", 3)
    _, engine = make_engine(tmp_path)
    kernel = connect(tmp_path)
    kernel.sendall(TIME_MESSAGE.pack(TimeOp.START, 1, 0))
    kernel.sendall(TIME_MESSAGE.pack(TimeOp.GET_TOD, 2, 0) * 5)
    with pytest.raises(Stalled, match="while no time passed"):
        engine.run(lambda: False, no)
    engine.close()


# --- a device behind its transport


def test_a_transport_carries_accesses_and_records_them():
    bus = Bus()
    assert bus.ask(PciOp.CFG_READ, 0, size=4) == b"\x34\x12\xe8\x11"
    bus.ask(PciOp.MMIO_WRITE, 4, b"\xff\0\0\0")
    assert bus.ask(PciOp.MMIO_READ, 4, size=4) == b"\0\xff\xff\xff"
    assert bus.words()[-2:] == ["BAR0+0x4 liveness/4 <- 0xff", "BAR0+0x4 liveness/4 -> 0xffffff00"]
    # The kernel does not wait for the write, and never gets its buffer back.
    assert [length for _, length in bus.guest.used(0)] == [4, 4]


def test_the_kernel_gets_back_only_writes_that_it_waits_for():
    bus = Bus()
    kept = bus.transport.server.queues[0].kept
    for number in range(pcidev.POSTED - kept + 2):
        bus.ask(PciOp.MMIO_WRITE, 4, number.to_bytes(4, "little"))
    assert [length for _, length in bus.guest.used(0)] == [0, 0]


def test_a_block_goes_by_words_and_a_memset_is_no_config_write():
    bus = Bus()
    assert bus.ask(PciOp.MMIO_READ, 0, size=12)[:8] == b"\xed\0\0\x01" + bytes(4)
    bus.ask(PciOp.CFG_WRITE, 0x80, b"\x11" + bytes(7), bar=0, size=0)
    bus.ask(PciOp.MMIO_MEMSET, 0x80, b"\x22", bar=0)
    message = PCI_MESSAGE.pack(PciOp.CFG_WRITE, 0, 0, 16, 0x80) + b"\x33" + bytes(7)
    bus.guest.put(DATA, message)
    bus.guest.offer(0, [(DATA, len(message))])
    bus.transport.kicked(0)
    assert bus.transport.model.dma_source == 0x3333_3333
    assert bus.transport.model.dma_target == 0x3333_3333


@pytest.mark.parametrize(
    ("offset", "size", "widths"),
    [(0, 8, [8]), (4, 8, [4, 4]), (0, 12, [4, 4, 4]), (3, 6, [1, 4, 1]), (1, 2, [1, 1])],
)
def test_pieces_are_aligned_to_their_width(offset, size, widths):
    assert [width for _, width in pieces(offset, size)] == widths
    assert sum(widths) == size


def test_an_interrupt_waits_for_a_buffer():
    bus = Bus()
    place = bus.transport.model.config.places[5]
    bus.ask(PciOp.CFG_WRITE, place + 12, (33).to_bytes(2, "little"))
    bus.ask(PciOp.CFG_WRITE, place + 2, (1).to_bytes(2, "little"))
    bus.ask(PciOp.MMIO_WRITE, 0x60, b"\1\0\0\0")
    assert bus.guest.used(1) == []
    bus.guest.offer(1, writable=[(DATA + 0xC00, 20)])
    bus.transport.kicked(1)
    assert bus.clock.step()
    assert bus.guest.used(1) == [(0, 20)]
    message = bus.guest.get(DATA + 0xC00, 20)
    assert PCI_MESSAGE.unpack_from(message)[0] == PciOp.MSI
    assert message[16:] == (33).to_bytes(4, "little")
    assert bus.words()[-1] == "interrupt 0"


@pytest.mark.parametrize(("offset", "size"), [(0x3C, 2), (0x3C, 4), (0x3D, 1)])
def test_a_device_tells_of_no_interrupt_line(offset, size):
    bus = Bus()
    assert bus.transport.model.config.get(0x3D, 1) == 1
    assert bus.ask(PciOp.CFG_READ, offset, size=size) == bytes(size)


class Broken(Edu):
    def _transfer(self):
        self.dma.read(DATA, 4)
        raise KeyError("no such buffer")


def test_a_model_that_raises_in_the_middle_of_dma_ends_the_run_with_its_traceback():
    bus = Bus(Broken)
    for offset, value in ((0x80, DATA), (0x88, 0x40000), (0x90, 4), (0x98, 1)):
        bus.ask(PciOp.MMIO_WRITE, offset, value.to_bytes(4, "little"))
    with pytest.raises(DeviceFault) as caught:
        bus.clock.step()
    fault = caught.value
    assert (fault.device, fault.blame, fault.at) == ("edu", Blame.MODEL, 100_000_000)
    assert "_transfer" in fault.doing
    assert any("raise KeyError" in line for line in fault.trace)


def test_an_impossible_access_and_wild_dma_are_the_driver_s():
    bus = Bus()
    with pytest.raises(DeviceFault, match="no BAR 3") as caught:
        bus.ask(PciOp.MMIO_READ, 0, size=4, bar=3)
    assert caught.value.blame is Blame.DRIVER
    bus = Bus()
    for offset, value in ((0x80, 0xFFF0000), (0x88, 0x40000), (0x90, 4), (0x98, 1)):
        bus.ask(PciOp.MMIO_WRITE, offset, value.to_bytes(4, "little"))
    with pytest.raises(DeviceFault, match="outside the machine's memory"):
        bus.clock.step()


def test_a_model_that_cannot_start_is_a_fault_too():
    def make(host):
        raise OSError("no firmware")

    with pytest.raises(DeviceFault, match="no firmware"):
        PciTransport("x", Clock(), Trace(), Schedule(CALM), make, VhostServer)


# --- the channel


def test_the_port_sends_in_virtual_time_and_in_pieces():
    clock, guest = Clock(), Guest()
    port = Port(clock, VhostServer)
    guest.attach(port.server)
    port.send(b"hello")
    port.send(b" world")
    while clock.step():
        pass
    assert guest.used(0) == []
    guest.offer(0, writable=[(DATA, 4)])
    guest.offer(0, writable=[(DATA + 0x100, 100)])
    port.kicked(0)
    while clock.step():
        pass
    assert guest.used(0) == [(0, 4), (1, 7)]
    assert guest.get(DATA, 4) + guest.get(DATA + 0x100, 7) == b"hello world"
    guest.put(DATA, b"back")
    guest.offer(1, [(DATA, 4)])
    port.kicked(1)
    assert port.received == b"back"


# --- trace and world


def test_equal_histories_have_equal_hashes():
    one, two = Trace(), Trace()
    for trace in (one, two):
        trace.add(Access(5, "edu", True, 0, 4, 4, 1, "liveness"))
        trace.note(6, "edu", "odd", {"n": 1})
    assert history_hash(["a"], one) == history_hash(["a"], two)
    assert history_hash(["b"], one) != history_hash(["a"], two)
    two.add(Note(7, "edu", "more", ()))
    assert history_hash(["a"], one) != history_hash(["a"], two)
    assert str(one.of("edu")[0]) == "0.000000005 edu: BAR0+0x4 liveness/4 <- 0x1"
    assert len(one.since(1)) == 1


def spec(tmp_path, *devices, arch=Arch.UM, cpus=1):
    kernel = KernelImage(arch, "7.3", tmp_path / "linux", tmp_path / "vmlinux", tmp_path)
    kinds = tuple(DeviceSpec(device) for device in devices)
    return BootSpec(kernel, tmp_path / "initrd", kinds, 64, cpus, ("extra=1",))


def test_the_kernel_s_command_line_is_constant(tmp_path):
    arguments = kernel_arguments(spec(tmp_path, "edu", "edu"), 2)
    assert str(tmp_path) not in " ".join(arguments)
    assert [a for a in arguments if a.startswith("virtio_uml")] == [
        "virtio_uml.device=c:3",
        f"virtio_uml.device=d0:{pcidev.VIRTIO_ID}",
        f"virtio_uml.device=d1:{pcidev.VIRTIO_ID}",
    ]
    assert arguments[-1] == "extra=1"
    assert "norandmaps" in arguments


def test_the_fragment_has_the_simulator_s_device_id():
    text = resources.files("kdrv.build").joinpath("fragments/um.config").read_text()
    assert f"CONFIG_UML_PCI_OVER_VIRTIO_DEVICE_ID={pcidev.VIRTIO_ID}\n" in text


@pytest.mark.parametrize(
    ("devices", "options", "words"),
    [
        ((), {"arch": Arch.X86_64}, "kernel for x86_64"),
        ((), {"cpus": 2}, "2 processors"),
        (("edu",) * 9, {}, "9 PCI devices"),
        (("nvme",), {}, "no device model 'nvme'"),
    ],
)
def test_what_the_simulator_cannot_boot(tmp_path, devices, options, words):
    with (
        pytest.raises(UsageError, match=words),
        SimWorld(None, None).boot(spec(tmp_path, *devices, **options)),
    ):
        pass


# --- platform devices


def described(**options):
    spec = DeviceSpec("platform", {"compatible": "acme,my_widget", **options})
    return platform.layout([("platform", spec), ("platform1", spec)])


def test_platform_devices_are_placed_and_described():
    first, second = described(regs=4097, **{"clock-frequency": 5, "label": 'a "b"', "fast": True})
    assert (first.address, first.size, second.address) == (0x1000_0000, 0x2000, 0x1000_2000)
    text = platform.source([first, second], "p")
    assert 'socket-path = "p"; \nvirtio-device-id = <1234>' in text.replace(";\n", "; \n")
    assert '"virtio,device4d2", "simple-bus"' in text
    assert "my-widget@10002000 {" in text
    assert 'clock-frequency = <0x5>; label = "a \\"b\\""; fast;' in text


@pytest.mark.parametrize(
    "options",
    [
        {"compatible": "no good"},
        {"regs": -1},
        {"regs": True},
        {"regs": 1 << 30},
        {"reg": 1},
        {"size": -1},
        {"label": "\n"},
    ],
)
def test_platform_devices_that_cannot_be(options):
    with pytest.raises(UsageError, match="platform device"):
        described(**options)


def test_a_platform_bus_finds_the_device_by_its_address():
    guest, trace = Guest(), Trace()
    bus = platform.PlatformTransport(
        described(regs=4096), Clock(), trace, Schedule(CALM), VhostServer
    )
    guest.attach(bus.server)

    def ask(operation, address, data=b"", size=0):
        message = PCI_MESSAGE.pack(operation, 0, 0, size or len(data), address) + data
        guest.put(DATA, message)
        guest.offer(0, [(DATA, len(message))], [(DATA + 0x800, size)] if size else [])
        bus.kicked(0)
        return guest.get(DATA + 0x800, size)

    ask(PciOp.MMIO_WRITE, 0x1004, b"kdrv")
    assert ask(PciOp.MMIO_READ, 0x1004, size=4) == b"kdrv"
    assert ask(PciOp.MMIO_READ, 0x0004, size=4) == bytes(4)
    assert bus.models["platform1"].state()["content"][4:8] == b"kdrv"
    assert [record.device for record in trace] == ["platform1", "platform1", "platform"]
    with pytest.raises(ProtocolError, match="0x10002000"):
        ask(PciOp.MMIO_READ, 0x2000, size=4)


def test_the_host_s_processor_is_recorded(tmp_path):
    def facts(flags):
        (tmp_path / "cpuinfo").write_text(
            f"processor\t: 0\nmodel name\t: Fast: 9000\nflags\t\t: {flags}\n\nprocessor\t: 1\n"
        )
        return host_cpu(tmp_path / "cpuinfo")

    assert facts("fpu avx").name == "Fast: 9000"
    assert facts("fpu avx") == facts("avx fpu")
    assert facts("fpu avx") != facts("fpu")


def test_a_worker_settles_on_one_processor_of_its_own():
    allowed = sorted(os.sched_getaffinity(0))
    try:
        for number in range(3):
            os.sched_setaffinity(0, allowed)
            settle(number)
            assert os.sched_getaffinity(0) == {allowed[number % len(allowed)]}
    finally:
        os.sched_setaffinity(0, allowed)


def test_a_chain_that_was_overwritten_does_not_go_round_for_ever():
    guest, server = Guest(), VhostServer(None)
    guest.attach(server)
    guest.offer(0, [(DATA, 4), (DATA + 4, 4)], [(DATA + 0x100, 2)])
    to_the_first = DESCRIPTOR.pack(DATA, 4, NEXT, 0)
    server.memory.write(server.queues[0].descriptors, to_the_first * ENTRIES)
    with pytest.raises(Misuse, match="circle"):
        server.pop(0)
