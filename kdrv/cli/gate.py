"""``kdrv gate``: a patch series judged, patch by patch, in both languages."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kdrv.cli.common import (
    file_option,
    jobs_option,
    lane_options,
    options,
    session,
    toolchain_option,
    write_file,
)
from kdrv.core.errors import UsageError

if TYPE_CHECKING:
    from kdrv.gate.result import GateResult

_output_options = options(
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
    file_option("--junit", "Write JUnit XML, a suite for each patch."),
    file_option("--sarif", "Write new diagnostics as SARIF 2.1.0."),
    file_option("--html", "Write one self-contained HTML page."),
    file_option("--mail", "Write a reply for the mailing list."),
    file_option("--gitlab", "Write a GitLab code quality report."),
    click.option("--github", is_flag=True, help="Print annotations for a GitHub workflow."),
    click.option("--b4", "as_b4", is_flag=True, help="Print b4 review's list of checks, as JSON."),
    click.option("--b4-lines", is_flag=True, help="Print what b4 prep and am expect: lines."),
    click.option("--nipa", is_flag=True, help="Exit 0, 250 (warning) or 1, as NIPA expects."),
)


@click.command()
@click.argument("source", required=False)
@click.option(
    "--repo", metavar="DIR", default=".", help="The kernel's clone.  [default: this directory]"
)
@click.option(
    "--base",
    "base_commit",
    metavar="REV",
    help="What mailed patches stand on.  [default: their base-commit:]",
)
@click.option(
    "--boot",
    type=click.Choice(["each", "tip", "never"]),
    default="tip",
    show_default=True,
    help="After which patches both kernels are booted.",
)
@click.option("--policy", metavar="FILE", help="A kdrv.toml with [policy].  [default: the clone's]")
@click.option(
    "--preset",
    metavar="NAME",
    help="A policy by name: default, driver, abstractions, core or relaxed.",
)
@click.option("--explain", is_flag=True, help="Print the policy in words, and stop.")
@click.option(
    "--init", "init", type=click.Choice(["github", "gitlab", "b4"]), help="Write CI files."
)
@click.option("--cluster", metavar="ADDRESS", help="A Dask scheduler whose workers do the work.")
@toolchain_option
@lane_options
@jobs_option
@_output_options
def gate(
    source: str | None,
    repo: str,
    base_commit: str | None,
    boot: str,
    policy: str | None,
    preset: str | None,
    explain: bool,
    init: str | None,
    cluster: str | None,
    toolchain: str,
    arch: str | None,
    base: str,
    fragments: tuple[str, ...],
    debug: bool,
    jobs: int | None,
    as_json: bool,
    junit: Path | None,
    sarif: Path | None,
    html: Path | None,
    mail: Path | None,
    gitlab: Path | None,
    github: bool,
    as_b4: bool,
    b4_lines: bool,
    nipa: bool,
) -> None:
    """Judge a patch series: every patch, both languages, by what the policy expects.

    SOURCE is BASE..TIP in a kernel's clone, an mbox, a folder of patches, - for standard input, or
    a message-id that b4 fetches; all but the first stand on --base. With --b4 and --b4-lines it is
    - unless said otherwise. Exit code 0: pass, or only warnings; 1: fail; 2: could not be judged.
    """
    from kdrv.core.project import FILENAME

    own = Path(repo, FILENAME)
    file = Path(policy) if policy else own if own.is_file() else None
    if explain:
        from kdrv.gate.policy import load_policy
        from kdrv.gate.policy_words import explain as in_words

        click.echo(in_words(load_policy(file, preset)))
        return
    if init:
        from kdrv.report.gate.init import write_ci_files

        for path in write_ci_files(Path(repo), init):
            click.echo(f"wrote {path}")
        return
    if github and (as_json or as_b4 or b4_lines):
        raise UsageError(
            "--github prints lines between which no program finds its own",
            expected="one view on standard output",
            remedy="run kdrv gate once for each: what was judged is known",
        )
    if (as_b4 or b4_lines) and source is None:
        source = "-"
    if source is None:
        raise UsageError(
            "no series was named",
            expected="BASE..TIP, an mbox, a folder of patches, - or a message-id",
            remedy="kdrv gate HEAD~1..HEAD",
        )
    from kdrv.gate.api import Boots, GateRequest
    from kdrv.gate.api import gate as judge
    from kdrv.kernel.arch import Arch

    request = GateRequest(
        source=source,
        repo=Path(repo),
        base_commit=base_commit,
        text=sys.stdin.buffer.read() if source == "-" else b"",
        toolchain=toolchain,
        arch=Arch(arch) if arch else Arch.X86_64,
        base=base,
        fragments=tuple(Path(name) for name in fragments),
        debug=debug,
        boots=Boots(boot),
        policy=file,
        preset=preset,
        cluster=cluster,
    )
    # b4 takes every line on stderr for a failure.
    with session(jobs, quiet=b4_lines) as ctx:
        result = judge(ctx, request)
    _write(result, {"junit": junit, "sarif": sarif, "html": html, "mail": mail, "gitlab": gitlab})
    if as_json:
        from kdrv.report.gate.data import gate_data

        click.echo(json.dumps(gate_data(result), indent=2, sort_keys=True))
    elif as_b4:
        from kdrv.report.gate.patchwork import b4_checks

        click.echo(json.dumps(b4_checks(result)))
    elif b4_lines:
        from kdrv.report.gate.patchwork import b4_lines as lines_of

        for line in lines_of(result):
            click.echo(line)
    else:
        from kdrv.report.gate.terminal import show_gate

        show_gate(result)
    if github:
        from kdrv.report.gate.annotations import show_github

        show_github(result)
    from kdrv.report.gate.words import exit_code

    sys.exit(_nipa(result) if nipa else exit_code(result))


def _write(result: GateResult, files: dict[str, Path | None]) -> None:
    """The views that go to files, each under its option's name."""
    from kdrv.report.gate.annotations import gitlab_text
    from kdrv.report.gate.junit import junit_text
    from kdrv.report.gate.mail import gate_mail
    from kdrv.report.gate.page import gate_page
    from kdrv.report.gate.sarif import gate_sarif

    views = {
        "junit": junit_text,
        "sarif": gate_sarif,
        "html": gate_page,
        "mail": lambda judged: bytes(gate_mail(judged)).decode(),
        "gitlab": gitlab_text,
    }
    for name, file in files.items():
        if file:
            write_file(file, views[name](result))


def _nipa(result: GateResult) -> int:
    """NIPA's exit code; its one line goes to the descriptor that DESC_FD names."""
    from kdrv.report.gate.patchwork import nipa

    status, line = nipa(result)
    if (descriptor := os.environ.get("DESC_FD", "")).isdecimal():
        os.write(int(descriptor), line.encode() + b"\n")
    return status
