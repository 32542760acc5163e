"""The agent itself, as an ordinary program here, under sanitizers where there are any."""

from __future__ import annotations

import errno
import mmap
import os
import random
import select
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from kdrv.core.errors import DeadlineExceeded
from kdrv.guest import bodies, wire
from kdrv.guest.errors import GuestCallDied, GuestGone, GuestSilent
from kdrv.guest.session import Guest
from kdrv.guest.wire import Kind, Message
from tests.fast.guest_fakes import SocketChannel, compile_agent, native_agent


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = compile_agent(tmp_path_factory.mktemp("agent"))
    if built is None:
        pytest.skip("no C compiler on this machine")
    return built


@pytest.fixture
def agent(program: Path) -> Iterator[tuple[socket.socket, subprocess.Popen[bytes]]]:
    with native_agent(program) as running:
        yield running


@pytest.fixture
def channel(agent: tuple[socket.socket, subprocess.Popen[bytes]]) -> SocketChannel:
    return SocketChannel(agent[0])


@pytest.fixture
def guest(channel: SocketChannel) -> Guest:
    return Guest(channel)


def test_files(guest: Guest, tmp_path: Path) -> None:
    path = str(tmp_path / "größe")
    with guest.open(path, os.O_RDWR | os.O_CREAT) as file:
        assert file.write(b"hello world") == 11
        assert file.pread(5, 6) == b"world"
        assert file.pwrite(b"W", 6) == 1
        assert file.seek(0) == 0
        assert file.read(100) == b"hello World"
        assert file.read(100) == b""
        file.fsync()
        with file.dup() as other:
            assert other.fileno() != file.fileno()
            assert other.seek(0, os.SEEK_CUR) == 11
    assert file.closed
    with pytest.raises(ValueError, match="closed"):
        file.read(1)
    assert Path(path).read_bytes() == b"hello World"


def test_files_by_name(guest: Guest, tmp_path: Path) -> None:
    base = str(tmp_path)
    guest.mkdir(f"{base}/d", 0o700)
    guest.write_text(f"{base}/d/f", "text")
    guest.write_text(f"{base}/d/f", "te")
    assert guest.read_text(f"{base}/d/f") == "te"
    guest.symlink("d/f", f"{base}/l")
    assert guest.readlink(f"{base}/l") == "d/f"
    assert guest.stat(f"{base}/l").st_size == 2
    assert guest.stat(f"{base}/l", follow=False).st_size == 3
    guest.mknod(f"{base}/p", 0o010600)
    guest.rename(f"{base}/p", f"{base}/q")
    assert guest.listdir(base) == ["d", "l", "q"]
    assert guest.exists(f"{base}/q")
    guest.unlink(f"{base}/q")
    assert not guest.exists(f"{base}/q")
    assert not guest.exists(f"{base}/d/f/below")
    guest.unlink(f"{base}/d/f")
    guest.rmdir(f"{base}/d")
    assert not guest.exists(f"{base}/l")
    with pytest.raises(FileNotFoundError):
        guest.listdir(f"{base}/d")
    assert guest.stat(base).st_ino == tmp_path.stat().st_ino


def test_paths_of_bytes(guest: Guest, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff"
    guest.write_bytes(path, b"x")
    assert guest.listdir(os.fsencode(tmp_path)) == ["\udcff"]


@pytest.mark.parametrize("size", [0, 1, 32743, 32752, 65535, 65536, (1 << 20) + 1, 5 << 20])
def test_large_files_go_both_ways(guest: Guest, tmp_path: Path, size: int) -> None:
    path = str(tmp_path / "large")
    data = random.Random(size).randbytes(size)
    guest.write_bytes(path, data, 0o640)
    assert Path(path).read_bytes() == data
    assert guest.stat(path).st_mode & 0o777 == 0o640
    assert guest.read_bytes(path) == data


def test_the_most_that_one_call_carries(guest: Guest, tmp_path: Path) -> None:
    data = bytes(wire.DATA)
    with guest.open(str(tmp_path / "f"), os.O_RDWR | os.O_CREAT) as file:
        assert file.write(data) == wire.DATA
        assert file.pread(wire.DATA, 0) == data


def test_a_buffer_never_shows_what_was_read_before(guest: Guest, tmp_path: Path) -> None:
    path = str(tmp_path / "f")
    guest.write_bytes(path, b"secret" * 100)
    assert guest.read_bytes(path).startswith(b"secret")
    (buffer,) = guest.begin.syscall("getpid", bodies.Out(600)).result().buffers
    assert buffer == bytes(600)


def test_ioctl_with_bytes_and_numbers(guest: Guest, tmp_path: Path) -> None:
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    fionread, fionbio = 0x541B, 0x5421
    with guest.open(path) as pipe:
        pipe.write(b"1234567")
        assert pipe.ioctl(fionread, bytes(4)) == struct.pack("<i", 7)
        assert pipe.ioctl(fionbio, struct.pack("<i", 1)) == struct.pack("<i", 1)
        assert pipe.poll(select.POLLIN | select.POLLOUT, 0) == select.POLLIN | select.POLLOUT
        pipe.read(7)
        assert pipe.poll(select.POLLIN, 5) == 0
        with pytest.raises(BlockingIOError):
            pipe.read(1)
        with pytest.raises(OSError, match="ioctl") as caught:
            pipe.ioctl(0x12345678)
        assert caught.value.errno == errno.ENOTTY


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_a_mapping_is_the_file(guest: Guest, tmp_path: Path, width: int) -> None:
    path = tmp_path / "mapped"
    path.write_bytes(bytes(range(256)) * 16)
    with guest.open(str(path)) as file, file.mmap(4096) as mapping:
        assert mapping.read(8, 64, width) == bytes(range(8, 72))
        mapping.write(16, b"abcdefgh", width)
        with pytest.raises(ValueError, match="of a mapping"):
            mapping.read(4096, 8, 8)
        with pytest.raises(ValueError, match="no accesses"):
            mapping.read(1, 2, 4)
    with pytest.raises(ValueError, match="closed"):
        mapping.read(0, 8, 8)
    assert path.read_bytes()[16:24] == b"abcdefgh"
    with pytest.raises(PermissionError), guest.open(str(path), os.O_RDONLY) as file:
        file.mmap(4096, mmap.PROT_WRITE)


def test_memory_for_calls_that_take_addresses(guest: Guest, tmp_path: Path) -> None:
    with guest.memory(4096) as memory:
        memory.write(100, b"by address")
        fd = guest.begin.open(str(tmp_path / "f"), os.O_CREAT | os.O_RDWR).result()
        guest.begin.syscall("write", fd, memory.address + 100, 10).result()
        guest.begin.close(fd).result()
    assert (tmp_path / "f").read_bytes() == b"by address"


def test_programs(guest: Guest, tmp_path: Path) -> None:
    program = guest.shell("echo out; echo err >&2; exit 3")
    assert (program.status, program.output) == (3, "out\nerr\n")
    program = guest.run(["sh", "-c", "pwd; echo $A $PATH"], env={"A": "ä b"}, cwd=str(tmp_path))
    assert program.output == f"{tmp_path}\nä b /bin:/sbin:/usr/bin:/usr/sbin\n"
    assert guest.shell("kill -SEGV $$").status == -signal.SIGSEGV
    program = guest.run(["head", "-c", "300000", "/dev/zero"], limit=1000)
    assert (program.output, program.truncated) == ("\0" * 1000, True)
    with pytest.raises(FileNotFoundError):
        guest.run(["/no/such/program"])
    with pytest.raises(NotADirectoryError):
        guest.run(["true"], cwd="/dev/null")


def test_programs_that_do_not_end_are_ended(guest: Guest, tmp_path: Path) -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        guest.shell(f"echo begun; sleep 60 & echo $! > {tmp_path}/pid; wait", timeout=0.3)
    assert caught.value.detail == ("begun",)
    child = int((tmp_path / "pid").read_text())
    for _ in range(200):
        if not Path(f"/proc/{child}").exists() or " Z " in Path(f"/proc/{child}/stat").read_text():
            break
        select.select([], [], [], 0.01)
    else:
        pytest.fail("a child of the program lives on")
    with pytest.raises(DeadlineExceeded):
        guest.run(["yes"], timeout=0.2, limit=100)


def test_a_program_may_leave_another_behind(guest: Guest) -> None:
    program = guest.shell("sleep 1 & echo started")
    assert (program.status, program.output) == (0, "started\n")


def test_programs_inherit_nothing(guest: Guest, tmp_path: Path) -> None:
    with guest.open(str(tmp_path / "f"), os.O_CREAT | os.O_RDWR):
        listed = guest.shell("ls /proc/self/fd").output.split()
    assert set(listed) <= {"0", "1", "2", "3"}  # 3 is what ls reads the directory by


def test_a_call_that_hangs_is_seen_interrupted_or_given_up(guest: Guest, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with guest.open(str(tmp_path / "pipe")) as pipe:
        call = guest.begin.read(pipe, 1)
        with pytest.raises(GuestSilent) as caught:
            call.result(timeout=0.1)
        assert caught.value.inspection is not None
        assert caught.value.inspection.busy
        call.interrupt()
        with pytest.raises(InterruptedError):
            call.result()
        first = guest.begin.getpid().result()
        with pytest.raises(GuestSilent):
            pipe.read(1, timeout=0.1)
        assert guest.begin.getpid().result() != first
        assert pipe.write(b"still open") == 10


def test_sessions_work_side_by_side(guest: Guest, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with guest.open(str(tmp_path / "pipe")) as pipe, guest.session() as other:
        reading = other.begin.read(pipe, 10)
        assert not reading.done()
        assert pipe.write(b"across") == 6
        assert reading.result() == b"across"


def test_many_sessions(guest: Guest) -> None:
    with ExitStack() as stack:
        sessions = [stack.enter_context(guest.session()) for _ in range(64)]
        calls = [session.begin.getpid() for session in sessions]
        assert len({call.result() for call in calls}) == 64
    with guest.session() as again:
        assert again.number == 1


def test_a_process_that_dies_is_replaced_and_files_stay(guest: Guest, tmp_path: Path) -> None:
    with guest.open(str(tmp_path / "f"), os.O_CREAT | os.O_RDWR) as file:
        pid = guest.begin.getpid().result()
        call = guest.begin.sleep(60)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(GuestCallDied) as caught:
            call.result()
        assert caught.value.signal == signal.SIGKILL
        assert guest.begin.getpid().result() != pid
        assert file.write(b"x") == 1


def test_a_process_that_dies_idle_is_replaced_without_a_word(guest: Guest) -> None:
    pid = guest.begin.getpid().result()
    os.kill(pid, signal.SIGKILL)
    for _ in range(200):
        if guest.inspect() and not guest.inspect().pid:  # type: ignore[union-attr]
            break
        select.select([], [], [], 0.01)
    assert guest.begin.getpid().result() != pid


def test_an_agent_that_is_killed_is_gone(
    agent: tuple[socket.socket, subprocess.Popen[bytes]], guest: Guest
) -> None:
    call = guest.begin.sleep(60)
    agent[1].kill()
    with pytest.raises(GuestGone):
        call.result()


def test_the_end_of_the_channel_is_the_end_of_all_processes(program: Path) -> None:
    with native_agent(program) as (ours, _):
        guest = Guest(SocketChannel(ours))
        pid = guest.begin.getpid().result()
        guest.begin.sleep(60)
    for _ in range(200):
        if not Path(f"/proc/{pid}").exists() or ") Z" in Path(f"/proc/{pid}/stat").read_text():
            return
        select.select([], [], [], 0.01)
    pytest.fail("a session's process lives on")


def refused(channel: SocketChannel, data: bytes, call: int) -> int:
    """Send raw bytes; the error that the agent refuses ``call`` with."""
    channel.send(data)
    decoder = wire.Decoder()
    for _ in range(100):
        for message in decoder.feed(channel.receive(0.1)):
            if message.call == call and message.kind == Kind.REFUSED:
                return -bodies.decode_result(message.body)[0]
    raise AssertionError("not refused")


def frames(kind: int, session: int = 0, body: bytes = b"") -> bytes:
    return wire.encode(Message(kind, session, 99, body))


def test_what_the_agent_refuses(channel: SocketChannel) -> None:
    Guest(channel)
    assert refused(channel, frames(77), 99) == errno.ENOSYS
    assert refused(channel, frames(Kind.CALL, 5), 99) == errno.ESRCH
    assert refused(channel, frames(Kind.PING, 60000), 99) == errno.ESRCH
    assert refused(channel, frames(Kind.CALL, body=b"\xff" * 9), 99) == errno.EBADMSG
    assert refused(channel, frames(Kind.RUN, body=bytes(8)), 99) == errno.EBADMSG
    assert refused(channel, frames(Kind.PEEK, body=bytes(19)), 99) == errno.EBADMSG
    assert refused(channel, frames(Kind.PEEK, body=struct.pack("<QIQ", 0, 3, 9)), 99) == (
        errno.EBADMSG
    )
    assert refused(channel, b"this is no frame at all", 0) == errno.EBADMSG
    sleep = bodies.encode_calls([bodies.Step(7, (0, 0, 60000))])  # poll() of nothing
    channel.send(wire.encode(Message(Kind.CALL, 0, 98, sleep)))
    assert refused(channel, frames(Kind.CALL, body=sleep), 99) == errno.EBUSY


def test_messages_that_break_the_rules_of_parts(channel: SocketChannel) -> None:
    Guest(channel)
    whole = frames(Kind.CALL, body=bytes(3 * wire.CHUNK))
    size = wire.CHUNK + 16
    assert refused(channel, whole[:size] + whole[2 * size :], 99) == errno.EBADMSG
    endless = bytearray(whole[:size])
    parts = [bytes(endless)]
    for part in range(1, wire.MESSAGE // wire.CHUNK + 2):
        struct.pack_into("<H", endless, 6, part)
        parts.append(bytes(endless))
    assert refused(channel, b"".join(parts), 99) == errno.EMSGSIZE
    channel.send(frames(Kind.GREET))
    assert Guest(channel).uname().sysname == "Linux"


def fuzzed(rnd: random.Random) -> bytes:
    """A frame that is nearly right, or not at all. System calls are harmless: getpid, lseek."""
    body = struct.pack("<I", rnd.choice([0, 1, 2, 3, 1 << 20, 0xFFFFFFFF]))
    for _ in range(rnd.randrange(4)):
        body += struct.pack("<IBB", rnd.choice([39, 8]), rnd.randrange(4), rnd.randrange(8))
        for _ in range(rnd.randrange(7)):
            value = rnd.choice([0, 1, 5, 100, 1 << 40, 4 << 20, 1 << 63, (1 << 64) - 1])
            body += struct.pack("<BQ", rnd.randrange(7), value) + rnd.randbytes(rnd.randrange(8))
    kind = rnd.choice([Kind.CALL, Kind.CALL, Kind.INSPECT, Kind.GO, Kind.PING, Kind.RESET, 20, 255])
    body = rnd.choice([body, rnd.randbytes(rnd.randrange(60))])
    call = rnd.randrange(1 << 31)
    frame = bytearray(wire.encode(Message(kind, rnd.choice([0, 0, 1, 300]), call, body)))
    if rnd.random() < 0.3:
        frame[rnd.randrange(16)] ^= 1 << rnd.randrange(8)
    return bytes(frame) if rnd.random() < 0.9 else rnd.randbytes(rnd.randrange(100))


@pytest.mark.parametrize("seed", range(3))
def test_no_bytes_hurt_the_agent(
    agent: tuple[socket.socket, subprocess.Popen[bytes]], channel: SocketChannel, seed: int
) -> None:
    rnd = random.Random(seed)
    for _ in range(40):
        channel.send(b"".join(fuzzed(rnd) for _ in range(10)))
        channel.receive(0.0)
    channel.send(bytes(70000))  # the end of any frame that is still open
    while channel.receive(0.2):
        pass
    assert agent[1].poll() is None
    channel.send(wire.encode(Message(Kind.GREET, 0, 0)))
    guest = Guest(channel)
    guest.reset()
    assert guest.uname().sysname == "Linux"
