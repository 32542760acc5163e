"""``kdrv setup``: provision everything, so that later commands need no network."""

from __future__ import annotations

import click

from kdrv.cli.common import (
    jobs_option,
    json_option,
    kernel_option,
    print_json,
    session,
    toolchain_option,
)


@click.command()
@kernel_option
@toolchain_option
@click.option("--mirror", metavar="URL", help="A Debian archive in place of the one apt names.")
@click.option("--update", is_flag=True, help="Look for a newer package of the kernel sources.")
@jobs_option
@json_option
def setup(
    kernel: str | None,
    toolchain: str,
    mirror: str | None,
    update: bool,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Provision the toolchain and the kernel sources.

    Every other command does this by itself when something is missing.
    """
    from kdrv.kernel import source
    from kdrv.toolchain.select import select

    with session(jobs, mirror=mirror or "") as ctx:
        tree = source.obtain(ctx, kernel, refresh=update)
        tools = select(ctx, toolchain, tree.path)
    if as_json:
        print_json(
            {
                "kernel": {"path": tree.path, "version": str(tree.version), "origin": tree.origin},
                "toolchain": {"name": tools.name, "versions": tools.versions},
            }
        )
        return
    click.echo(f"kernel     Linux {tree.version} ({tree.origin})")
    click.echo(f"toolchain  {tools.name}")
    for name, version in tools.versions.items():
        click.echo(f"  {name:<16} {version}")
