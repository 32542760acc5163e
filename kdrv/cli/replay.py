"""``kdrv replay``: run a bug's plan again, byte for byte."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from kdrv.cli.common import (
    json_option,
    kernel_option,
    print_json,
    project_at,
    scratch_directory,
    session,
    toolchain_option,
)
from kdrv.core.errors import EXIT_FAILED


@click.command()
@click.argument("bug", type=click.Path(exists=True))
@click.option("--project", "path", metavar="DIR", help="The project.  [default: around the bug]")
@click.option("--doublecheck", is_flag=True, help="Run twice; show where the runs differ first.")
@click.option("--trace", is_flag=True, help="Show operations, bus and console on one time line.")
@click.option("--gdb", metavar="SECONDS", type=float, help="Stop then (virtual time) for gdb.")
@kernel_option
@toolchain_option
@json_option
def replay(
    bug: str,
    path: str | None,
    doublecheck: bool,
    trace: bool,
    gdb: float | None,
    kernel: str | None,
    toolchain: str,
    as_json: bool,
) -> None:
    """Run the plan of BUG, a folder of the bug base, on the driver as it is now.

    Exit code 0: nothing is wrong any more; 1: this or another bug shows, or two runs differ.
    """
    from kdrv.explore.bugbase import load
    from kdrv.explore.replay import replay as run_again
    from kdrv.explore.replay import timeline
    from kdrv.explore.subject import prepare
    from kdrv.report.exploration import replay_data, show_replays
    from kdrv.testing.prepare import make_request

    folder = Path(bug)
    known = load(folder if folder.is_dir() else folder.parent)
    project = project_at(path or str(folder.absolute()))
    request = make_request(
        project, "sim", kernel=kernel, toolchain=toolchain, against=known.record.against
    )
    with scratch_directory() as scratch, session() as ctx:
        subject = prepare(ctx, request, Path(scratch), kinds=(known.plan.checked,))
        bench = subject.bench(ctx, subject.reconnoitre(ctx))
        if gdb is not None:
            from kdrv.explore.gdb import stop_at

            stop_at(subject, bench, known.plan, gdb, Path(scratch), _hold)
            return
        result = run_again(bench, known, subject.identity, twice=doublecheck)
    if as_json:
        print_json(replay_data(known, result))
    else:
        if trace:
            click.echo("\n".join(timeline(result.history)))
        show_replays([(known, result)])
    sys.exit(0 if result.ok else EXIT_FAILED)


def _hold(command: str) -> None:
    """Show how to attach, and wait for a key, or for a line where nobody sits at a terminal."""
    click.echo(f"kdrv: stopped; in another terminal: {command}", err=True)
    if sys.stdin.isatty() and sys.stdout.isatty():
        click.pause("kdrv: press a key, then continue in gdb ...", err=True)
    else:
        sys.stdin.readline()
