"""``kdrv build``: lanes of a kernel, and modules against them."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from kdrv.cli.common import (
    file_option,
    jobs_option,
    json_option,
    kernel_option,
    lane_options,
    print_json,
    session,
    toolchain_option,
    write_file,
)
from kdrv.core.errors import EXIT_FAILED, UsageError


@click.command()
@click.argument("path", required=False)
@click.option("--rust", is_flag=True, help="The Rust lane instead of the C-only one.")
@click.option("--all", "both", is_flag=True, help="Both lanes.")
@kernel_option
@toolchain_option
@lane_options
@click.option("--check", is_flag=True, help="Also check the code: rustfmt, clippy, checkpatch, …")
@file_option("--sarif", "Write all diagnostics as SARIF 2.1.0.")
@jobs_option
@json_option
def build(
    path: str | None,
    rust: bool,
    both: bool,
    kernel: str | None,
    toolchain: str,
    arch: str | None,
    base: str,
    fragments: tuple[str, ...],
    debug: bool,
    check: bool,
    sarif: Path | None,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Build the C-only lane of a kernel (CONFIG_RUST=n), the Rust lane, or both.

    Without PATH the kernel alone is built. With PATH, the directory of an external module or of a
    project, the module is built against each lane; a kdrv.toml chooses lane and kernel then, unless
    options do. Exit code 1 when a lane is not green.
    """
    from kdrv.build.api import BuildRequest, build_and_check
    from kdrv.build.lane import Language
    from kdrv.kernel.arch import Arch
    from kdrv.report.terminal import show_builds

    if check and path is None:
        raise UsageError(
            "--check is about a driver",
            expected="the directory of a module",
            remedy="kdrv build PATH --check",
        )
    languages = (Language.C, Language.RUST) if both else (Language.RUST if rust else Language.C,)
    request = BuildRequest(
        kernel=kernel,
        toolchain=toolchain,
        languages=languages,
        arch=Arch(arch) if arch else Arch.X86_64,
        debug=debug,
        base=base,
        fragments=tuple(Path(name) for name in fragments),
    )
    if path is not None:
        request = request.for_directory(Path(path), keep_languages=rust or both)
    with session(jobs) as ctx:
        results = build_and_check(ctx, request, check=check)
    if sarif:
        from kdrv.report.sarif import sarif_text

        diagnostics = [d for result in results for d in result.diagnostics]
        write_file(sarif, sarif_text(diagnostics, request.module))
    print_json(results) if as_json else show_builds(results)
    sys.exit(0 if all(result.ok for result in results) else EXIT_FAILED)
