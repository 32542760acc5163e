"""What is said of drivers that are careless with their caller's memory: no kernel needed."""

from __future__ import annotations

import errno
import mmap
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from kdrv.core.errors import WorkFailed
from kdrv.explore.acts import PARTING
from kdrv.explore.edges import (
    ROOM,
    at_the_edge,
    control_at_edge,
    read_at_edge,
    write_at_edge,
)
from kdrv.guest.bodies import Fill, In, InOut, Outcome, StepFlag

START = 0x10000
ASK = 2 << 30 | 8 << 16 | ord("k") << 8
ASK_AND_TELL = ASK | 1 << 30


class Fault(Exception):
    """Memory that is not there, as copy_to_user() and copy_from_user() find it."""


@dataclass
class Memory:
    """A caller's memory: what is at an address, and whether it can be written."""

    at: int
    data: bytearray
    sealed: bool = False

    def put(self, data: bytes) -> int:
        """copy_to_user(): how much could not be copied."""
        there = 0 if self.sealed else min(len(data), len(self.data))
        self.data[:there] = data[:there]
        return len(data) - there

    def get(self, size: int) -> tuple[bytes, int]:
        """copy_from_user(), with the rest as zeros, as the kernel has it."""
        found = bytes(self.data[:size])
        return found.ljust(size, b"\0"), size - len(found)


class Driver:
    """A store of 64 bytes, and two requests, all done as they should be."""

    def __init__(self) -> None:
        self.store = bytearray(64)

    def read(self, memory: Memory, size: int, at: int) -> int:
        piece = bytes(self.store[at : at + size])
        left = memory.put(piece)
        return len(piece) - left if left < len(piece) or not piece else -errno.EFAULT

    def write(self, memory: Memory, size: int, at: int) -> int:
        size = min(size, len(self.store) - at)
        data, left = memory.get(size)
        if left == size:
            return -errno.EFAULT
        self.store[at : at + size - left] = data[: size - left]
        return size - left

    def ioctl(self, request: int, memory: Memory) -> int:
        if request == ASK:
            return -errno.EFAULT if memory.put(b"answered") else 0
        if request == ASK_AND_TELL:
            given, left = memory.get(8)
            if left:
                return -errno.EFAULT
            if given[0] != 1:
                return -errno.EINVAL
            return -errno.EFAULT if memory.put(b"answered") else 0
        return -errno.ENOTTY


@dataclass
class Done:
    """A call that has its result."""

    value: Any

    def arrives(self, timeout: float) -> bool:
        return True

    def result(self) -> Any:
        return self.value


@dataclass
class Begin:
    """A process that has memory from START on, and an open file of the driver."""

    driver: Driver
    streams: bool = False
    page: bytearray = field(default_factory=lambda: bytearray(ROOM))
    sealed: bool = False

    def syscall(self, name: str, *args: Any) -> Done:
        return Done(self.make(name, args))

    def step(self, name: str, *args: Any, flags: Any) -> tuple[str, tuple[Any, ...]]:
        assert flags is StepFlag.ALWAYS
        return name, args

    def attempts(self, what: str, steps: Any) -> Done:
        return Done([self.make(*step) for step in steps])

    def make(self, name: str, args: tuple[Any, ...]) -> Outcome:
        if name == "mmap":
            return Outcome(START, ())
        if name == "mprotect":
            self.sealed = args[2] == mmap.PROT_READ
            return Outcome(0, ())
        asked = args[2] if name == "ioctl" else args[1]
        memory = self.memory(asked)
        if name == "ioctl":
            result = self.driver.ioctl(args[1], memory)
        elif name.endswith("64") and self.streams:
            result = -errno.ESPIPE
        else:
            act = self.driver.read if "read" in name else self.driver.write
            result = act(memory, args[2], args[3] if name.endswith("64") else 0)
        if isinstance(asked, int):
            self.page[asked - START :] = memory.data
        data = bytes(memory.data)
        return Outcome(result, (data,) if isinstance(asked, InOut | Fill) else ())

    def memory(self, argument: Any) -> Memory:
        match argument:
            case In(data) | InOut(data):
                return Memory(0, bytearray(data))
            case Fill(size):
                return Memory(0, bytearray(size))
        return Memory(argument, self.page[argument - START :], self.sealed)

    def poke(self, address: int, data: bytes, width: int) -> Done:
        self.page[address - START : address - START + len(data)] = data
        return Done(None)

    def munmap(self, address: int, length: int) -> Done:
        return Done(None)


def call(driver: Driver, *, streams: bool = False) -> Any:
    """What an operation gets, with the driver's file open."""
    guest = SimpleNamespace(begin=Begin(driver, streams))
    file = SimpleNamespace(fileno=lambda: 3)
    return SimpleNamespace(guest=guest, files={PARTING: file}, memory={})


def use(driver: Driver, *, streams: bool = False) -> None:
    """All that is done to a file."""
    there = call(driver, streams=streams)
    requests = {ASK: b"", ASK_AND_TELL: b"\1", 0x5401: b""}
    for act, arguments in at_the_edge("/dev/x", requests):
        if act in (control_at_edge, read_at_edge, write_at_edge):
            act(there, **arguments)


@pytest.mark.parametrize("streams", [False, True])
def test_a_driver_that_copies_as_it_should_is_left_alone(streams: bool) -> None:
    use(Driver(), streams=streams)


def test_requests_without_a_size_are_left_alone() -> None:
    asked = [more.get("request") for _, more in at_the_edge("/dev/x", {0x5401: b"", ASK: b""})]
    assert ASK in asked
    assert 0x5401 not in asked


class AnswersMore(Driver):
    def ioctl(self, request: int, memory: Memory) -> int:
        return -errno.EFAULT if request == ASK and memory.put(b"answered and more") else 0


class AsksMore(Driver):
    def ioctl(self, request: int, memory: Memory) -> int:
        _, left = memory.get(12)
        return -errno.EFAULT if left else super().ioctl(request, memory)


class GivesWhatIsLeft(Driver):
    def ioctl(self, request: int, memory: Memory) -> int:
        return memory.put(b"answered") if request == ASK else -errno.ENOTTY


class GivesWhatIsLeftOfAnAnswer(Driver):
    def ioctl(self, request: int, memory: Memory) -> int:
        given, left = memory.get(8)
        if left or request != ASK_AND_TELL:
            return -errno.EFAULT
        return memory.put(b"answered") if given[0] == 1 else -errno.EINVAL


class IgnoresFaults(Driver):
    def ioctl(self, request: int, memory: Memory) -> int:
        memory.put(b"answered")
        return 0


class ReadsMore(Driver):
    def read(self, memory: Memory, size: int, at: int) -> int:
        return super().read(memory, size + 4, at)


class ReadsIntoNothing(Driver):
    def read(self, memory: Memory, size: int, at: int) -> int:
        memory.put(self.store[at : at + size])
        return min(size, len(self.store) - at)


class CallsAFaultTheEnd(Driver):
    def read(self, memory: Memory, size: int, at: int) -> int:
        return max(0, super().read(memory, size, at))


class ReadsBehindTheEnd(Driver):
    def read(self, memory: Memory, size: int, at: int) -> int:
        self.store, kept = bytearray(96 if 0 < at < 64 else 64), self.store
        self.store[: len(kept)] = kept
        return super().read(memory, size, at)


class TakesNothing(Driver):
    def write(self, memory: Memory, size: int, at: int) -> int:
        size = min(size, len(self.store) - at)
        self.store[at : at + size] = memory.get(size)[0]
        return size


class TakesMoreThanItSays(Driver):
    def write(self, memory: Memory, size: int, at: int) -> int:
        size = min(size, len(self.store) - at)
        data, left = memory.get(size)
        if left == size:
            return -errno.EFAULT
        self.store[at : at + size] = data
        return size - left


@pytest.mark.parametrize(
    ("driver", "said"),
    [
        (AnswersMore, "writes behind the 8 bytes"),
        (AsksMore, "reaches behind the 8 bytes"),
        (GivesWhatIsLeft, "gives 4 where memory cannot be used, which is no error"),
        (GivesWhatIsLeftOfAnAnswer, "gives 8 where memory cannot be used, which is no error"),
        (IgnoresFaults, "succeeds although there was no memory for its answer"),
        (ReadsMore, "writes behind the 16 bytes|says that 20 bytes"),
        (ReadsIntoNothing, "read says that 16 bytes came, where no memory"),
        (CallsAFaultTheEnd, "there is no more, where there was no memory"),
        (ReadsBehindTheEnd, "read gives .* bytes behind the end, which is at 64"),
        (TakesNothing, "write says that it took 16 bytes, where no memory was"),
        (TakesMoreThanItSays, "write says that it took 8 bytes, and has changed more"),
    ],
)
def test_each_carelessness_is_told(driver: type[Driver], said: str) -> None:
    with pytest.raises(WorkFailed, match=said):
        use(driver())


def test_a_write_may_fill_a_file_anew() -> None:
    class Anew(Driver):
        def write(self, memory: Memory, size: int, at: int) -> int:
            size = min(size, 64)
            data, left = memory.get(size)
            if left == size:
                return -errno.EFAULT
            self.store = bytearray(data[: size - left])
            return size - left

    use(Anew())


def test_who_throws_all_away_need_not_look_at_it() -> None:
    class Sink(Driver):
        def read(self, memory: Memory, size: int, at: int) -> int:
            return 0

        def write(self, memory: Memory, size: int, at: int) -> int:
            return size

    use(Sink())
