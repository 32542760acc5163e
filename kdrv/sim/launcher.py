"""One sandbox for many kernels, one after another.

Making a sandbox (namespaces, mounts) takes half as long as booting a kernel, so it is kept for the
next machine of the same kernel and initramfs. ``launcher.c`` inside it starts one kernel at a time;
each finds the same empty directory, the same descriptors and the same environment.
"""

from __future__ import annotations

import array
import contextlib
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from kdrv.core.context import Context
from kdrv.core.errors import SetupError
from kdrv.sim.compiled import compiled
from kdrv.toolchain.base import Bind, Toolchain

HERE = "/run/kdrv/sim"
"""The machine's directory in the sandbox."""
PROGRAM, LIBRARY = "/run/kdrv/launcher", "/run/kdrv/shim.so"
KILL_DEADLINE = 10.0
KILLED = -9
_STATUS = struct.Struct("=i")


class Running(Protocol):
    """A kernel's process."""

    def poll(self) -> int | None:
        """How it ended, negative for a signal; None while it runs."""
        ...

    def wait(self, timeout: float) -> int:
        """Wait for its end. Raises :class:`subprocess.TimeoutExpired`."""
        ...

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        ...


class Launcher:
    """A sandbox in which ``binds`` are visible, and the machine's directory, ``place``, at HERE.

    Raises what the start of a sandbox raises. Ends at :meth:`close`, or when nobody knows it.
    """

    def __init__(self, ctx: Context, toolchain: Toolchain, binds: Sequence[Bind]) -> None:
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="kdrv-sim-"))
            self.place = Path(folder)
            program = compiled(ctx, toolchain, "launcher.c", ("-O2",))
            library = compiled(ctx, toolchain, "shim.c", ("-O2", "-shared", "-fPIC"))
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stack.callback(ours.close)
            with theirs:
                everything = [
                    *binds,
                    Bind(self.place, HERE, writable=True),
                    Bind(program, PROGRAM),
                    Bind(library, LIBRARY),
                ]
                self._toolchain = toolchain
                self._binds = everything
                command = toolchain.command([PROGRAM, LIBRARY], binds=everything, cwd=HERE)
                self._child = stack.enter_context(
                    ctx.runner.start(command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL)
                )
            self._socket = ours
            self._running: Started | None = None
            self._end = weakref.finalize(self, _close_here, stack.pop_all(), os.getpid())

    @property
    def usable(self) -> bool:
        """Whether the sandbox is still there and no kernel runs in it."""
        last = self._running
        free = last is None or (last.poll() is not None and not last.lost)
        return free and self._child.poll() is None

    def describe(self, argv: Sequence[str]) -> str:
        """A kernel's command line as a line to read: it runs like this alone in a sandbox."""
        return self._toolchain.command(
            argv, binds=self._binds, cwd=HERE, env={"LD_PRELOAD": LIBRARY}
        ).shell()

    def start(self, argv: Sequence[str], output: int) -> Started:
        """Start a kernel whose output goes to the descriptor ``output``."""
        words = b"".join(word.encode() + b"\0" for word in argv)
        sent = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [output]))]
        try:
            self._socket.sendmsg([words], sent)
        except OSError as error:
            raise SetupError(
                f"the simulator's sandbox is gone: {error.strerror}", remedy="kdrv doctor"
            ) from error
        self._running = Started(self._socket)
        return self._running

    def clear(self) -> None:
        """End the kernel, if one runs, and empty the machine's directory."""
        if self._running:
            self._running.kill()
        for left in self.place.iterdir():
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()

    def close(self) -> None:
        """End the sandbox and all that runs in it."""
        self._end()


MOST_IDLE = 2
"""Sandboxes that wait for their next kernel: a process that explores has a plain and a checked one,
one after the other."""
_idle: list[tuple[tuple[object, ...], Launcher]] = []


@contextmanager
def borrowed(ctx: Context, toolchain: Toolchain, binds: Sequence[Bind]) -> Iterator[Launcher]:
    """A sandbox with ``binds`` and an empty directory: one that this process has used before.

    Raises as :class:`Launcher` does.
    """
    files = tuple((bind.target, bind.source, *_version(bind.source)) for bind in binds)
    key = (ctx.cache, toolchain.identity, *files)
    launcher = _take(key) or Launcher(ctx, toolchain, binds)
    try:
        yield launcher
    finally:
        launcher.clear()
        _return(key, launcher)


def _return(key: tuple[object, ...], launcher: Launcher) -> None:
    if not launcher.usable:
        launcher.close()
        return
    _idle.append((key, launcher))
    while len(_idle) > MOST_IDLE:
        _idle.pop(0)[1].close()


def _take(key: tuple[object, ...]) -> Launcher | None:
    """A usable idle sandbox for ``key``; those that have died are dropped."""
    for place, (known, launcher) in enumerate(_idle):
        if known == key:
            del _idle[place]
            if launcher.usable:
                return launcher
            launcher.close()
            return None
    return None


def _version(path: Path) -> tuple[int, int, int]:
    """What tells a file from one that took its place."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _close_here(stack: ExitStack, process: int) -> None:
    """Close, but not in a process that was forked off the one that opened."""
    if os.getpid() == process:
        stack.close()


class Started:
    """A kernel that a :class:`Launcher` has started; see :class:`Running`.

    ``lost`` says that the sandbox died, and the kernel with it.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.lost = False
        self._connection = connection
        self._status: int | None = None

    def poll(self) -> int | None:
        """See :class:`Running`."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self._status

    def wait(self, timeout: float) -> int:
        """See :class:`Running`."""
        if self._status is None:
            try:
                self._connection.settimeout(timeout)
                data = self._connection.recv(_STATUS.size)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired("linux", timeout) from None
            except OSError:
                data = b""
            self.lost = not data
            self._status = os.waitstatus_to_exitcode(_STATUS.unpack(data)[0]) if data else KILLED
        return self._status

    def kill(self) -> None:
        """See :class:`Running`."""
        if self.poll() is None:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                self._connection.send(b"\0")
                self.wait(KILL_DEADLINE)
