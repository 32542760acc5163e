"""What kdrv is doing, as it does it, in plain lines; :mod:`kdrv.report.live` is for terminals."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from kdrv.core.events import Event, Events, Finished, Level, Noted, Started
from kdrv.core.show import duration

QUIET_SECONDS = 0.5
"""A step shorter than this is not worth a line of its own when it ends."""


@contextmanager
def watch(events: Events) -> Iterator[None]:
    """Show the events on stderr as plain lines until the block ends."""
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
