"""A clock that moves from event to event: one queue, ordered by (time, sequence)."""

from __future__ import annotations

import heapq
from collections.abc import Callable


class Scheduled:
    """An event in the queue; see :class:`kdrv.devices.host.Timer`."""

    __slots__ = ("callback", "sequence", "time")

    def __init__(self, time: int, sequence: int, callback: Callable[[], None] | None) -> None:
        self.time = time
        self.sequence = sequence
        self.callback = callback

    def cancel(self) -> None:
        """Never run the callback."""
        self.callback = None

    def __lt__(self, other: Scheduled) -> bool:
        return (self.time, self.sequence) < (other.time, other.sequence)


class Clock:
    """Virtual time in nanoseconds, and everything that is to happen in it.

    Events of one time run in the order in which they were scheduled.
    """

    def __init__(self) -> None:
        self.now = 0
        self._sequence = 0
        self._queue: list[Scheduled] = []

    def at(self, time: int, callback: Callable[[], None]) -> Scheduled:
        """Run ``callback`` when the clock reaches ``time``. Raises ``ValueError`` for the past."""
        if time < self.now:
            raise ValueError(f"{time} ns is in the past: it is {self.now} ns")
        self._sequence += 1
        event = Scheduled(time, self._sequence, callback)
        heapq.heappush(self._queue, event)
        return event

    def after(self, delay: int, callback: Callable[[], None]) -> Scheduled:
        """Run ``callback`` in ``delay`` nanoseconds. Raises ``ValueError`` for a negative delay."""
        return self.at(self.now + delay, callback)

    def due(self) -> int | None:
        """When the first event is due, or None when there is none."""
        while self._queue and self._queue[0].callback is None:
            heapq.heappop(self._queue)
        return self._queue[0].time if self._queue else None

    def step(self) -> bool:
        """Move to the first event and run it; false when there is none."""
        if self.due() is None:
            return False
        event = heapq.heappop(self._queue)
        self.now = event.time
        callback, event.callback = event.callback, None
        assert callback is not None  # due() has dropped the cancelled ones
        callback()
        return True
