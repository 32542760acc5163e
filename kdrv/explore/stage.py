"""Several actors on one guest, in one thread and in an order that never changes.

Every actor is a greenlet: it runs until it waits for an answer of the guest, then the next one
does; when all wait, virtual time passes until somebody's answer has come. Threads would leave the
order to the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

from kdrv.guest.link import Link

NANOSECOND = 1e-9


@dataclass
class _Waiting:
    finished: Callable[[], bool]
    until: float


@dataclass(eq=False)
class Alarm:
    """Something that is to be done ``at`` a time, by nobody who has to wait for it."""

    at: float
    ring: Callable[[], None]
    rang: bool = False


class Stage:
    """Lets actors wait at the same time; see :class:`kdrv.guest.link.Turns`."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._hub: Any = None
        self._waiting: dict[Any, _Waiting | None] = {}
        self._alarms: list[Alarm] = []

    def play(self, actors: Sequence[Callable[[], None]]) -> None:
        """Run all actors to their ends. What one of them raises ends all, and passes through."""
        self._hub = getcurrent()
        self._waiting = {greenlet(actor): None for actor in actors}
        self._link.turns = self
        try:
            while self._waiting:
                self._advance()
        finally:
            self._link.turns = None
            for one in self._waiting:
                one.throw(GreenletExit)
            self._waiting = {}

    def wait(self, link: Link, finished: Callable[[], bool], timeout: float) -> bool:
        """Called by an actor: let the others act until ``finished()``."""
        if not finished():
            self._waiting[getcurrent()] = _Waiting(finished, link.clock() + timeout)
            self._hub.switch()
        return finished()

    def pause(self, seconds: float) -> None:
        """Called by an actor: let ``seconds`` of virtual time pass."""
        self.wait(self._link, lambda: False, seconds)

    @contextmanager
    def alarm(self, seconds: float, ring: Callable[[], None]) -> Iterator[Alarm]:
        """For an actor: have ``ring`` called in so many seconds, unless it is through before."""
        alarm = Alarm(self._link.clock() + seconds, ring)
        self._alarms.append(alarm)
        try:
            yield alarm
        finally:
            if not alarm.rang:
                self._alarms.remove(alarm)

    def _advance(self) -> None:
        """Let the first actor that can go on do so; let time pass when there is none."""
        for alarm in [one for one in self._alarms if one.at <= self._link.clock()]:
            alarm.rang = True
            self._alarms.remove(alarm)
            alarm.ring()
        for actor, waiting in self._waiting.items():
            if waiting is None or waiting.finished() or self._link.clock() >= waiting.until:
                self._waiting[actor] = None
                actor.switch()
                if actor.dead:
                    del self._waiting[actor]
                return
        times = [waiting.until for waiting in self._waiting.values() if waiting]
        first = min(times + [alarm.at for alarm in self._alarms])
        # Never nothing: what is left of a float must not keep time from passing.
        self._link.hear(max(first - self._link.clock(), NANOSECOND))
