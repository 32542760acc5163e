"""What kdrv is doing, as it does it: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from kdrv.core.events import Event, Events, Finished, Level, Noted, Started
from kdrv.core.show import duration

QUIET_SECONDS = 0.5
"""A step shorter than this is not worth a line of its own when it ends."""


@contextmanager
def watch(events: Events, *, live: bool) -> Iterator[None]:
    """Show the events on stderr until the block ends."""
    if live:
        from kdrv.report.live import watch_live

        with watch_live(events):
            yield
        return
    unsubscribe = events.subscribe(_plain)
    try:
        yield
    finally:
        unsubscribe()


def _plain(event: Event) -> None:
    match event:
        case Started(label=label):
            line = f"kdrv: {label}"
        case Finished(label=label, ok=ok, seconds=seconds) if seconds >= QUIET_SECONDS or not ok:
            line = f"kdrv: {label}: {'done' if ok else 'stopped'} after {duration(seconds)}"
        case Noted(level=level, text=text) if level is not Level.DEBUG:
            line = f"kdrv: {'warning: ' if level is Level.WARNING else ''}{text}"
        case _:
            return
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
