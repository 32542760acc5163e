"""Results for a person at a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kdrv.build.api import LaneBuild
from kdrv.build.checks import CheckResult, Outcome
from kdrv.build.diagnostics import Diagnostic, Level, by_file
from kdrv.build.result import KernelBuild
from kdrv.core.show import duration

if TYPE_CHECKING:
    # A build is shown without waiting for pytest and QEMU's parts to be imported.
    from kdrv.testing.demo import Demo
    from kdrv.testing.run import TestRun
    from kdrv.testing.smoke import Smoke
    from kdrv.testing.worlds import Simulated

GREEN = "green"
RED = "red"
SHOWN = 20
_COLOURS = {Level.ERROR: RED, Level.WARNING: "yellow", Level.NOTE: "cyan"}


def show_builds(builds: Sequence[LaneBuild]) -> None:
    """Each lane: its state, what was said, why symbols are missing, how to see it again."""
    for build in builds:
        _kernel(build.kernel)
        if build.module:
            module = build.module
            _line(module.ok, f"module {module.directory.name}, lane {module.lane}", module.seconds)
            _diagnostics(module.diagnostics)
            for path in module.modules:
                click.echo(f"    {path}")
            if not module.ok:
                _again(module.reproducer, module.log)
        for check in build.checks:
            _check(check)


def show_run(run: TestRun) -> None:
    """What pytest's own summary does not say."""
    kernel = run.kernel
    counts = {
        outcome: sum(case.outcome == outcome for case in run.cases)
        for outcome in ("passed", "failed", "skipped")
    }
    words = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    times = "once" if run.boots == 1 else f"{run.boots} times"
    click.echo(
        f"{_mark(run.ok)} {words} on Linux {kernel.version}, lane {run.lane}, in {run.world}"
        f" (booted {times}, {duration(run.boot_seconds)}; in all {duration(run.seconds)})"
    )
    for machine in run.simulated:
        click.echo(f"  {_simulated(machine)}")
    for case in run.cases:
        if case.outcome == "failed":
            what = f": {case.verdict} [{case.fingerprint}]" if case.verdict else ""
            click.echo(f"  {click.style('failed', fg=RED)} {case.name}{what}")
            click.echo(f"    reproduce: {case.reproducer}")


def _simulated(machine: Simulated) -> str:
    """Seed, virtual time, faults and hash of a simulated machine, in a line."""
    counts = Counter(fault.kind.value for fault in machine.fired)
    faults = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    return (
        f"seed {machine.seed}, profile {machine.profile}: {machine.seconds:.3f} s of virtual time, "
        f"faults fired: {faults or 'none'}; history {machine.history[:16]}"
    )


def show_smoke(smoke: Smoke) -> None:
    """The lanes' proofs, one a line."""
    for lane in smoke.lanes:
        click.echo(f"Linux {lane.kernel.version}, lane {lane.lane}")
        for proof in lane.proofs:
            _line(
                proof.ok,
                f"{proof.name}{f' ({proof.detail})' if proof.detail else ''}",
                proof.seconds,
            )
    if not smoke.ok:
        click.echo(f"  reproduce: {smoke.reproducer}")


def show_demo(demo: Demo) -> None:
    """The table of what was proven."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="What was proven", title_justify="left", box=None, pad_edge=False)
    for column, side in (("", "left"), ("step", "left"), ("seen", "left"), ("time", "right")):
        table.add_column(column, justify=side)  # type: ignore[arg-type]
    for step in demo.steps:
        mark = "[green]ok[/]" if step.ok else "[red]FAILED[/]"
        table.add_row(mark, step.what, step.seen, duration(step.seconds))
    table.add_row("", "all", "", duration(demo.seconds))
    Console(highlight=False).print(table)
    click.echo(f"The driver is yours to read, until the next kdrv demo: {demo.project}")


def _kernel(kernel: KernelBuild) -> None:
    state = "built before" if kernel.cached else f"{kernel.objects} targets"
    label = f"Linux {kernel.version} {kernel.arch}, lane {kernel.lane} ({state})"
    _line(kernel.ok, label, kernel.seconds)
    for explanation in kernel.missing:
        if not explanation.follows:
            click.echo(f"    {explanation.summary}")
            click.echo(f"      {click.style('change:', bold=True)} {explanation.change}")
    if followers := [e.symbol for e in kernel.missing if e.follows]:
        click.echo(f"    lost with it: {', '.join(followers)}")
    _diagnostics(kernel.diagnostics)
    if kernel.ok and kernel.image:
        click.echo(f"    {kernel.image.image}")
    if not kernel.ok:
        _again(kernel.reproducer, kernel.log)


def _check(check: CheckResult) -> None:
    if check.outcome is Outcome.SKIP:
        click.echo(f"{click.style('skip  ', fg='yellow')} {check.name}: {check.reason}")
        return
    _line(check.outcome is Outcome.PASS, f"check {check.name}", check.seconds)
    _diagnostics(check.diagnostics)
    if check.outcome is Outcome.FAIL:
        click.echo(f"    reproduce: {check.reproducer}")


def _diagnostics(diagnostics: Sequence[Diagnostic]) -> None:
    """Grouped by file and tool, errors first; a note of how many were left out."""
    shown = 0
    for file, tools in by_file(diagnostics).items():
        if shown >= SHOWN:
            break
        click.echo(f"    {click.style(file or '(no file)', bold=True)}")
        for tool, records in tools.items():
            for record in records[: SHOWN - shown]:
                shown += 1
                place = ":".join(str(n) for n in (record.line, record.column) if n)
                code = f" [{record.code}]" if record.code else ""
                level = click.style(record.level, fg=_COLOURS[record.level])
                click.echo(f"      {place:<8} {level} {record.message}{code}  ({tool})")
    if len(diagnostics) > shown:
        click.echo(f"    and {len(diagnostics) - shown} more (--json shows all)")


def _again(reproducer: str, log: Path) -> None:
    click.echo(f"    reproduce: {reproducer}")
    if log.exists():
        click.echo(f"    log: {log}")


def _line(ok: bool, text: str, seconds: float) -> None:
    click.echo(f"{_mark(ok)} {text}  {click.style(duration(seconds), dim=True)}")


def _mark(ok: bool) -> str:
    return click.style("ok    ", fg=GREEN) if ok else click.style("FAILED", fg=RED, bold=True)
