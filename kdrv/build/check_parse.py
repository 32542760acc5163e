"""From what the checkers print to diagnostics.

Each parser is given whole output and takes from it only what is its tool's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import takewhile
from typing import Any

from kdrv.build.diagnostics import Diagnostic, Level

_RUSTFMT_DIFF = re.compile(r"^Diff in (?P<file>.+?)(?::| at line )(?P<line>\d+):$")
_RUSTFMT_ERROR = re.compile(r"^error(?:\[\w+\])?: (?P<message>.+)$")
_RUSTC_PLACE = re.compile(r"^\s*--> (?P<file>.+):(?P<line>\d+):(?P<column>\d+)$")
_RUSTC_SUMMARY = re.compile(r"^aborting due to|^\d+ warnings? emitted$")
_CHECKPATCH = re.compile(
    r"^(?P<file>[^:]*):(?P<line>\d+): (?P<level>ERROR|WARNING|CHECK):(?P<code>[A-Z0-9_]+): "
    r"(?P<message>.*)$"
)
_KERNEL_DOC = re.compile(
    r"^(?P<level>Warning|Error): (?P<file>[^:]+):(?P<line>\d+) (?P<message>.+)$"
)


def rustfmt(output: str) -> tuple[Diagnostic, ...]:
    """``rustfmt --check``: a warning for each place it would write differently, the difference as
    detail, and an error for each place it cannot parse. A file it met twice, by name and as a
    module of another, counts once.
    """
    found: list[Diagnostic] = []
    lines = output.splitlines()
    for number, line in enumerate(lines):
        if diff := _RUSTFMT_DIFF.match(line):
            hunk = list(takewhile(lambda text: text[:1] in tuple(" +-"), lines[number + 1 :]))
            unchanged = takewhile(lambda text: not text.startswith(("-", "+")), hunk)
            found.append(
                Diagnostic(
                    tool="rustfmt",
                    level=Level.WARNING,
                    message="not formatted as rustfmt does it",
                    file=diff["file"],
                    line=int(diff["line"]) + len(list(unchanged)),
                    detail="\n".join(hunk),
                )
            )
        elif error := _RUSTFMT_ERROR.match(line):
            place = _RUSTC_PLACE.match(lines[number + 1]) if number + 1 < len(lines) else None
            if place:
                found.append(
                    Diagnostic(
                        tool="rustfmt",
                        level=Level.ERROR,
                        message=error["message"],
                        file=place["file"],
                        line=int(place["line"]),
                        column=int(place["column"]),
                    )
                )
    return tuple(dict.fromkeys(found))


def rust_json(output: str, tool: str, sources: str) -> tuple[Diagnostic, ...]:
    """rustc's, clippy's or rustdoc's ``--error-format=json`` (The rustc book, "JSON Output").

    What happens inside a macro is placed where a file below ``sources`` calls it.
    """
    found = []
    for line in output.splitlines():
        if not line.startswith("{"):
            continue
        try:
            message = json.loads(line)
            if message.get("$message_type") == "diagnostic":
                found.append(_rust(message, tool, sources))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            continue  # a macro may print anything, also what only looks like a message
    return tuple(one for one in dict.fromkeys(found) if one)


def checkpatch(output: str, check: Level = Level.WARNING) -> tuple[Diagnostic, ...]:
    """``checkpatch.pl --terse --show-types``; ``check`` is the level of its CHECKs, asked for by
    --strict. What is about a patch's message has no file (``--showfile``)."""
    levels = {"ERROR": Level.ERROR, "WARNING": Level.WARNING, "CHECK": check}
    return tuple(
        Diagnostic(
            tool="checkpatch",
            level=levels[match["level"]],
            message=match["message"],
            file=match["file"],
            line=int(match["line"]) if match["file"] else 0,
            code=match["code"],
        )
        for match in _matches(_CHECKPATCH, output)
    )


def kernel_doc(output: str) -> tuple[Diagnostic, ...]:
    """``kernel-doc -none``, which says most things twice."""
    found = (
        Diagnostic(
            tool="kernel-doc",
            level=Level(match["level"].lower()),
            message=match["message"],
            file=match["file"],
            line=int(match["line"]),
        )
        for match in _matches(_KERNEL_DOC, output)
    )
    return tuple(dict.fromkeys(found))


def _matches(pattern: re.Pattern[str], output: str) -> Iterator[re.Match[str]]:
    return (match for line in output.splitlines() if (match := pattern.match(line)))


def _rust(message: Mapping[str, Any], tool: str, sources: str) -> Diagnostic | None:
    """One message; ``None`` for notes and for the summaries at the end ("2 warnings emitted")."""
    if message["level"] not in ("error", "warning"):
        return None
    code = (message["code"] or {}).get("code", "")
    span = next((s for s in message["spans"] if s["is_primary"]), None)
    if span is None and not code and _RUSTC_SUMMARY.search(message["message"]):
        return None
    while span and not span["file_name"].startswith(sources) and span["expansion"]:
        span = span["expansion"]["span"]
    return Diagnostic(
        tool=tool,
        level=Level(message["level"]),
        message=message["message"],
        file=span["file_name"] if span else "",
        line=span["line_start"] if span else 0,
        column=span["column_start"] if span else 0,
        code=code,
        detail=(message["rendered"] or "").rstrip(),
    )
