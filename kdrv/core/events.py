"""One stream of events: what kdrv is doing, for whoever wants to watch.

The core emits; it never knows who listens. Progress bars, plain logs and JSON lines are listeners
(see ``kdrv.report``). Times are seconds of the host's monotonic clock.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How loud a :class:`Noted` event is."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"


@dataclass(frozen=True)
class Started:
    """A step began. ``parent`` is the step it is part of, 0 at the top."""

    step: int
    parent: int
    label: str
    at: float


@dataclass(frozen=True)
class Progressed:
    """A step moved on. ``total`` is 0 when unknown; ``doing`` names the present piece of work."""

    step: int
    done: int
    total: int
    doing: str
    at: float


@dataclass(frozen=True)
class Finished:
    """A step ended; ``ok`` is false when it raised."""

    step: int
    label: str
    ok: bool
    seconds: float
    at: float


@dataclass(frozen=True)
class Noted:
    """Something worth telling, outside the order of steps."""

    level: Level
    text: str
    at: float


Event = Started | Progressed | Finished | Noted
Listener = Callable[[Event], None]


class Step:
    """A running step, handed out by :meth:`Events.step`."""

    def __init__(self, events: Events, number: int) -> None:
        self._events = events
        self.number = number

    def progress(self, done: int, total: int = 0, doing: str = "") -> None:
        """Tell how far the step is: ``done`` of ``total`` (0: unknown), now ``doing`` this."""
        self._events.emit(Progressed(self.number, done, total, doing, time.monotonic()))


class _Here(threading.local):
    """The steps that the present thread is in, the innermost last."""

    def __init__(self) -> None:
        self.open: list[int] = []


class Events:
    """The stream: emit on one side, subscribe on the other.

    Threads share one; each has steps of its own, and listeners are called in the thread that emits.
    """

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._numbers = itertools.count(1)
        self._here = _Here()

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Add a listener; the returned function takes it away again."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def emit(self, event: Event) -> None:
        """Hand an event to every listener, in order of subscription."""
        for listener in tuple(self._listeners):
            listener(event)

    def note(self, text: str, level: Level = Level.INFO) -> None:
        """Emit a :class:`Noted`."""
        self.emit(Noted(level, text, time.monotonic()))

    @contextmanager
    def step(self, label: str) -> Iterator[Step]:
        """Bracket a piece of work with :class:`Started` and :class:`Finished`."""
        number = next(self._numbers)
        within = self._here.open
        parent = within[-1] if within else 0
        began = time.monotonic()
        within.append(number)
        self.emit(Started(number, parent, label, began))
        ok = False
        try:
            yield Step(self, number)
            ok = True
        finally:
            within.remove(number)
            now = time.monotonic()
            self.emit(Finished(number, label, ok, now - began, now))
