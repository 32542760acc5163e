"""``kdrv demo``: the whole way once, ending in a table of what was proven."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from kdrv.cli.common import (
    jobs_option,
    json_option,
    kernel_option,
    print_json,
    scratch_directory,
    session,
    toolchain_option,
)
from kdrv.core.errors import EXIT_FAILED


@click.command()
@kernel_option
@toolchain_option
@jobs_option
@json_option
def demo(kernel: str | None, toolchain: str, jobs: int | None, as_json: bool) -> None:
    """Go the whole way once: set up, scaffold a Rust driver, build and boot both lanes, test."""
    from kdrv.report.terminal import show_demo
    from kdrv.testing.demo import demo as run_demo

    with session(jobs) as ctx, scratch_directory() as scratch:
        result = run_demo(ctx, kernel, toolchain, Path(scratch), quiet=as_json)
    print_json(result) if as_json else show_demo(result)
    sys.exit(0 if result.ok else EXIT_FAILED)
