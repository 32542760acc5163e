"""Diagnostics as SARIF 2.1.0, the form that code hosts and editors read.

Written by hand: of the libraries, sarif-om has had no release since 2019, and sarif-pydantic would
bring pydantic for the sake of this one dictionary. Section numbers are those of the OASIS standard.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any
from urllib.parse import quote

import kdrv
from kdrv.build.diagnostics import Diagnostic

VERSION = "2.1.0"
SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
BASE = "SRCROOT"
FINGERPRINT = "kdrv/v1"


Properties = Mapping[str, str | int]


def sarif(
    diagnostics: Iterable[Diagnostic],
    root: Path | None = None,
    properties: Iterable[Properties] = (),
) -> dict[str, Any]:
    """A SARIF log with one run for each tool of each lane, in order of appearance.

    ``root`` is the directory that the diagnostics' files are relative to: the kernel tree, or the
    module's directory. ``properties`` are what else each of the first results is to say. Each
    result carries the diagnostic's key as its fingerprint, so that a reader knows it again after
    it has moved.
    """
    runs: dict[tuple[str, str], list[tuple[Diagnostic, Properties]]] = {}
    for diagnostic, more in zip(diagnostics, chain(properties, repeat({})), strict=False):
        runs.setdefault((diagnostic.lane, diagnostic.tool), []).append((diagnostic, more))
    converted = [_run(lane, tool, found, root) for (lane, tool), found in runs.items()]
    return {
        "$schema": SCHEMA,
        "version": VERSION,
        "runs": converted or [_run("", "kdrv", (), root)],
    }


def sarif_text(
    diagnostics: Iterable[Diagnostic],
    root: Path | None = None,
    properties: Iterable[Properties] = (),
) -> str:
    """The SARIF log as the text of a file."""
    log = sarif(diagnostics, root, properties)
    return json.dumps(log, indent=2, ensure_ascii=False) + "\n"


def _run(
    lane: str, tool: str, found: Sequence[tuple[Diagnostic, Properties]], root: Path | None
) -> dict[str, Any]:
    codes = list(dict.fromkeys(d.code for d, _ in found if d.code))
    run: dict[str, Any] = {
        "tool": {"driver": {"name": tool, "rules": [{"id": code} for code in codes]}},
        # The tools wrote text; kdrv made it SARIF (section 3.22).
        "conversion": {"tool": {"driver": {"name": "kdrv", "version": kdrv.__version__}}},
        "automationDetails": {"id": f"kdrv/{lane or 'build'}/{tool}"},
        "columnKind": "unicodeCodePoints",
        "results": [_result(diagnostic, codes, root, more) for diagnostic, more in found],
    }
    if root is not None:
        run["originalUriBaseIds"] = {BASE: {"uri": root.absolute().as_uri() + "/"}}
    return run


def _result(
    diagnostic: Diagnostic, codes: Sequence[str], root: Path | None, more: Properties
) -> dict[str, Any]:
    digest = hashlib.sha256("\0".join(diagnostic.key).encode()).hexdigest()
    # Braces are doubled, as single ones hold the place of arguments (section 3.11.5).
    text = diagnostic.message.replace("{", "{{").replace("}", "}}")
    result: dict[str, Any] = {
        "level": diagnostic.level.value,
        "message": {"text": text},
        "partialFingerprints": {FINGERPRINT: digest},
    }
    detail = {"detail": diagnostic.detail} if diagnostic.detail else {}
    if detail or more:
        result["properties"] = {**detail, **more}
    if diagnostic.code:
        result["ruleId"] = diagnostic.code
        result["ruleIndex"] = codes.index(diagnostic.code)
    if diagnostic.file and not diagnostic.file.startswith("<"):
        result["locations"] = [{"physicalLocation": _location(diagnostic, root)}]
    return result


def _location(diagnostic: Diagnostic, root: Path | None) -> dict[str, Any]:
    file = diagnostic.file
    if file.startswith("/"):
        return {"artifactLocation": {"uri": Path(file).as_uri()}, **_region(diagnostic)}
    artifact = {"uri": quote(file)}
    if root is not None:
        artifact["uriBaseId"] = BASE
    return {"artifactLocation": artifact, **_region(diagnostic)}


def _region(diagnostic: Diagnostic) -> dict[str, Any]:
    """Where in the file; a region without a line is not allowed (section 3.30)."""
    if not diagnostic.line:
        return {}
    region = {"startLine": diagnostic.line}
    if diagnostic.column:
        region["startColumn"] = diagnostic.column
    return {"region": region}
