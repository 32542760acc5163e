"""A channel over a socket, the agent as an ordinary program here, and a fake of it."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kdrv.guest import bodies, wire
from kdrv.guest.wire import Kind, Message
from kdrv.machine.contract import MachineEnded

AGENT = Path(__file__).parents[2] / "kdrv" / "guest" / "agent.c"
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


class SocketChannel:
    """A :class:`kdrv.machine.contract.Channel` over a stream socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def send(self, data: bytes) -> None:
        self._sock.settimeout(30)
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise MachineEnded("the socket closed", -9) from error

    def receive(self, timeout: float) -> bytes:
        self._sock.settimeout(max(timeout, 1e-6))
        try:
            data = self._sock.recv(1 << 18)
        except (TimeoutError, BlockingIOError):
            return b""
        except OSError as error:
            raise MachineEnded("the socket broke", -9) from error
        if not data:
            raise MachineEnded("the socket closed", 0)
        return data


def compile_agent(directory: Path) -> Path | None:
    """The agent built by this machine's compiler, with sanitizers if it has them."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    program = directory / "agent"
    for extra in (SANITIZE, ()):
        argv = [compiler, "-Wall", "-Wextra", "-Werror", "-g", *extra, "-o", program, AGENT]
        if subprocess.run(argv, capture_output=True).returncode == 0:
            return program
    return None


@contextmanager
def native_agent(program: Path) -> Iterator[tuple[socket.socket, subprocess.Popen[bytes]]]:
    """Run the agent on one end of a socket pair; gives the other end, and the process."""
    ours, theirs = socket.socketpair()
    environment = {"kdrv_agent": f"fd:{theirs.fileno()}", "ASAN_OPTIONS": "detect_leaks=0"}
    child = subprocess.Popen(
        [program],
        env={**os.environ, **environment},
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
    )
    theirs.close()
    try:
        yield ours, child
    finally:
        ours.close()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            raise


@dataclass
class Call:
    """A system call as the fake agent is asked for it; pointers are what they point to."""

    number: int
    args: list[int | bytes]
    outs: list[int]


def decode_calls(body: bytes) -> list[Call]:
    """What ``bodies.encode_calls`` encoded; a buffer to fill is its size."""
    cursor = bodies.Cursor(body)
    (count,) = cursor.numbers("I")
    calls = []
    for _ in range(count):
        number, _, arguments = cursor.numbers("IBB")
        call = Call(number, [], [])
        for index in range(arguments):
            kind, value = cursor.numbers("BQ")
            call.args.append(cursor.take(value) if kind in (1, 4) else value)
            if kind in (2, 3, 4):
                call.outs.append(index)
        calls.append(call)
    return calls


def outcome(*results: int, buffers: Sequence[bytes] = ()) -> bytes:
    """The body of an answer to system calls."""
    body = struct.pack(f"<{len(results)}q", *results)
    for data in buffers:
        body += struct.pack("<Q", len(data)) + data + bytes(-len(data) % 8)
    return body


HELLO = struct.pack("<qIIII", 0, wire.VERSION, wire.CHUNK, wire.MESSAGE, wire.SESSIONS)


@dataclass
class FakeAgent:
    """An agent and its channel in this process, with a clock of its own.

    ``answer`` makes a message's replies; a message it gives None for is never answered. Waiting
    costs no time but lets ``now`` go on.
    """

    answer: Callable[[Message], Message | None]
    machine: str = "x86_64"
    now: float = 0.0
    ended: MachineEnded | None = None
    greets: bool = True
    heard: list[Message] = field(default_factory=list)
    _decoder: wire.Decoder = field(default_factory=wire.Decoder)
    _outgoing: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        if self.greets:
            words = f"{self.machine}\0007.3.4\0#1\0".encode()
            self._outgoing += wire.encode(Message(Kind.HELLO, 0, 0, HELLO + words))

    def clock(self) -> float:
        return self.now

    def say(self, message: Message) -> None:
        self._outgoing += wire.encode(message)

    def send(self, data: bytes) -> None:
        if self.ended:
            raise self.ended
        for message in self._decoder.feed(data):
            self.heard.append(message)
            reply = self.answer(message)
            if reply:
                self.say(reply)

    def receive(self, timeout: float) -> bytes:
        if self._outgoing:
            data = bytes(self._outgoing[:7])  # in small pieces, as a stream may come
            del self._outgoing[:7]
            return data
        if self.ended:
            raise self.ended
        self.now += timeout
        return b""
