"""What messages say: system calls, memory, programs, greetings, inspections.

Pure as :mod:`kdrv.guest.wire`: bytes in, values out; what cannot be decoded is a ``WireError``.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntFlag

from kdrv.guest.wire import DATA, WireError


class StepFlag(IntFlag):
    """How a system call stands among the others of its request."""

    NONE = 0
    ALWAYS = 1
    FULLY = 2


class ProgramFlag(IntFlag):
    """How a program ended, besides its status."""

    TIMED_OUT = 1
    TRUNCATED = 2


class Cursor:
    """Reads numbers and blocks off bytes; raises :class:`WireError` at their end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        if size > len(self._data) - self._at:
            raise WireError(f"{size} bytes at {self._at} of {len(self._data)}")
        self._at += size
        return self._data[self._at - size : self._at]

    def numbers(self, layout: str) -> tuple[int, ...]:
        """The next numbers, in ``struct`` notation without byte order."""
        packed = struct.Struct("<" + layout)
        return packed.unpack(self.take(packed.size))

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data) - self._at)


# System calls


@dataclass(frozen=True)
class In:
    """A pointer to these bytes."""

    data: bytes


@dataclass(frozen=True)
class Out:
    """A pointer to ``size`` bytes of room, given back whole."""

    size: int


@dataclass(frozen=True)
class Fill:
    """A pointer to ``size`` bytes of room; as many come back as the call's result says."""

    size: int


@dataclass(frozen=True)
class InOut:
    """A pointer to these bytes, given back afterwards."""

    data: bytes


@dataclass(frozen=True)
class Result:
    """The result of an earlier call of the same request."""

    index: int


Argument = int | In | Out | Fill | InOut | Result


@dataclass(frozen=True)
class Step:
    """One system call of a request: its number on the guest's architecture, its arguments."""

    number: int
    args: tuple[Argument, ...]
    flags: StepFlag = StepFlag.NONE


@dataclass(frozen=True)
class Outcome:
    """What a system call gave: its result (or ``-errno``) and its buffers that came back."""

    result: int
    buffers: tuple[bytes, ...]


def _size(argument: Argument) -> int:
    """How many bytes the argument points to."""
    match argument:
        case In(data) | InOut(data):
            return len(data)
        case Out(size) | Fill(size):
            return size
        case _:
            return 0


def _encode_argument(argument: Argument) -> bytes:
    size = _size(argument)
    if size > DATA:
        raise ValueError(f"a buffer of {size} bytes; one call carries at most {DATA}")
    match argument:
        case In(data):
            return struct.pack("<BQ", 1, len(data)) + data
        case Out(size):
            return struct.pack("<BQ", 2, size)
        case Fill(size):
            return struct.pack("<BQ", 3, size)
        case InOut(data):
            return struct.pack("<BQ", 4, len(data)) + data
        case Result(index):
            return struct.pack("<BQ", 5, index)
        case _:
            return struct.pack("<BQ", 0, argument & (1 << 64) - 1)


def encode_calls(steps: Sequence[Step]) -> bytes:
    """The body of a :attr:`Kind.CALL`."""
    parts = [struct.pack("<I", len(steps))]
    for step in steps:
        parts.append(struct.pack("<IBB", step.number & 0xFFFFFFFF, int(step.flags), len(step.args)))
        parts += map(_encode_argument, step.args)
    return b"".join(parts)


def decode_outcomes(steps: Sequence[Step], body: bytes) -> list[Outcome]:
    """The answer to :func:`encode_calls` of the same steps. Raises :class:`WireError`."""
    cursor = Cursor(body)
    results = cursor.numbers(f"{len(steps)}q")
    outcomes = []
    for step, result in zip(steps, results, strict=True):
        buffers = []
        for argument in step.args:
            if isinstance(argument, Out | Fill | InOut):
                (size,) = cursor.numbers("Q")
                buffers.append(cursor.take(size))
                cursor.take(-size % 8)
        outcomes.append(Outcome(result, tuple(buffers)))
    return outcomes


# Memory, programs, greetings, inspections


def encode_peek(address: int, size: int, width: int) -> bytes:
    """The body of a :attr:`Kind.PEEK`."""
    return struct.pack("<QIQ", address, width, size)


def encode_poke(address: int, data: bytes, width: int) -> bytes:
    """The body of a :attr:`Kind.POKE`."""
    return struct.pack("<QI", address, width) + data


def decode_result(body: bytes) -> tuple[int, bytes]:
    """The result at the head of an answer, and what follows it."""
    cursor = Cursor(body)
    (result,) = cursor.numbers("q")
    return result, cursor.rest()


def _text(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data + b"\0"


def encode_run(
    argv: Sequence[bytes], env: Sequence[bytes], cwd: bytes, timeout: float, limit: int
) -> bytes:
    """The body of a :attr:`Kind.RUN`; ``timeout`` in seconds, ``limit`` of the output in bytes."""
    parts = [struct.pack("<II", min(int(timeout * 1000), 0x7FFFFFFF), limit), _text(cwd)]
    for words in (argv, env):
        parts.append(struct.pack("<I", len(words)))
        parts += map(_text, words)
    return b"".join(parts)


@dataclass(frozen=True)
class ProgramEnd:
    """How a program ended: ``error`` (0, or why it did not start), wait status, output."""

    error: int
    status: int
    flags: ProgramFlag
    output: bytes


def decode_run(body: bytes) -> ProgramEnd:
    """The answer to :func:`encode_run`. Raises :class:`WireError`."""
    cursor = Cursor(body)
    result, status, flags = cursor.numbers("qII")
    return ProgramEnd(-result, status, ProgramFlag(flags & 3), cursor.rest())


@dataclass(frozen=True)
class Hello:
    """What the agent says of itself when the channel opens.

    ``machine``, ``release`` and ``kernel`` (its version) are those of ``uname(2)``.
    """

    version: int
    machine: str
    release: str
    kernel: str


def decode_hello(body: bytes) -> Hello:
    """The body of a :attr:`Kind.HELLO`. Raises :class:`WireError`."""
    cursor = Cursor(body)
    version = cursor.numbers("qIIII")[1]
    words = cursor.rest().decode(errors="replace").split("\0")
    if len(words) < 4:
        raise WireError(f"a hello of {len(words)} words")
    return Hello(version, *words[:3])


@dataclass(frozen=True)
class Inspection:
    """What a session's worker is doing, as ``/proc/PID`` says.

    ``step`` is the index of the system call in its request; ``busy`` whether it has one at all.
    """

    pid: int
    call: int
    step: int
    busy: bool
    stat: str
    syscall: str
    wchan: str
    stack: tuple[str, ...]

    @property
    def state(self) -> str:
        """The letter of ``ps``: R, S, D, Z; empty when there is no process."""
        return self._fields()[0] if self._fields() else ""

    @property
    def cpu(self) -> int | None:
        """The processor it last ran on (field 39 of ``/proc/PID/stat``)."""
        fields = self._fields()
        return int(fields[36]) if len(fields) > 36 and fields[36].isdecimal() else None

    def _fields(self) -> list[str]:
        """The fields after the name, which may contain anything."""
        return self.stat.rpartition(")")[2].split()


def decode_inspection(body: bytes) -> Inspection:
    """The answer to an :attr:`Kind.INSPECT`. Raises :class:`WireError`."""
    cursor = Cursor(body)
    _, pid, call, step, busy = cursor.numbers("qIIII")
    texts = [cursor.take(cursor.numbers("I")[0]).decode(errors="replace") for _ in range(4)]
    stat, syscall, wchan, stack = texts
    return Inspection(
        pid, call, step, bool(busy), stat, syscall.strip(), wchan, tuple(stack.splitlines())
    )
