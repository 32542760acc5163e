"""A guest as a test sees it: files, programs, modules, sessions.

:class:`Guest` is the whole guest and its first session. Further sessions
(:meth:`Guest.session`) make calls at the same time as the first; all share one table of open
files. Paths are ``str`` or ``bytes``. Every call has a deadline in the world's own seconds:
``timeout`` where it is given, else the session's.
"""

from __future__ import annotations

import errno
import mmap
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from kdrv.core.errors import DeadlineExceeded
from kdrv.guest import bodies, wire
from kdrv.guest.bodies import Fill, Hello, Inspection
from kdrv.guest.errors import GuestGone, GuestProgramFailed
from kdrv.guest.files import GuestFile, GuestMapping
from kdrv.guest.link import Link, Pending
from kdrv.guest.operations import OUTPUT_LIMIT, Operations
from kdrv.guest.syscalls import Abi, decode_dirents
from kdrv.guest.values import GuestPath, GuestProgram
from kdrv.guest.wire import Kind
from kdrv.machine.contract import Channel, Machine

TIMEOUT = 30.0
"""The default deadline of a call, in seconds."""

_PIECE = 1 << 20
_SMALL = 1 << 16
_MOST_PIECES = 1 << 13


@dataclass(frozen=True)
class GuestModule:
    """A line of ``/proc/modules``."""

    name: str
    size: int
    references: int
    users: tuple[str, ...]
    state: str


class Session:
    """A process in the guest that makes calls, one at a time.

    ``begin`` starts the same calls without waiting::

        call = session.begin.read(file, 16)
        ...
        call.result(timeout=5)

    After a call that hung past its deadline the next one gets a new process; mappings are gone
    with the old one, open files stay.
    """

    def __init__(self, link: Link, number: int, abi: Abi, timeout: float) -> None:
        self.number = number
        self.begin = Operations(link, number, abi, timeout)
        self._link = link
        self._abi = abi

    @property
    def timeout(self) -> float:
        """The deadline of calls that are not given one, in seconds."""
        return self.begin.patience

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self.begin.patience = seconds

    @property
    def link(self) -> Link:
        """The connection that all sessions of a guest share."""
        return self._link

    def inspect(self) -> Inspection | None:
        """What the session is doing in the kernel right now; None when the agent is silent."""
        return self._link.inspect(self.number)

    def reset(self) -> None:
        """Kill the session's process; the next call gets a new one."""
        self._ask("a reset", Kind.RESET)

    def _ask(self, what: str, kind: Kind) -> int:
        asked = self._link.send(what, kind, self.number)
        return Pending(self._link, asked, bodies.decode_result, self.timeout).result()[0]

    # Files

    def open(
        self,
        path: GuestPath,
        flags: int = os.O_RDWR,
        mode: int = 0o644,
        *,
        timeout: float | None = None,
    ) -> GuestFile:
        """open(2) with ``os.O_*`` flags. Raises ``OSError``, as all calls here do."""
        return GuestFile(self.begin, self.begin.open(path, flags, mode).result(timeout), path)

    def memory(self, length: int) -> GuestMapping:
        """Fresh memory in the session's process, for system calls that take addresses."""
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        prot = mmap.PROT_READ | mmap.PROT_WRITE
        address = self.begin.mmap(-1, length, prot, flags, 0).result()
        return GuestMapping(self.begin, address, length)

    def read_bytes(self, path: GuestPath, *, timeout: float | None = None) -> bytes:
        """All of a file. Raises ``OSError`` (``EFBIG``) for one that does not end."""
        data = self.begin.read_file(path, _SMALL).result(timeout)
        if len(data) < _SMALL:
            return data
        with self.open(path, os.O_RDONLY, timeout=timeout) as file:
            pieces: list[bytes] = []
            for _ in range(_MOST_PIECES):
                if not (piece := file.read(_PIECE, timeout=timeout)):
                    return b"".join(pieces)
                pieces.append(piece)
        # An attribute that ignores the offset is read anew for ever.
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)

    def read_text(self, path: GuestPath, *, timeout: float | None = None) -> str:
        """All of a file, as UTF-8."""
        return self.read_bytes(path, timeout=timeout).decode(errors="replace")

    def write_bytes(
        self, path: GuestPath, data: bytes, mode: int = 0o644, *, timeout: float | None = None
    ) -> None:
        """Create a file, or empty it, and write ``data``; a short one by a single write(2)."""
        if len(data) <= _PIECE:
            if self.begin.write_file(path, data, mode).result(timeout) < len(data):
                raise OSError(errno.EIO, os.strerror(errno.EIO), path)
            return
        with self.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode) as file:
            at = 0
            while at < len(data):
                written = file.write(data[at : at + _PIECE], timeout=timeout)
                if not written:
                    raise OSError(errno.EIO, os.strerror(errno.EIO), path)
                at += written

    def write_text(self, path: GuestPath, text: str, *, timeout: float | None = None) -> None:
        """Create a file, or empty it, and write ``text`` as UTF-8."""
        self.write_bytes(path, text.encode(), timeout=timeout)

    def listdir(self, path: GuestPath) -> list[str]:
        """The names in a directory, sorted, without ``.`` and ``..``."""
        names: list[str] = []
        with self.open(path, os.O_RDONLY | os.O_DIRECTORY) as directory:
            while True:
                call = self.begin.syscall("getdents64", directory.fileno(), Fill(_SMALL), _SMALL)
                data = call.result().buffers[0]
                if not data:
                    return sorted(names)
                names += decode_dirents(data)

    def stat(self, path: GuestPath, *, follow: bool = True) -> os.stat_result:
        """stat(2), or lstat(2) unless ``follow``."""
        return self.begin.stat(path, follow).result()

    def exists(self, path: GuestPath) -> bool:
        """Whether there is such a file; a dangling link counts as none."""
        try:
            self.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def mkdir(self, path: GuestPath, mode: int = 0o755) -> None:
        """mkdir(2)."""
        self.begin.mkdir(path, mode).result()

    def rmdir(self, path: GuestPath) -> None:
        """rmdir(2)."""
        self.begin.rmdir(path).result()

    def unlink(self, path: GuestPath) -> None:
        """unlink(2)."""
        self.begin.unlink(path).result()

    def rename(self, path: GuestPath, new: GuestPath) -> None:
        """rename(2)."""
        self.begin.rename(path, new).result()

    def symlink(self, target: GuestPath, path: GuestPath) -> None:
        """symlink(2): ``path`` will point to ``target``."""
        self.begin.symlink(target, path).result()

    def readlink(self, path: GuestPath) -> str:
        """readlink(2)."""
        return self.begin.readlink(path).result()

    def mknod(self, path: GuestPath, mode: int, device: int = 0) -> None:
        """mknod(2); ``device`` as from ``os.makedev``."""
        self.begin.mknod(path, mode, device).result()

    def mount(
        self, source: str, target: GuestPath, kind: str, flags: int = 0, options: str = ""
    ) -> None:
        """mount(2)."""
        self.begin.mount(source, target, kind, flags, options).result()

    def umount(self, target: GuestPath, flags: int = 0) -> None:
        """umount2(2)."""
        self.begin.umount(target, flags).result()

    # Programs

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: GuestPath = "/",
        timeout: float | None = None,
        check: bool = False,
        limit: int = OUTPUT_LIMIT,
    ) -> GuestProgram:
        """Run a program and wait for it; ``env`` is added to PATH and HOME.

        A name without a slash is looked for in PATH, then among busybox's applets; busybox says
        by status 127 that it has none. Raises ``OSError`` when there is nothing to start.
        After ``timeout`` seconds of the guest's time its process group is killed and
        :class:`DeadlineExceeded` raised. With ``check`` a status other than 0 raises
        :class:`GuestProgramFailed`. ``limit`` is how many bytes of output are kept.
        """
        seconds = self.timeout if timeout is None else timeout
        program = self.begin.run(argv, env=env, cwd=cwd, timeout=seconds, limit=limit).result()
        tail = program.output.splitlines()[-20:]
        if program.timed_out:
            raise DeadlineExceeded(
                f"{argv[0]} did not finish within {seconds:g} s in the guest", detail=tail
            )
        if check and not program.ok:
            raise GuestProgramFailed(
                f"{argv[0]} ended with status {program.status} in the guest", detail=tail
            )
        return program

    def shell(
        self, script: str, *, timeout: float | None = None, check: bool = False
    ) -> GuestProgram:
        """Run a script by the guest's ``/bin/sh``; see :meth:`run`."""
        return self.run(["/bin/sh", "-c", script], timeout=timeout, check=check)

    # Modules and drivers

    def load(self, path: GuestPath, params: str = "", *, timeout: float | None = None) -> None:
        """Load a module from a file in the guest, with its parameters."""
        self.begin.load(path, params).result(timeout)

    def unload(self, name: str, force: bool = False, *, timeout: float | None = None) -> None:
        """Unload a module; ``force`` needs CONFIG_MODULE_FORCE_UNLOAD."""
        self.begin.unload(name, force).result(timeout)

    def modules(self) -> list[GuestModule]:
        """The loaded modules, as ``/proc/modules`` lists them."""
        return [_module(line) for line in self.read_text("/proc/modules").splitlines()]

    def bind(self, bus: str, driver: str, device: str, *, timeout: float | None = None) -> None:
        """Bind a driver to a device through sysfs. Raises the ``OSError`` of its probe."""
        self.write_text(f"/sys/bus/{bus}/drivers/{driver}/bind", device, timeout=timeout)

    def unbind(self, bus: str, driver: str, device: str, *, timeout: float | None = None) -> None:
        """Take a device from its driver through sysfs."""
        self.write_text(f"/sys/bus/{bus}/drivers/{driver}/unbind", device, timeout=timeout)

    # The system

    def dmesg(self) -> list[str]:
        """The kernel's log, without the levels."""
        size = self.begin.log_size().result()
        text = self.begin.dmesg(min(size, wire.DATA)).result()
        return [_without_level(line) for line in text.splitlines()]

    def uname(self) -> os.uname_result:
        """uname(2)."""
        return self.begin.uname().result()

    def sleep(self, seconds: float) -> None:
        """Sleep in the guest's time."""
        self.begin.sleep(seconds).result()

    def close(self) -> None:
        """End the session and its process; open files stay open."""
        self._ask("closing a session", Kind.CLOSE)


class Guest(Session):
    """A running guest, and its first session. ``hello`` is what the agent said of itself."""

    def __init__(
        self,
        channel: Channel,
        *,
        machine: Machine | None = None,
        boot_timeout: float = TIMEOUT,
        timeout: float = TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Wait for the agent's greeting, at most ``boot_timeout`` seconds.

        ``machine`` makes errors tell what its console said; ``clock`` counts the world's seconds.
        Raises :class:`~kdrv.guest.errors.GuestSilent` or :class:`~kdrv.guest.errors.GuestGone`.
        """
        link = Link(
            channel,
            console=machine.console if machine else None,
            diagnose=machine.diagnose if machine else tuple,
            clock=clock,
        )
        self.hello: Hello = link.wait_for_hello(boot_timeout)
        super().__init__(link, 0, Abi(self.hello.machine), timeout)

    @classmethod
    def of(
        cls, machine: Machine, *, boot_timeout: float = TIMEOUT, timeout: float = TIMEOUT
    ) -> Self:
        """The guest that runs in a machine, by the machine's own clock."""
        return cls(
            machine.channel,
            machine=machine,
            boot_timeout=boot_timeout,
            timeout=timeout,
            clock=machine.clock,
        )

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Another session, for calls at the same time; it ends with the ``with`` block."""
        number = self._ask("a new session", Kind.SPAWN)
        session = Session(self._link, number, self._abi, self.timeout)
        try:
            yield session
        finally:
            if not self._link.lost:
                session.close()

    def ping(self, timeout: float | None = None) -> None:
        """Ask the agent's first process for a sign of life; no session is involved."""
        asked = self._link.send("a ping", Kind.PING, 0)
        Pending(self._link, asked, bodies.decode_result, self.timeout).result(timeout)

    def power_off(self, timeout: float | None = None) -> None:
        """Sync and power off; returns when the machine has ended.

        A first session that hangs does not hinder it. Raises
        :class:`~kdrv.guest.errors.GuestSilent` when the machine goes on.
        """
        self._halt(False, timeout)

    def restart(self, timeout: float | None = None) -> None:
        """Sync and restart; returns when the machine has ended (a world does not boot twice)."""
        self._halt(True, timeout)

    def _halt(self, restart: bool, timeout: float | None) -> None:
        try:
            number = self._ask("a new session", Kind.SPAWN)
            session = Session(self._link, number, self._abi, self.timeout)
            session.begin.halt(restart).result(timeout)
        except GuestGone:
            return


def _module(line: str) -> GuestModule:
    name, size, references, users, state = line.split()[:5]
    return GuestModule(
        name, int(size), int(references), tuple(filter(None, users.strip("-").split(","))), state
    )


def _without_level(line: str) -> str:
    """A line of syslog(2) without its ``<6>``."""
    level, closed, text = line.partition(">")
    return text if closed and level.startswith("<") and level[1:].isdecimal() else line
