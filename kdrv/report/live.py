"""The live display of a terminal: a bar for each step, what it does now, the time left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from kdrv.core.events import Event, Events, Finished, Level, Noted, Progressed, Started
from kdrv.core.show import clean, duration
from kdrv.report.progress import QUIET_SECONDS


@contextmanager
def watch(events: Events) -> Iterator[None]:
    """Show the events on stderr, a terminal, until the block ends."""
    console = Console(stderr=True, highlight=False)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[doing]}", markup=True),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        unsubscribe = events.subscribe(_Live(progress).hear)
        try:
            yield
        finally:
            unsubscribe()


class _Live:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[int, TaskID] = {}

    def hear(self, event: Event) -> None:
        progress = self._progress
        match event:
            case Started(step=step, label=label):
                self._tasks[step] = progress.add_task(escape(label), total=None, doing="")
            case Progressed(step=step, done=done, total=total, doing=doing):
                if (task := self._tasks.get(step)) is not None:
                    progress.update(
                        task, completed=done, total=total or None, doing=escape(clean(doing[:60]))
                    )
            case Finished(step=step, label=label, ok=ok, seconds=seconds):
                if step in self._tasks:
                    progress.remove_task(self._tasks.pop(step))
                if seconds >= QUIET_SECONDS or not ok:
                    mark = "[green]done[/]" if ok else "[red]stopped[/]"
                    progress.console.print(f"{mark} {escape(label)} [dim]{duration(seconds)}[/]")
            case Noted(level=level, text=text):
                if level is not Level.DEBUG:
                    style = "[yellow]warning:[/] " if level is Level.WARNING else ""
                    progress.console.print(f"{style}{escape(text)}")
