"""Campaigns and replays for a person at a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from kdrv.core.show import clean, duration, plural
from kdrv.explore.bugbase import Bug, command_here, name_of, story
from kdrv.explore.campaign import CampaignResult, Limits
from kdrv.explore.hunt import Found
from kdrv.explore.replay import Replay
from kdrv.explore.subject import Subject

if TYPE_CHECKING:
    from kdrv.explore.lines import LineCoverage

GREEN, RED, YELLOW = "green", "red", "yellow"
QUIET_SECONDS = 10.0
"""How often a campaign says how far it is where there is no terminal."""


class _Lines:
    """A campaign's progress as plain lines."""

    def __init__(self) -> None:
        self._said = 0.0

    def progress(self, result: CampaignResult) -> None:
        if result.seconds - self._said >= QUIET_SECONDS:
            self._said = result.seconds
            click.echo(f"kdrv: {_figures(result)}", err=True)

    def found(self, bug: Found) -> None:
        click.echo(f"kdrv: found {name_of(bug.violation)}: {clean(bug.violation.words)}", err=True)


class _Live:
    """The same on a terminal, in one line that moves."""

    def __init__(self, progress: Progress, limits: Limits) -> None:
        self._progress = progress
        self._limits = limits
        total = limits.seeds if limits.seeds is not None else limits.seconds
        self._task = progress.add_task("exploring", total=total)

    def progress(self, result: CampaignResult) -> None:
        done = result.runs if self._limits.seeds is not None else result.seconds
        self._progress.update(self._task, completed=done, description=_figures(result))

    def found(self, bug: Found) -> None:
        words = f"found {name_of(bug.violation)}: {clean(bug.violation.words)}"
        self._progress.console.print(words, style=RED, markup=False, highlight=False)


class _Silent:
    def progress(self, result: CampaignResult) -> None:
        """Nothing: stdout is for the result."""

    def found(self, bug: Found) -> None:
        """Nothing."""


@contextmanager
def live(limits: Limits, *, quiet: bool) -> Iterator[_Lines | _Live | _Silent]:
    """Something that shows a campaign's progress on stderr until the block ends."""
    if quiet:
        yield _Silent()
    elif not sys.stderr.isatty():
        yield _Lines()
    else:
        console = Console(stderr=True, highlight=False)
        columns = (
            SpinnerColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as progress:
            yield _Live(progress, limits)


def _figures(result: CampaignResult) -> str:
    rate = result.runs / result.seconds if result.seconds else 0.0
    runs, places = plural(result.runs, "run"), plural(len(result.covered), "place")
    faults, bugs = plural(sum(result.fired.values()), "fault"), plural(len(result.bugs), "bug")
    return (
        f"{runs}, {rate:.1f}/s, {duration(result.virtual_seconds)} simulated, "
        f"{places} covered, {faults} fired, {bugs}"
    )


def show_campaign(result: CampaignResult, subject: Subject, bugs: Sequence[Bug]) -> None:
    """What a campaign found, and how much it has tried."""
    mark = click.style("ok    ", fg=GREEN) if result.ok else click.style("FAILED", fg=RED)
    stopped = ", interrupted" if result.interrupted else ""
    click.echo(f"{mark} {result.identity.words()}")
    click.echo(
        f"       {_figures(result)}, in {duration(result.seconds)}{stopped} "
        f"({plural(result.checked_runs, 'run')} on the checked kernel)"
    )
    lines = coverage_of(result, subject)
    if lines and lines.reachable:
        click.echo(
            f"       {lines.covered} of {lines.reachable} lines of the driver covered "
            f"({lines.share:.0%}), what interrupts run not counted"
        )
    fired = ", ".join(f"{kind} {count}" for kind, count in sorted(result.fired.items()))
    click.echo(f"       faults fired: {fired or 'none'}")
    if result.never:
        click.echo(f"       never fired, though asked for: {', '.join(sorted(result.never))}")
    for found, bug in zip(result.bugs, bugs, strict=True):
        met = result.met.get(found.violation.fingerprint, 1)
        click.echo()
        click.echo(f"{click.style(bug.name, fg=RED, bold=True)} (met {plural(met, 'time')})")
        for line in story(found.history, found.violation):
            click.echo(f"  {clean(line)}")
        click.echo(f"  {click.style('replay:', bold=True)} {command_here(bug)}")


def show_replays(replays: Sequence[tuple[Bug, Replay]]) -> None:
    """Whether bugs are still there."""
    for bug, one in replays:
        if one.ok:
            click.echo(f"{click.style('gone  ', fg=GREEN)} {bug.name}: {bug.record.words}")
        elif one.reproduced:
            click.echo(f"{click.style('FAILED', fg=RED)} {bug.name}: {clean(bug.record.words)}")
        else:
            other = one.violations[0].words if one.violations else "two runs differ"
            click.echo(
                f"{click.style('FAILED', fg=RED)} {bug.name}: not as recorded: {clean(other)}"
            )
        click.echo(f"       history {one.history.hash[:16]}: {_exactness(one)}")
        if one.divergence:
            found = one.divergence
            click.echo(f"       the runs differ first in the {found.where}, line {found.number}:")
            for line in found.before:
                click.echo(f"           {clean(line)}")
            click.echo(f"         - {clean(found.one)}")
            click.echo(f"         + {clean(found.other)}")
        if not one.ok:
            click.echo(f"       replay: {command_here(bug)}")


def _exactness(one: Replay) -> str:
    if one.exact:
        return "the recorded one, byte for byte"
    changed = [
        what
        for what, same in (("driver", one.same_driver), ("kernel", one.same_kernel))
        if not same
    ]
    if changed:
        return f"another one, as the {' and the '.join(changed)} changed"
    return click.style(
        "another one: the plan was edited, or runs differ (--doublecheck)", fg=YELLOW
    )


def campaign_data(
    result: CampaignResult, subject: Subject, bugs: Sequence[Bug]
) -> dict[str, object]:
    """A campaign for programs: figures, and each bug with its folder instead of its history."""
    lines = coverage_of(result, subject)
    left_out = ("bugs", "covered", "met")
    figures = {f.name: getattr(result, f.name) for f in fields(result) if f.name not in left_out}
    return {
        "campaign": {
            **figures,
            "ok": result.ok,
            "places_covered": len(result.covered),
            "lines_covered": lines.covered if lines else None,
            "lines_reachable": lines.reachable if lines else None,
        },
        "bugs": [
            {
                "folder": bug.folder,
                "violation": found.violation,
                "fingerprint": found.violation.fingerprint,
                "met": result.met.get(found.violation.fingerprint, 1),
                "steps": len(found.plan.steps),
                "shrunk_from": found.shrunk_from,
                "seconds": found.seconds,
                "replay": command_here(bug),
            }
            for found, bug in zip(result.bugs, bugs, strict=True)
        ],
    }


def replay_data(bug: Bug, one: Replay) -> dict[str, object]:
    """A replay for programs; its history is the bug's, as the hash says, or can be had again."""
    left_out = ("plan", "history")
    told = {f.name: getattr(one, f.name) for f in fields(one) if f.name not in left_out}
    return {"bug": bug.name, "ok": one.ok, "hash": one.history.hash, **told}


def coverage_of(result: CampaignResult, subject: Subject) -> LineCoverage | None:
    """The driver's lines; None where nothing was measured, for it is not built by itself."""
    if not subject.sources:
        return None
    from kdrv.explore.lines import campaign_lines

    return campaign_lines(subject.modules, result.covered, subject.below)


def campaign_html(result: CampaignResult, subject: Subject, bugs: Sequence[Bug]) -> str:
    """The campaign as a page of HTML."""
    from kdrv.explore.lines import sources
    from kdrv.report.html import campaign_page

    lines = coverage_of(result, subject)
    folder = subject.sources
    shown = sources(lines, folder) if lines and folder else {}
    commands = {bug.record.fingerprint: bug.record.replay for bug in bugs}
    title = f"Exploring {subject.project.project.name}"
    return campaign_page(result, lines, shown, title, commands=commands)
