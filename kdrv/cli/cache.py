"""``kdrv cache``: what is kept between runs, and getting rid of it."""

from __future__ import annotations

import time

import click

from kdrv.cli.common import json_option, print_json, session


@click.group(invoke_without_command=True)
@click.pass_context
def cache(ctx: click.Context) -> None:
    """List and prune what kdrv keeps between runs."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_)


@cache.command("list")
@json_option
def list_(as_json: bool = False) -> None:
    """List the entries, the most recently used first."""
    from kdrv.core.show import size
    from kdrv.core.usage import survey

    with session(quiet=True) as ctx:
        report = survey(ctx)
    if as_json:
        print_json(report)
        return
    for item in report.items:
        state = "" if item.finished else "  (interrupted)"
        days = max(0.0, time.time() - item.used_at) / 86400
        click.echo(f"{size(item.bytes):>8}  {days:4.0f} d  {item.kind:<10} {item.about}{state}")
    click.echo(f"{size(report.total):>8}  in {report.root}")


@cache.command()
@click.option("--all", "everything", is_flag=True, help="Remove every entry.")
@click.option("--days", type=click.FloatRange(0), help="Remove what was unused for so many days.")
@click.option("--keep", type=click.IntRange(0), help="Keep the so many last used of each kind.")
@json_option
def prune(everything: bool, days: float | None, keep: int | None, as_json: bool) -> None:
    """Remove interrupted entries, and those the options name; without options, 30 days unused.

    Small things stay: what kdrv gate has found, and which tools were chosen for which tree.
    """
    from kdrv.core.show import size
    from kdrv.core.usage import prune as prune_cache

    if not everything and days is None and keep is None:
        days = 30.0
    with session(quiet=as_json) as ctx:
        removed = prune_cache(ctx, days=0.0 if everything else days, keep=keep)
    if as_json:
        print_json(removed)
        return
    for item in removed:
        click.echo(f"removed {size(item.bytes):>8}  {item.kind:<10} {item.about}")
    click.echo(f"{size(sum(item.bytes for item in removed))} freed")
