"""The serial line of a machine: two pipes to QEMU, and a thread that feeds the console.

Pipes, not a socket: QEMU's UART writes byte by byte, and a UNIX socket is full after 278 unread
one-byte messages, at which QEMU drops characters.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from kdrv.machine.console import Console

OUT_SET, IN_SET = 1, 2
PIPE_BYTES = 1 << 20
BATCH_SECONDS = 0.003
"""How long to gather bytes: one wake-up per byte would take the processor from the guest."""
JOIN_SECONDS = 5.0
CHARDEV = "console"


class SerialLine:
    """Both ends of the line. Enter it before QEMU starts and leave it after QEMU has ended."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._from_guest, self._guest_out = os.pipe()
        self._guest_in, self._to_guest = os.pipe()
        os.set_blocking(self._to_guest, False)
        with contextlib.suppress(OSError):
            # Over an unprivileged user's pipe quota the default size has to do.
            fcntl.fcntl(self._guest_out, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._reader = threading.Thread(target=self._read, name="kdrv-console", daemon=True)
        self._terminals: list[socket.socket] = []

    @property
    def guest_fds(self) -> tuple[int, int]:
        """The descriptors QEMU inherits."""
        return self._guest_out, self._guest_in

    def arguments(self) -> tuple[str, ...]:
        """QEMU's options for the line."""
        return (
            *("-add-fd", f"fd={self._guest_out},set={OUT_SET}"),
            *("-add-fd", f"fd={self._guest_in},set={IN_SET}"),
            *("-chardev", f"file,id={CHARDEV},append=on"
              f",path=/dev/fdset/{OUT_SET},input-path=/dev/fdset/{IN_SET}"),
            *("-serial", f"chardev:{CHARDEV}"),
        )  # fmt: skip

    def __enter__(self) -> SerialLine:
        return self

    def started(self) -> None:
        """QEMU has its ends now: close ours, and read from here on."""
        os.close(self._guest_out)
        os.close(self._guest_in)
        self._reader.start()

    def __exit__(self, *_: object) -> None:
        if self._reader.ident is None:
            os.close(self._guest_out)
            os.close(self._guest_in)
        else:
            self._reader.join(JOIN_SECONDS)
        os.close(self._from_guest)
        os.close(self._to_guest)

    def write(self, data: bytes) -> None:
        """Type ``data`` at the console. What the machine does not read is dropped."""
        with contextlib.suppress(BrokenPipeError, BlockingIOError):
            os.write(self._to_guest, data)

    @contextmanager
    def terminal(self) -> Iterator[socket.socket]:
        """The line as a socket: what the guest prints from now on can be read, input written.

        The console goes on recording. The socket reads end-of-file when the machine has ended.
        """
        ours, theirs = socket.socketpair()
        writer = threading.Thread(target=self._type, args=(theirs,), daemon=True)
        with ours, theirs:
            writer.start()
            self._terminals.append(theirs)
            try:
                yield ours
            finally:
                self._terminals.remove(theirs)
                ours.shutdown(socket.SHUT_RDWR)
                writer.join()

    def _type(self, terminal: socket.socket) -> None:
        while data := terminal.recv(4096):
            self.write(data)

    def _read(self) -> None:
        while True:
            select.select([self._from_guest], [], [])
            time.sleep(BATCH_SECONDS)
            data = os.read(self._from_guest, PIPE_BYTES)
            if not data:
                break
            self._console.feed(data)
            for terminal in tuple(self._terminals):
                # Who does not read loses output; the machine never waits for a terminal.
                with contextlib.suppress(OSError):
                    terminal.send(data, socket.MSG_DONTWAIT)
        self._console.finish()
        for terminal in tuple(self._terminals):
            with contextlib.suppress(OSError):
                terminal.shutdown(socket.SHUT_WR)
