"""What a driver does with its caller's memory: not a byte beyond what was agreed on.

A fence behind a buffer, memory that ends where a page ends, an address where nothing is: it is for
these that ``copy_to_user`` and ``copy_from_user`` check and may fail (include/linux/uaccess.h).
A driver is judged beside what it does with good memory, for it may have no business with any.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdrv.core.errors import WorkFailed
from kdrv.explore.acts import (
    MOST_BYTES,
    PARTING,
    Usage,
    close_file,
    file_of,
    open_file,
    patiently,
    size_of,
)
from kdrv.explore.declare import Call
from kdrv.guest.bodies import Argument, Fill, In, InOut, Outcome, Step, StepFlag

PAGE, ROOM = 4096, 4 * 4096
WRITABLE = mmap.PROT_READ | mmap.PROT_WRITE
END = "kdrv: the end of memory"
"""Where among what is known to the operations of a run the address is kept."""
SIZE = 16
"""How many bytes are read and written: few, for the device may have no more."""
MORE = 1 << 16
"""How many bytes are more than a small device has."""
FENCE = b"\x5a" * 64
ONES = b"\1\0\0\0"
ANSWERS = 2
"""The direction in a request's number that says that the caller gets something (_IOC_READ)."""
_FAULT = -errno.EFAULT


@dataclass(frozen=True)
class _Entry:
    """A system call that takes one piece of memory, among its other arguments."""

    before: tuple[str | int, ...]
    after: tuple[int, ...] = ()

    def step(self, call: Call, memory: Argument) -> Step:
        """The system call, to be made whatever the one before it gave."""
        name, *before = self.before
        arguments: Any = (*before, memory, *self.after)
        return call.guest.begin.step(name, *arguments, flags=StepFlag.ALWAYS)

    def enter(self, call: Call, memory: Argument) -> tuple[int, bytes]:
        """What it gives, or ``-errno``, and what became of a buffer."""
        (done,) = _enter(call, self.step(call, memory))
        return done.result, b"".join(done.buffers)


def _enter(call: Call, *steps: Step) -> list[Outcome]:
    """Make system calls one after the other; each that waits for too long is interrupted."""
    return patiently(call.guest.begin.attempts("calls at the edge", steps), len(steps))


@dataclass(frozen=True)
class _Tries:
    """What a system call gave with a buffer that a fence follows, with one at the end of memory,
    half behind it, all behind it and in memory that cannot be written; and with the first again.
    """

    roomy: int
    buffer: bytes
    tight: int
    half: int
    none: int
    sealed: int
    again: int

    @property
    def works(self) -> bool:
        """Whether nothing but its memory can make it fail."""
        return self.roomy >= 0 and self.again >= 0

    def keep_within(self, size: int, named: str) -> None:
        """No more may be touched than these bytes."""
        fence = self.buffer[size:]
        _must(self.roomy < 0 or fence in (b"", FENCE), f"the driver writes behind {named}")
        _must(
            not (self.works and self.tight == _FAULT),
            f"the driver reaches behind {named}: it fails where memory ends there",
        )


def control_at_edge(call: Call, slot: int, request: int, content: bytes) -> None:
    """ioctl(2) with memory that ends right behind what the request's number names, and before."""
    file, size = file_of(call, slot).fileno(), size_of(request)
    name = f"ioctl {request:#x}"
    entry, given = _Entry(("ioctl", file, request)), content[:size].ljust(size, b"\0")
    if entry.enter(call, InOut(given + FENCE))[0] < 0:
        given = (ONES * size)[:size]
    tries = _try(call, entry, size, InOut(given + FENCE))
    tries.keep_within(size, f"the {size} bytes that the number of {name} names")
    for result in (tries.half, tries.none, tries.sealed):
        _must(
            not (tries.roomy == 0 < result and tries.works),
            f"{name} gives {result} where memory cannot be used, which is no error",
        )
    answers = request >> 30 & ANSWERS and tries.buffer[:size] != given
    _must(
        not (answers and tries.works and 0 in (tries.none, tries.sealed)),
        f"{name} succeeds although there was no memory for its answer",
    )
    # One that differs in nothing but its size, which drivers must not believe.
    large = request | MOST_BYTES << 16
    _Entry(("ioctl", file, large)).enter(call, InOut(b"\x41" * MOST_BYTES))


def read_at_edge(call: Call, slot: int) -> None:
    """read(2) into memory that ends right behind, or before, what was asked for."""
    file = file_of(call, slot).fileno()
    read = _seekable(call, file, "pread64", "read", InOut(bytes(SIZE)))
    tries = _try(call, read, SIZE, InOut(bytes(SIZE) + FENCE))
    tries.keep_within(SIZE, f"the {SIZE} bytes that were asked for")
    came = max(tries.none, tries.sealed)
    _must(came <= 0, f"read says that {came} bytes came, where no memory could take them")
    _must(
        tries.half <= SIZE // 2,
        f"read says that {tries.half} bytes came, where there was memory for {SIZE // 2}",
    )
    _must(
        not (0 in (tries.none, tries.sealed) and min(tries.roomy, tries.again) > 0),
        "read says that there is no more, where there was no memory to read into",
    )
    end = _length(call, file)
    if end and not _pread(call, file, SIZE, end):
        beyond = len(_pread(call, file, MORE, end - 1)) - 1
        _must(beyond <= 0, f"read gives {beyond} bytes behind the end, which is at {end}")


def write_at_edge(call: Call, slot: int) -> None:
    """write(2) from memory that ends right behind, or before, what is to be written."""
    file, data = file_of(call, slot).fileno(), b"\xa5" * SIZE
    write = _seekable(call, file, "pwrite64", "write", In(data))
    stores = _pread(call, file, SIZE, 0) == data
    tries = _try(call, write, SIZE, In(data))
    tries.keep_within(SIZE, f"the {SIZE} bytes that were to be written")
    # Who throws away what is written need not look at it.
    if stores or tries.none == _FAULT:
        _must(tries.none <= 0, f"write says that it took {tries.none} bytes, where no memory was")
        _must(
            tries.half <= SIZE // 2,
            f"write says that it took {tries.half} bytes, of which {SIZE // 2} are there",
        )
    keeps = stores and _keeps_the_rest(call, file, data)
    took, _ = write.enter(call, _end_of_memory(call) - SIZE // 2)
    if keeps and 0 < took <= SIZE // 2:
        kept = _pread(call, file, SIZE, 0)[took:] == data[took:]
        _must(kept, f"write says that it took {took} bytes, and has changed more")
    for at in (0, max(0, _length(call, file) - 1)):
        _Entry(("pwrite64", file), (MORE, at)).enter(call, In(b"\xa5" * MORE))


def _keeps_the_rest(call: Call, file: int, data: bytes) -> bool:
    """Whether a short write leaves what stands behind it alone; ``data`` stands there in the end.

    There are files that a write fills anew.
    """
    half = len(data) // 2
    _Entry(("pwrite64", file), (half, 0)).enter(call, In(bytes(half)))
    kept = _pread(call, file, len(data), 0)[half:] == data[half:]
    _Entry(("pwrite64", file), (len(data), 0)).enter(call, In(data))
    return kept and _pread(call, file, len(data), 0) == data


def at_the_edge(path: str, requests: Mapping[int, bytes]) -> Usage:
    """All of that, to one file."""
    file = {"slot": PARTING}
    yield open_file, {"path": path, "flags": os.O_RDWR, **file}
    for request, content in requests.items():
        if size_of(request):
            yield control_at_edge, {**file, "request": request, "content": content}
    yield read_at_edge, file
    yield write_at_edge, file
    yield close_file, file


def _seekable(call: Call, file: int, there: str, here: str, memory: Argument) -> _Entry:
    """A transfer at the beginning of a file, or of a stream where it is one."""
    entry = _Entry((there, file), (SIZE, 0))
    if entry.enter(call, memory)[0] == -errno.ESPIPE:
        return _Entry((here, file), (SIZE,))
    return entry


def _pread(call: Call, file: int, size: int, offset: int) -> bytes:
    """What is there; nothing where nothing can be read."""
    count, buffer = _Entry(("pread64", file), (size, offset)).enter(call, Fill(size))
    return buffer[: max(0, count)]


def _length(call: Call, file: int) -> int:
    """How many bytes can be read at once."""
    return len(_pread(call, file, MORE, 0))


def _try(call: Call, entry: _Entry, size: int, room: In | InOut) -> _Tries:
    begin, end = call.guest.begin, _end_of_memory(call)

    def seal(prot: int) -> Step:
        return begin.step("mprotect", end - ROOM, ROOM, prot, flags=StepFlag.ALWAYS)

    begin.poke(end - size, room.data[:size], 1).result()
    memory: tuple[Argument, ...] = (room, end - size, end - size // 2, end)
    roomy, tight, half, none = _enter(call, *(entry.step(call, one) for one in memory))
    begin.poke(end - size, room.data[:size], 1).result()
    sealed, again = entry.step(call, end - size), entry.step(call, room)
    _, stopped, _, last = _enter(call, seal(mmap.PROT_READ), sealed, seal(WRITABLE), again)
    buffer = b"".join(roomy.buffers)
    results = (one.result for one in (tight, half, none, stopped, last))
    return _Tries(roomy.result, buffer, *results)


def _end_of_memory(call: Call) -> int:
    """The address of a page that is not there, right behind room that is."""
    begin = call.guest.begin
    if END not in call.memory:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        start = begin.syscall("mmap", 0, ROOM + PAGE, WRITABLE, flags, -1, 0).result().result
        begin.munmap(start + ROOM, PAGE).result()
        call.memory[END] = start + ROOM
    end: int = call.memory[END]
    return end


def _must(condition: bool, words: str) -> None:
    if not condition:
        raise WorkFailed(words)
