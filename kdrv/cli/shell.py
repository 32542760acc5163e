"""``kdrv shell``: the machine of a test, with its console in your hands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from kdrv.cli.common import (
    jobs_option,
    kernel_option,
    lane_options,
    project_at,
    scratch_directory,
    session,
    toolchain_option,
)


@click.command()
@click.argument("path", required=False)
@kernel_option
@toolchain_option
@lane_options
@jobs_option
def shell(
    path: str | None,
    kernel: str | None,
    toolchain: str,
    arch: str | None,
    base: str,
    fragments: tuple[str, ...],
    debug: bool,
    jobs: int | None,
) -> None:
    """Boot the machine of the project at PATH (default: here) and hand over its console.

    The driver's modules are in /kdrv/modules. Ctrl-] leaves; so does leaving the guest's shell.
    """
    from kdrv.kernel.arch import Arch
    from kdrv.qemu.shell import SHELL, interact, require_terminal
    from kdrv.qemu.world import QemuWorld
    from kdrv.testing.prepare import MODULES, make_request, prepare_project

    require_terminal()
    request = make_request(
        project_at(path),
        "qemu",
        kernel=kernel,
        toolchain=toolchain,
        arch=Arch(arch) if arch else None,
        debug=debug,
        base=base,
        fragments=fragments,
    )
    with scratch_directory() as scratch:
        with session(jobs) as ctx:
            prepared = prepare_project(ctx, request, Path(scratch))
        spec = replace(prepared.spec, cmdline=(*prepared.spec.cmdline, SHELL))
        click.echo(f"kdrv: modules are in {MODULES}; Ctrl-] leaves", err=True)
        with session(jobs, quiet=True) as ctx:
            world = QemuWorld(prepared.bench.toolchain, ctx)
            with world.boot(spec) as machine:
                interact(machine)
