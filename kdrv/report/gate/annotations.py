"""What is new, at its lines in a code host's view of the change."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections import Counter
from collections.abc import Iterator
from typing import Any

import click

from kdrv.build.diagnostics import Diagnostic, Level, ordered
from kdrv.gate.result import GateResult, Outcome
from kdrv.report.gate.fit import fit
from kdrv.report.gate.terminal import show_gate
from kdrv.report.gate.words import Finding, findings, first

MOST = 10
"""GitHub shows no more errors, and no more warnings, of one step."""
_GITHUB = {Outcome.FAIL: "error", Outcome.WARN: "warning", Outcome.UNKNOWN: "warning"}
_SEVERITIES = {Outcome.FAIL: "major", Outcome.WARN: "minor", Outcome.UNKNOWN: "info"}


def show_github(result: GateResult) -> None:
    """Print the report and then the annotations, for the log of a GitHub workflow.

    The runner obeys any line of the log that looks like a command: a compiler's output, a patch's
    subject. While the report is printed its commands are stopped, by a word that cannot be guessed.
    """
    word = secrets.token_hex(16)
    click.echo(f"::stop-commands::{word}")
    show_gate(result)
    click.echo(f"::{word}::")
    for line in github(result):
        click.echo(line)


def github(result: GateResult) -> list[str]:
    """Workflow commands that annotate lines, most urgent first, as many as GitHub shows."""
    result = fit(result)
    lines = []
    told: Counter[str] = Counter()
    for finding, diagnostic in _placed(result):
        kind = _GITHUB[finding.check.outcome]
        if diagnostic and diagnostic.level is Level.NOTE:
            kind = "notice"
        told[kind] += 1
        if told[kind] <= MOST:
            lines.append(_command(kind, finding, diagnostic))
    more = sum(number - MOST for number in told.values() if number > MOST)
    return [*lines, *([f"::notice::and {more} more, which the report has"] if more else [])]


def _command(kind: str, finding: Finding, diagnostic: Diagnostic | None) -> str:
    check = finding.check
    properties = {"title": f"{finding.whose}: {check.name}"}
    text = finding.sentence
    if diagnostic:
        text = diagnostic.message + (f" [{diagnostic.code}]" if diagnostic.code else "")
        if diagnostic.file:
            properties["file"] = diagnostic.file
            places = {"line": diagnostic.line, "col": diagnostic.column}
            properties |= {name: str(number) for name, number in places.items() if number}
        if finding.breaks:
            text += f"\n{finding.sentence}"
    if check.reproducer:
        text += f"\nreproduce: {check.reproducer}"
    told = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::{kind} {told}::{_text(text)}"


def _text(text: str) -> str:
    """As @actions/core's command.ts escapes a command's text."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """As it escapes a command's properties."""
    return _text(text).replace(":", "%3A").replace(",", "%2C")


def gitlab_text(result: GateResult) -> str:
    """A file of GitLab's Code Quality reports.

    The format demands a place: what has none stands at the first line of the first file that its
    patch changes. Fingerprints say what a finding is about, not on which line it is, so that
    GitLab knows it again; they are numbered where several are alike, as they must be unique.
    """
    result = fit(result)
    alike: Counter[tuple[str, ...]] = Counter()
    found = []
    for finding, diagnostic in _placed(result):
        key = (finding.check.name, *(diagnostic.key if diagnostic else (finding.whose,)))
        alike[key] += 1
        digest = hashlib.sha256("\0".join((*key, str(alike[key]))).encode()).hexdigest()
        found.append(_quality(finding, diagnostic, digest))
    return json.dumps(found, indent=2) + "\n"


def _quality(finding: Finding, diagnostic: Diagnostic | None, digest: str) -> dict[str, Any]:
    check = finding.check
    severity = _SEVERITIES[check.outcome]
    description, code, path, line = finding.sentence, "", "", 0
    if diagnostic:
        description, code = f"{finding.whose}: {diagnostic.message}", diagnostic.code
        path, line = diagnostic.file, diagnostic.line
        severity = "info" if diagnostic.level is Level.NOTE else severity
    return {
        "description": description,
        "check_name": f"{check.name}: {code}" if code else check.name,
        "fingerprint": digest,
        "severity": severity,
        "location": {"path": path or _some_path(finding), "lines": {"begin": max(line, 1)}},
    }


def _some_path(finding: Finding) -> str:
    patches = [finding.patch] if finding.patch else finding.result.patches
    return next((path for patch in patches for path in patch.patch.paths), "Makefile")


def _placed(result: GateResult) -> Iterator[tuple[Finding, Diagnostic | None]]:
    """Each thing to tell: a check's new diagnostics, or the check itself where it has none."""
    urgent = first(result)
    rest = [finding for finding in findings(result) if finding != urgent]
    for finding in [*([urgent] if urgent else []), *rest]:
        yield from ((finding, one) for one in ordered(finding.check.diagnostics) or (None,))
