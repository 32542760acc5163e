"""``kdrv explore``: look for bugs by chance, keep them, run them again."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kdrv.cli.common import (
    file_option,
    json_option,
    kernel_option,
    print_json,
    project_at,
    scratch_directory,
    session,
    toolchain_option,
    write_file,
)
from kdrv.core.errors import EXIT_FAILED, UsageError

if TYPE_CHECKING:
    from kdrv.core.context import Context
    from kdrv.explore.campaign import Away, Limits
    from kdrv.explore.subject import Subject
    from kdrv.sim.faults import FaultKind

SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}
KINDS = {"plain": (False,), "checked": (True,), "both": (False, True)}
DEFAULT_TIME = 60.0


def seconds(_ctx: click.Context, _param: click.Parameter, text: str | None) -> float | None:
    """``90``, ``90s``, ``5m`` or ``2h`` in seconds."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not match or not float(match[1]):
        raise click.BadParameter("expected a time like 90s, 5m or 2h")
    return float(match[1]) * SECONDS[match[2]]


@click.command()
@click.argument("path", required=False)
@click.option("--seeds", type=click.IntRange(1), help="Stop after so many plans.")
@click.option(
    "--time",
    "limit",
    metavar="TIME",
    callback=seconds,
    help="Stop after so long, as 90s, 5m or 2h.  [default: 60s without --seeds]",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="First seed.")
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1),
    help="Runs at once.  [default: processors, or what the cluster has room for]",
)
@click.option("--cluster", metavar="ADDRESS", help="Run on the workers of a Dask scheduler.")
@click.option(
    "--kernels",
    type=click.Choice(list(KINDS)),
    default="both",
    show_default=True,
    help="The fast kernel, the one with KASAN, lockdep and kmemleak, or both in turn.",
)
@click.option("--profile", metavar="NAME|FILE", help="Only a profile's kinds of faults.")
@click.option("--against", metavar="MODULE", help="Compare with another module of the project.")
@click.option("--bugs", "base", metavar="DIR", help="The bug base.  [default: bugs of the project]")
@click.option("--regress", is_flag=True, help="Run the bugs of the base instead of searching.")
@file_option("--html", "Write a report as one HTML page.")
@kernel_option
@toolchain_option
@json_option
def explore(
    path: str | None,
    seeds: int | None,
    limit: float | None,
    seed: int,
    jobs: int | None,
    cluster: str | None,
    kernels: str,
    profile: str | None,
    against: str | None,
    base: str | None,
    regress: bool,
    html: Path | None,
    kernel: str | None,
    toolchain: str,
    as_json: bool,
) -> None:
    """Explore the driver of the project at PATH (default: here) in the simulator.

    Operations come from the project's tests (@operation), or from what the driver shows. Every
    bug is found once, shrunk, and kept in the bug base with the command that replays it.
    """
    from kdrv.core.executor import workers
    from kdrv.explore.subject import prepare
    from kdrv.testing.prepare import make_request
    from kdrv.testing.worlds import rules_of

    project = project_at(path)
    if cluster and regress:
        raise UsageError(
            "--regress runs the bugs on this machine",
            remedy="leave --cluster out",
        )
    if cluster:
        # Nobody shall wait for a kernel to be built, and learn then that there is no cluster.
        with workers(cluster=cluster):
            pass
    request = make_request(
        project,
        "sim",
        kernel=kernel,
        toolchain=toolchain,
        profile=profile or "calm",
        against=against or "",
    )
    kinds = tuple(dict.fromkeys(rule.kind for rule in rules_of(request))) if profile else None
    folder = Path(base) if base else project.root / "bugs"
    with scratch_directory() as scratch:
        with session() as ctx:
            subject = prepare(ctx, request, Path(scratch), kinds=KINDS[kernels])
        if regress:
            ok = _regress(ctx, subject, folder, as_json=as_json)
        else:
            from kdrv.explore.campaign import Away, Limits

            if limit is None and seeds is None:
                limit = DEFAULT_TIME
            limits = Limits(seeds, limit, seed)
            away = Away(cluster, request) if cluster else None
            ok = _campaign(ctx, subject, limits, jobs, kinds, folder, html, away, as_json=as_json)
    sys.exit(0 if ok else EXIT_FAILED)


def _campaign(
    ctx: Context,
    subject: Subject,
    limits: Limits,
    jobs: int | None,
    kinds: tuple[FaultKind, ...] | None,
    folder: Path,
    html: Path | None,
    away: Away | None,
    *,
    as_json: bool,
) -> bool:
    from kdrv.explore.campaign import Campaign
    from kdrv.explore.generate import BEARABLE
    from kdrv.explore.keep import Keeper
    from kdrv.report.exploration import campaign_data, campaign_html, live, show_campaign

    shown = subject.reconnoitre(ctx)
    with live(limits, quiet=as_json) as display:
        keeper = Keeper(folder, subject, display)
        wanted = BEARABLE if kinds is None else kinds
        campaign = Campaign(
            subject, shown, limits, jobs=jobs, kinds=wanted, watcher=keeper, away=away
        )
        result = campaign.run(ctx)
    if html:
        write_file(html, campaign_html(result, subject, keeper.bugs))
        click.echo(f"kdrv: wrote {html}", err=True)
    if as_json:
        print_json(campaign_data(result, subject, keeper.bugs))
    else:
        show_campaign(result, subject, keeper.bugs)
    return result.ok


def _regress(ctx: Context, subject: Subject, folder: Path, *, as_json: bool) -> bool:
    from kdrv.explore.bugbase import load_all
    from kdrv.explore.replay import replay
    from kdrv.report.exploration import replay_data, show_replays

    bugs = load_all(folder)
    if not bugs:
        raise UsageError(
            f"there is no bug in {folder}",
            expected="a bug base, as kdrv explore writes it",
            remedy="kdrv explore",
        )
    bench = subject.bench(ctx, subject.reconnoitre(ctx))
    replays = [(bug, replay(bench, bug, subject.identity)) for bug in bugs]
    if as_json:
        print_json([replay_data(bug, one) for bug, one in replays])
    else:
        show_replays(replays)
    return all(one.ok for _, one in replays)
