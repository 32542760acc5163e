"""A check in plain lines, for views that have room for text only."""

from __future__ import annotations

from collections.abc import Sequence

from kdrv.build.diagnostics import Diagnostic, ordered
from kdrv.gate.result import Check

MOST = 20


def diagnostic_lines(diagnostics: Sequence[Diagnostic], most: int = MOST) -> list[str]:
    """Diagnostics as a compiler writes them, errors first; a note of how many were left out."""
    lines = [diagnostic_line(diagnostic) for diagnostic in ordered(diagnostics)[:most]]
    more = len(diagnostics) - most
    return [*lines, *([f"and {more} more"] if more > 0 else [])]


def diagnostic_line(one: Diagnostic) -> str:
    """``file:line:column: error: message [code]``."""
    place = f"{one.place}: " if one.place else ""
    code = f" [{one.code}]" if one.code else ""
    return f"{place}{one.level.value}: {one.message}{code}"


def check_lines(check: Check, most: int = MOST) -> list[str]:
    """All there is to say of a check below its summary: what is new, details, policy, command."""
    detail = [line for text in check.detail for line in text.splitlines()]
    more = len(detail) - most
    return [
        *diagnostic_lines(check.diagnostics, most),
        *detail[:most],
        *([f"and {more} more lines"] if more > 0 else []),
        *([f"policy: {check.policy}"] if check.policy else []),
        *([f"reproduce: {check.reproducer}"] if check.reproducer else []),
    ]
