"""A record in the making, and the rules that recognise the tools' lines."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kdrv.build.diagnostics.record import Diagnostic, Level


@dataclass
class Draft:
    """A diagnostic while its lines still come."""

    tool: str
    level: Level
    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    code: str = ""
    details: list[str] = field(default_factory=list)
    more: re.Pattern[str] | None = None

    def takes(self, line: str) -> bool:
        """Whether the line belongs to this record; if so it has been noted."""
        if not (self.more and self.more.match(line)):
            return False
        self.details.append(line)
        return True

    def finished(self) -> Diagnostic:
        """The record."""
        detail = "\n".join(self.details).strip("\n")
        return Diagnostic(
            tool=self.tool,
            level=self.level,
            message=self.message.strip(),
            file=self.file,
            line=self.line,
            column=self.column,
            code=self.code,
            detail=detail,
        )


Begin = Callable[[re.Match[str], Sequence[str]], Draft]
"""Makes a draft of a matched head line and the lines that led up to it."""


@dataclass(frozen=True)
class Rule:
    """How a tool's records are told: their first line, and lines that only lead up to it.

    ``ignore`` are lines of the tool that say nothing by themselves, such as its totals.
    """

    head: re.Pattern[str]
    begin: Begin
    prelude: re.Pattern[str] | None = None
    ignore: re.Pattern[str] | None = None


def level_of(word: str) -> Level:
    """A tool's word for it as a :class:`Level`; what ends the tool is an error."""
    lowered = word.lower()
    if "warning" in lowered:
        return Level.WARNING
    return Level.NOTE if lowered in ("note", "help") else Level.ERROR


def simple(
    tool: str, *, level: Level | None = None, code: str = "", more: re.Pattern[str] | None = None
) -> Begin:
    """A maker of drafts from the named groups of a head: level, message, file, line, …

    ``level`` and ``code`` stand in for groups the head does not have.
    """

    def begin(match: re.Match[str], prelude: Sequence[str]) -> Draft:
        groups = match.groupdict(default="")
        return Draft(
            tool=groups.get("tool") or tool,
            level=level or level_of(groups["level"]),
            message=groups["message"],
            file=groups.get("file", ""),
            line=int(groups.get("line") or 0),
            column=int(groups.get("column") or 0),
            code=groups.get("code") or code,
            details=list(prelude),
            more=more,
        )

    return begin
