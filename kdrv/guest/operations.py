"""Everything a session can be asked to do, started without waiting.

Each method sends one request and gives a :class:`~kdrv.guest.link.Pending`; the methods of
:class:`~kdrv.guest.session.Session` wait for it. Most requests are a few system calls that the
agent makes one after the other; which ones is decided here, not in the agent.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from kdrv.core.errors import UsageError
from kdrv.guest import bodies
from kdrv.guest.bodies import Argument, Fill, In, InOut, Out, Outcome, Result, Step, StepFlag
from kdrv.guest.link import Exchange, Link, Pending
from kdrv.guest.syscalls import STATX_SIZE, Abi, decode_statx
from kdrv.guest.values import FileLike, GuestPath, GuestProgram, encode_path
from kdrv.guest.wire import Kind

T = TypeVar("T")

OUTPUT_LIMIT = 1 << 20
"""How much of a program's output is kept, in bytes, unless told otherwise."""
KILL_SECONDS = 5.0
"""What a program may need, beyond its own time limit, to be killed and reported."""

_AT_FDCWD = -100
_AT_REMOVEDIR = 0x200
_AT_SYMLINK_NOFOLLOW = 0x100
_STATX_BASIC = 0x7FF
_SYSLOG_READ_ALL = 3
_SYSLOG_SIZE = 10
_REBOOT_MAGIC = (0xFEE1DEAD, 672274793)
_REBOOT_POWER_OFF = 0x4321FEDC
_REBOOT_RESTART = 0x01234567
_ENVIRONMENT = {"PATH": "/bin:/sbin:/usr/bin:/usr/sbin", "HOME": "/root"}
_POLLFD = struct.Struct("<ihh")


def _string(text: GuestPath) -> In:
    return In(encode_path(text) + b"\0")


def _number(file: FileLike) -> int:
    return file if isinstance(file, int) else file.fileno()


def _checked(outcomes: Sequence[Outcome], path: GuestPath | None) -> None:
    for outcome in outcomes:
        if outcome.result < 0:
            error = -outcome.result
            raise OSError(error, os.strerror(error), path)


class Operations:
    """Starts calls in one session, one at a time. Where ``log`` is a list, it gathers
    what is sent, but for what takes time because it is told to; ``requests`` then are its ioctls',
    each with what it was given last.
    """

    def __init__(self, link: Link, session: int, abi: Abi, patience: float) -> None:
        self.link = link
        self.session = session
        self.patience = patience
        """How long a call may take, in seconds, unless told otherwise."""
        self.requests: dict[int, bytes] = {}
        self.log: list[Exchange] | None = None
        self._abi = abi
        self._latest: Exchange | None = None

    # The three ways to ask

    def _start(
        self,
        what: str,
        kind: Kind,
        body: bytes,
        decode: Callable[[bytes], T],
        extra_seconds: float = 0.0,
    ) -> Pending[T]:
        latest = self._latest
        if latest is not None and not latest.arrived():
            if not latest.late:
                raise UsageError(
                    f"{what} cannot start while {latest.what} is under way in the same session",
                    expected="one call at a time in a session",
                    remedy="with guest.session() as other: ...",
                )
            # Given up at its deadline: a new process takes the session over.
            self.link.send("a reset", Kind.RESET, self.session)
        self._latest = self.link.send(what, kind, self.session, body)
        if self.log is not None and not extra_seconds:
            self.log.append(self._latest)
        return Pending(self.link, self._latest, decode, self.patience + extra_seconds)

    def calls(
        self,
        what: str,
        steps: Sequence[Step],
        decode: Callable[[list[Outcome]], T],
        path: GuestPath | None = None,
        extra_seconds: float = 0.0,
    ) -> Pending[T]:
        """System calls one after the other; the first that fails raises ``OSError``."""

        def checked(body: bytes) -> T:
            outcomes = bodies.decode_outcomes(steps, body)
            _checked(outcomes, path)
            return decode(outcomes)

        return self._start(what, Kind.CALL, bodies.encode_calls(steps), checked, extra_seconds)

    def attempts(self, what: str, steps: Sequence[Step]) -> Pending[list[Outcome]]:
        """System calls one after the other; what fails is an outcome like any other."""
        body = bodies.encode_calls(steps)
        return self._start(what, Kind.CALL, body, partial(bodies.decode_outcomes, steps))

    def step(self, name: str | int, *args: Argument, flags: StepFlag = StepFlag.NONE) -> Step:
        """One system call, by name or number."""
        number = name if isinstance(name, int) else self._abi.number(name)
        return Step(number, args, flags)

    def syscall(
        self, name: str | int, *args: Argument, path: GuestPath | None = None
    ) -> Pending[Outcome]:
        """Any system call, by name or by its number on the guest's architecture."""
        what = f"system call {name}" if isinstance(name, int) else name
        return self.calls(what, [self.step(name, *args)], lambda outcomes: outcomes[0], path)

    def _value(
        self,
        what: str,
        name: str,
        *args: Argument,
        path: GuestPath | None = None,
        extra_seconds: float = 0.0,
    ) -> Pending[int]:
        steps = [self.step(name, *args)]
        return self.calls(what, steps, lambda done: done[0].result, path, extra_seconds)

    def _nothing(
        self, what: str, name: str, *args: Argument, path: GuestPath | None = None
    ) -> Pending[None]:
        return self.calls(what, [self.step(name, *args)], lambda done: None, path)

    def signal(self) -> None:
        """Signal the session's process, whatever it does; there is nothing to wait for."""
        self.link.send("a signal", Kind.INTERRUPT, self.session)

    # Open files

    def _open_step(self, path: GuestPath, flags: int, mode: int) -> Step:
        flags = self._abi.open_flags(flags | os.O_CLOEXEC)
        return self.step("openat", _AT_FDCWD, _string(path), flags, mode)

    def open(self, path: GuestPath, flags: int = os.O_RDWR, mode: int = 0o644) -> Pending[int]:
        """open(2), always with ``O_CLOEXEC``: the new descriptor."""
        steps = [self._open_step(path, flags, mode)]
        return self.calls(f"open({path!r})", steps, lambda done: done[0].result, path)

    def close(self, file: FileLike) -> Pending[None]:
        """close(2)."""
        return self._nothing(f"close({_number(file)})", "close", _number(file))

    def read(self, file: FileLike, size: int) -> Pending[bytes]:
        """One read(2) of at most ``size`` bytes."""
        fd = _number(file)
        steps = [self.step("read", fd, Fill(size), size)]
        return self.calls(f"read({fd})", steps, lambda done: done[0].buffers[0])

    def write(self, file: FileLike, data: bytes) -> Pending[int]:
        """One write(2): how many bytes it took."""
        fd = _number(file)
        return self._value(f"write({fd})", "write", fd, In(data), len(data))

    def pread(self, file: FileLike, size: int, offset: int) -> Pending[bytes]:
        """One pread(2)."""
        fd = _number(file)
        steps = [self.step("pread64", fd, Fill(size), size, offset)]
        return self.calls(f"pread({fd})", steps, lambda done: done[0].buffers[0])

    def pwrite(self, file: FileLike, data: bytes, offset: int) -> Pending[int]:
        """One pwrite(2): how many bytes it took."""
        fd = _number(file)
        return self._value(f"pwrite({fd})", "pwrite64", fd, In(data), len(data), offset)

    def seek(self, file: FileLike, offset: int, whence: int = os.SEEK_SET) -> Pending[int]:
        """lseek(2): the new position."""
        fd = _number(file)
        return self._value(f"lseek({fd})", "lseek", fd, offset, whence)

    def ioctl(self, file: FileLike, request: int, arg: int | bytes = 0) -> Pending[int | bytes]:
        """ioctl(2): its result for a number, for bytes what they became."""
        fd = _number(file)
        argument = arg if isinstance(arg, int) else InOut(bytes(arg))
        if self.log is not None:
            self.requests[request] = argument.data if isinstance(argument, InOut) else b""
        steps = [self.step("ioctl", fd, request, argument)]

        def decode(done: list[Outcome]) -> int | bytes:
            return done[0].result if isinstance(arg, int) else done[0].buffers[0]

        return self.calls(f"ioctl({fd}, {request:#x})", steps, decode)

    def poll(self, file: FileLike, events: int, timeout_ms: int | None = None) -> Pending[int]:
        """ppoll(2) of one file: the events that are there, 0 when the time is over."""
        fd = _number(file)
        seconds = 0.0 if timeout_ms is None else timeout_ms / 1000
        limit: Argument = 0 if timeout_ms is None else In(_timespec(seconds))
        steps = [self.step("ppoll", InOut(_POLLFD.pack(fd, events, 0)), 1, limit, 0, 8)]

        def decode(done: list[Outcome]) -> int:
            revents: int = _POLLFD.unpack(done[0].buffers[0])[2]
            return revents

        return self.calls(f"poll({fd})", steps, decode, extra_seconds=seconds)

    def fsync(self, file: FileLike) -> Pending[None]:
        """fsync(2)."""
        return self._nothing(f"fsync({_number(file)})", "fsync", _number(file))

    def dup(self, file: FileLike) -> Pending[int]:
        """dup(2): the new descriptor."""
        return self._value(f"dup({_number(file)})", "dup", _number(file))

    # Memory

    def mmap(self, file: FileLike, length: int, prot: int, flags: int, offset: int) -> Pending[int]:
        """mmap(2): the address in the session's process."""
        fd = _number(file)
        return self._value(f"mmap({fd})", "mmap", 0, length, prot, flags, fd, offset)

    def munmap(self, address: int, length: int) -> Pending[None]:
        """munmap(2)."""
        return self._nothing("munmap", "munmap", address, length)

    def peek(self, address: int, size: int, width: int) -> Pending[bytes]:
        """Read the session's memory by accesses of ``width`` bytes each."""
        what = f"a read of memory at {address:#x}"
        body = bodies.encode_peek(address, size, width)
        return self._start(what, Kind.PEEK, body, lambda answer: bodies.decode_result(answer)[1])

    def poke(self, address: int, data: bytes, width: int) -> Pending[None]:
        """Write the session's memory by accesses of ``width`` bytes each."""
        what = f"a write of memory at {address:#x}"
        return self._start(
            what, Kind.POKE, bodies.encode_poke(address, data, width), lambda _: None
        )

    # Files by path

    def read_file(self, path: GuestPath, limit: int) -> Pending[bytes]:
        """Open, read up to ``limit`` bytes or the end, close."""
        steps = [
            self._open_step(path, os.O_RDONLY, 0),
            self.step("read", Result(0), Fill(limit), limit, flags=StepFlag.FULLY),
            self.step("close", Result(0), flags=StepFlag.ALWAYS),
        ]
        return self.calls(f"reading {path!r}", steps, lambda done: done[1].buffers[0], path)

    def write_file(self, path: GuestPath, data: bytes, mode: int = 0o644) -> Pending[int]:
        """Create or empty a file, write ``data``, close: how many bytes it took."""
        steps = [
            self._open_step(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode),
            self.step("write", Result(0), In(data), len(data), flags=StepFlag.FULLY),
            self.step("close", Result(0), flags=StepFlag.ALWAYS),
        ]
        return self.calls(f"writing {path!r}", steps, lambda done: done[1].result, path)

    def stat(self, path: GuestPath, follow: bool = True) -> Pending[os.stat_result]:
        """statx(2)."""
        flags = 0 if follow else _AT_SYMLINK_NOFOLLOW
        steps = [self.step("statx", _AT_FDCWD, _string(path), flags, _STATX_BASIC, Out(STATX_SIZE))]
        return self.calls(
            f"stat({path!r})", steps, lambda done: decode_statx(done[0].buffers[0]), path
        )

    def mkdir(self, path: GuestPath, mode: int = 0o755) -> Pending[None]:
        """mkdir(2)."""
        args = (_AT_FDCWD, _string(path), mode)
        return self._nothing(f"mkdir({path!r})", "mkdirat", *args, path=path)

    def unlink(self, path: GuestPath) -> Pending[None]:
        """unlink(2)."""
        args = (_AT_FDCWD, _string(path), 0)
        return self._nothing(f"unlink({path!r})", "unlinkat", *args, path=path)

    def rmdir(self, path: GuestPath) -> Pending[None]:
        """rmdir(2)."""
        args = (_AT_FDCWD, _string(path), _AT_REMOVEDIR)
        return self._nothing(f"rmdir({path!r})", "unlinkat", *args, path=path)

    def rename(self, path: GuestPath, new: GuestPath) -> Pending[None]:
        """rename(2)."""
        args = (_AT_FDCWD, _string(path), _AT_FDCWD, _string(new), 0)
        return self._nothing(f"rename({path!r})", "renameat2", *args, path=path)

    def symlink(self, target: GuestPath, path: GuestPath) -> Pending[None]:
        """symlink(2): ``path`` will point to ``target``."""
        args = (_string(target), _AT_FDCWD, _string(path))
        return self._nothing(f"symlink({path!r})", "symlinkat", *args, path=path)

    def readlink(self, path: GuestPath) -> Pending[str]:
        """readlink(2)."""
        steps = [self.step("readlinkat", _AT_FDCWD, _string(path), Fill(4096), 4096)]
        return self.calls(
            f"readlink({path!r})", steps, lambda done: os.fsdecode(done[0].buffers[0]), path
        )

    def mknod(self, path: GuestPath, mode: int, device: int = 0) -> Pending[None]:
        """mknod(2); ``device`` as from ``os.makedev``."""
        args = (_AT_FDCWD, _string(path), mode, device)
        return self._nothing(f"mknod({path!r})", "mknodat", *args, path=path)

    def mount(
        self, source: str, target: GuestPath, kind: str, flags: int = 0, options: str = ""
    ) -> Pending[None]:
        """mount(2)."""
        args = (_string(source), _string(target), _string(kind), flags, _string(options))
        return self._nothing(f"mount({target!r})", "mount", *args, path=target)

    def umount(self, target: GuestPath, flags: int = 0) -> Pending[None]:
        """umount2(2)."""
        return self._nothing(f"umount({target!r})", "umount2", _string(target), flags, path=target)

    # Modules, programs, the system

    def load(self, path: GuestPath, params: str = "") -> Pending[None]:
        """Load a module from a file in the guest: finit_module(2)."""
        steps = [
            self._open_step(path, os.O_RDONLY, 0),
            self.step("finit_module", Result(0), _string(params), 0),
            self.step("close", Result(0), flags=StepFlag.ALWAYS),
        ]
        return self.calls(f"loading {path!r}", steps, lambda done: None, path)

    def unload(self, name: str, force: bool = False) -> Pending[None]:
        """delete_module(2), without waiting for users to go."""
        flags = os.O_NONBLOCK | (os.O_TRUNC if force else 0)
        module = name.replace("-", "_")
        return self._nothing(
            f"unloading {name}", "delete_module", _string(module), flags, path=module
        )

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: GuestPath = "/",
        timeout: float,
        limit: int = OUTPUT_LIMIT,
    ) -> Pending[GuestProgram]:
        """Run a program; the agent kills its process group after ``timeout`` seconds."""
        environment = {**_ENVIRONMENT, **(env or {})}
        body = bodies.encode_run(
            [encode_path(word) for word in argv],
            [encode_path(f"{name}={value}") for name, value in environment.items()],
            encode_path(cwd),
            timeout,
            limit,
        )

        def decode(answer: bytes) -> GuestProgram:
            end = bodies.decode_run(answer)
            if end.error:
                raise OSError(end.error, os.strerror(end.error), argv[0])
            return GuestProgram(
                tuple(argv),
                os.waitstatus_to_exitcode(end.status),
                end.output.decode(errors="replace"),
                bool(end.flags & bodies.ProgramFlag.TRUNCATED),
                bool(end.flags & bodies.ProgramFlag.TIMED_OUT),
            )

        return self._start(argv[0], Kind.RUN, body, decode, timeout + KILL_SECONDS)

    def dmesg(self, size: int) -> Pending[str]:
        """The last ``size`` bytes of the kernel's log: syslog(2)."""
        steps = [self.step("syslog", _SYSLOG_READ_ALL, Fill(size), size)]
        return self.calls("dmesg", steps, lambda done: done[0].buffers[0].decode(errors="replace"))

    def log_size(self) -> Pending[int]:
        """How large the kernel's log can be, in bytes."""
        return self._value("syslog", "syslog", _SYSLOG_SIZE, 0, 0)

    def uname(self) -> Pending[os.uname_result]:
        """uname(2)."""

        def decode(done: list[Outcome]) -> os.uname_result:
            data = done[0].buffers[0]
            fields = [data[at : at + 65].split(b"\0")[0].decode() for at in range(0, 325, 65)]
            return os.uname_result(fields)

        return self.calls("uname", [self.step("uname", Out(390))], decode)

    def sleep(self, seconds: float) -> Pending[None]:
        """nanosleep(2), in the guest's time."""
        steps = [self.step("nanosleep", In(_timespec(seconds)), 0)]
        return self.calls(f"sleep({seconds:g})", steps, lambda _: None, extra_seconds=seconds)

    def getpid(self) -> Pending[int]:
        """getpid(2): the session's process."""
        return self._value("getpid", "getpid")

    def halt(self, restart: bool = False) -> Pending[None]:
        """sync(2), then reboot(2); there is no answer when it works."""
        command = _REBOOT_RESTART if restart else _REBOOT_POWER_OFF
        steps = [self.step("sync"), self.step("reboot", *_REBOOT_MAGIC, command, 0)]
        return self.calls("restart" if restart else "power-off", steps, lambda _: None)


def _timespec(seconds: float) -> bytes:
    return struct.pack("<qq", *divmod(round(seconds * 1e9), 1_000_000_000))
