"""The console of a machine: every line the kernel printed, with the time it came."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class ConsoleLine:
    """One line without its end; ``at`` is the host's monotonic clock in seconds."""

    text: str
    at: float


class Console:
    """A growing list of lines, fed by a world and read by tests. Safe between threads."""

    def __init__(self) -> None:
        self._lines: list[ConsoleLine] = []
        self._partial = ""
        self._changed = threading.Condition()
        self._listeners: list[Callable[[str], None]] = []
        self.last_byte_at = time.monotonic()
        """When the kernel last printed anything."""

    def feed(self, data: bytes) -> None:
        """Add raw output; called by the world."""
        if not data:
            return
        text = self._partial + data.decode(errors="replace").replace("\r\n", "\n")
        *whole, partial = text.split("\n")
        now = time.monotonic()
        with self._changed:
            self._partial = partial
            self.last_byte_at = now
            self._lines += [ConsoleLine(line.rstrip("\r"), now) for line in whole]
            self._changed.notify_all()
        for line in whole:
            for listener in self._listeners:
                listener(line.rstrip("\r"))

    def finish(self) -> None:
        """Turn an unfinished last line into a line; called by the world when the machine ends."""
        if self._partial:
            self.feed(b"\n")

    def listen(self, listener: Callable[[str], None]) -> None:
        """Call ``listener`` with every line from now on, from the world's thread."""
        self._listeners.append(listener)

    def mark(self) -> int:
        """A position: :meth:`since` gives what came after it."""
        with self._changed:
            return len(self._lines)

    def since(self, mark: int = 0) -> tuple[str, ...]:
        """The lines after ``mark``, the unfinished last one included."""
        with self._changed:
            lines = tuple(line.text for line in self._lines[mark:])
            return (*lines, self._partial) if self._partial else lines

    def tail(self, count: int = 20) -> tuple[str, ...]:
        """The last lines."""
        return self.since()[-count:]

    def wait_for(self, text: str, timeout: float, mark: int = 0) -> bool:
        """Wait until a line after ``mark`` contains ``text``; false when the time is over."""
        until = time.monotonic() + timeout
        with self._changed:
            while not any(text in line.text for line in self._lines[mark:]):
                left = until - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    return any(text in line.text for line in self._lines[mark:])
        return True
