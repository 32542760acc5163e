"""``kdrv test``: boot the kernels and run a driver's tests in them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kdrv.cli.common import (
    jobs_option,
    json_option,
    kernel_option,
    lane_options,
    print_json,
    scratch_directory,
    session,
    toolchain_option,
)
from kdrv.core.errors import EXIT_FAILED, UsageError

if TYPE_CHECKING:
    from kdrv.core.project import Project


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--qemu", "world", flag_value="qemu", help="Boot on emulated hardware in QEMU.")
@click.option("--sim", "world", flag_value="sim", help="Boot in the deterministic simulator.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Seed of time, interrupts and faults in the simulator.",
)
@click.option(
    "--profile",
    metavar="NAME|FILE",
    default="calm",
    show_default=True,
    help="What goes wrong in the simulator: calm, lossy, hostile, removal, oom, a [faults.NAME] of "
    "kdrv.toml, or a TOML file.",
)
@kernel_option
@toolchain_option
@lane_options
@jobs_option
@json_option
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def test(
    world: str | None,
    seed: int,
    profile: str,
    kernel: str | None,
    toolchain: str,
    arch: str | None,
    base: str,
    fragments: tuple[str, ...],
    debug: bool,
    jobs: int | None,
    as_json: bool,
    arguments: tuple[str, ...],
) -> None:
    """Boot the kernel with the driver and its hardware, run the tests, shut down.

    ARGUMENTS may begin with the project's directory; the others go to pytest (-k, -x, --pdb,
    --junitxml, test names). Without a project, both lanes of the kernel itself are booted and the
    in-tree Rust samples loaded on their emulated devices.
    """
    from kdrv.kernel.arch import Arch
    from kdrv.testing.prepare import make_request

    if world is None:
        raise UsageError(
            "say where to run the tests",
            expected="--qemu (emulated hardware) or --sim (the simulator)",
            remedy="kdrv test --qemu",
        )
    if world != "sim" and (seed or profile != "calm"):
        raise UsageError(
            "--seed and --profile are for the simulator",
            remedy="kdrv test --sim, with the same options",
        )
    project, rest = _project(arguments)
    request = make_request(
        project,
        world,
        kernel=kernel,
        toolchain=toolchain,
        arch=Arch(arch) if arch else None,
        debug=debug,
        base=base,
        fragments=fragments,
        seed=seed,
        profile=profile,
    )
    with session(jobs) as ctx, scratch_directory() as scratch:
        if project is None:
            if rest:
                raise UsageError(
                    f"{rest[0]} is neither a project nor inside one",
                    expected="a directory with a kdrv.toml, here or above",
                    remedy="kdrv new NAME",
                )
            from kdrv.report.terminal import show_smoke
            from kdrv.testing.smoke import smoke

            outcome = smoke(ctx, request, Path(scratch))
            print_json(outcome) if as_json else show_smoke(outcome)
            ok = outcome.ok
        else:
            from kdrv.report.terminal import show_run
            from kdrv.testing.run import run_project

            result = run_project(ctx, request, rest, Path(scratch), quiet=as_json)
            print_json(result) if as_json else show_run(result)
            ok = result.ok
    sys.exit(0 if ok else EXIT_FAILED)


def _project(arguments: tuple[str, ...]) -> tuple[Project | None, tuple[str, ...]]:
    """The project the arguments name or lie in, and the arguments that are pytest's."""
    from kdrv.core.project import FILENAME, find_project, load_project

    if arguments and not arguments[0].startswith("-"):
        first = Path(arguments[0])
        if first.is_dir() and (first / FILENAME).is_file():
            return load_project(first), arguments[1:]
        place = Path(arguments[0].split("::")[0])
        if place.exists() and (root := find_project(place)):
            return load_project(root), arguments
        if not place.exists() and find_project(Path.cwd()) is None:
            raise UsageError(
                f"{place} does not exist",
                expected="a driver's project (a directory with a kdrv.toml)",
                remedy="kdrv new NAME",
            )
    root = find_project(Path.cwd())
    return (load_project(root) if root else None), arguments
