"""A person, or pexpect, at the console of a machine."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import struct
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pexpect.fdpexpect import fdspawn

from kdrv.core.errors import KdrvError, UsageError
from kdrv.guest.session import Guest
from kdrv.qemu.machine import QemuMachine

SHELL = "kdrv_shell=1"
"""The word on the kernel's command line that has the agent start a shell on the console."""
LEAVE = b"\x1d"
"""Ctrl-], as telnet has it."""
TIOCSWINSZ = termios.TIOCSWINSZ
"""The same number on all architectures kdrv boots (include/uapi/asm-generic/ioctls.h)."""


def require_terminal() -> None:
    """Raise :class:`UsageError` unless there is a terminal to hand over."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "a shell in the guest needs a terminal",
            expected="standard input and output to be a terminal",
            remedy="run it without pipes; for commands without a person: kdrv test --qemu",
        )


def interact(machine: QemuMachine) -> None:
    """Join the terminal and the machine's console until Ctrl-] or the machine's end.

    Own code: pexpect's ``interact`` is for programs it started on a terminal of its own.
    Raises :class:`UsageError` when standard input is no terminal.
    """
    require_terminal()
    keys, screen = sys.stdin.fileno(), sys.stdout.fileno()
    with machine.terminal() as line, _raw(keys), _window_size(machine):
        _write(screen, "".join(f"{text}\r\n" for text in machine.console.since()).encode())
        while True:
            ready, _, _ = select.select([keys, line], [], [])
            if keys in ready:
                typed = os.read(keys, 1024)
                if not typed or LEAVE in typed:
                    return
                line.sendall(typed)
            if line in ready:
                printed = line.recv(1 << 16)
                if not printed:
                    return
                _write(screen, printed)


@contextmanager
def console_expect(machine: QemuMachine, timeout: float = 30.0) -> Iterator[fdspawn]:
    """A pexpect object on the machine's console, for tests that type and expect."""
    with machine.terminal() as line:
        # By its descriptor: pexpect 4.9 does not decode what its SocketSpawn reads.
        yield fdspawn(line.fileno(), timeout=timeout, encoding="utf-8", codec_errors="replace")


@contextmanager
def _raw(terminal: int) -> Iterator[None]:
    before = termios.tcgetattr(terminal)
    tty.setraw(terminal)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


@contextmanager
def _window_size(machine: QemuMachine) -> Iterator[None]:
    """Tell the guest the size of our terminal, now and whenever it changes.

    A serial line carries no size, so the agent sets it, from a thread: it may still be booting.
    """
    changed = threading.Event()
    over = threading.Event()

    def tell() -> None:
        # Without an agent the shell works all the same, only with the size it believes in.
        with contextlib.suppress(KdrvError, OSError):
            guest = Guest(machine.channel)
            while changed.wait() and not over.is_set():
                changed.clear()
                columns, rows = os.get_terminal_size(sys.stdout.fileno())
                with guest.open("/dev/console", os.O_RDWR | os.O_NOCTTY) as console:
                    console.ioctl(TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def resized(_signal: int, _frame: FrameType | None) -> None:
        changed.set()

    changed.set()
    threading.Thread(target=tell, name="kdrv-window-size", daemon=True).start()
    before = signal.signal(signal.SIGWINCH, resized)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
        over.set()
        changed.set()


def _write(screen: int, data: bytes) -> None:
    while data:
        data = data[os.write(screen, data) :]
