"""The record of one thing a tool said, how records are grouped, and how two builds compare."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


_RANK = {Level.ERROR: 0, Level.WARNING: 1, Level.NOTE: 2}

# What changes when code merely moves: line numbers, addresses, the number of a static assertion,
# the hash of a crate in a symbol.
_SHIFTING = (
    (re.compile(r"(?<=__compiletime_assert_)\d+"), ""),
    (re.compile(r"(?<=[\w.]):\d+(?::\d+)?\b"), ":"),
    (re.compile(r"\+?0x[0-9a-f]+"), ""),
    (re.compile(r"(?<=C)s[0-9A-Za-z]+_(?=\d)"), ""),
)
_QUOTED = re.compile(r"^ *(?P<line>\d+) \| ?(?P<source>.*\S)", re.M)


@dataclass(frozen=True)
class Diagnostic:
    """One message of one tool.

    ``file`` is relative to the kernel tree, or to the module's directory for an external module;
    ``line`` and ``column`` count from 1, and 0 means unknown. For what a macro expands to, the
    place is where the macro is used. ``code`` is the tool's own name for the kind of message
    (``-Wunused-variable``, ``E0308``, ``clippy::len_zero``). ``detail`` are the further lines the
    tool printed: the source it quotes, notes, help.
    """

    tool: str
    level: Level
    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    code: str = ""
    lane: str = ""
    detail: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """What the message is about, whatever line it stands on.

        The same message about the same source text in the same file has the same key, wherever
        the text has moved to. The code is left out: rustc names a lint only once in a crate.
        """
        quoted = [q["source"] for q in _QUOTED.finditer(self.detail) if int(q["line"]) == self.line]
        # The last one: where a macro is used comes after what it expands to.
        source = " ".join(quoted[-1].split()) if quoted else ""
        message = self.message
        for pattern, instead in _SHIFTING:
            message = pattern.sub(instead, message)
        return self.tool, self.level, self.file, message, source

    @property
    def place(self) -> str:
        """``file:line:column``, as far as it is known."""
        parts = [self.file, *(str(number) for number in (self.line, self.column) if number)]
        return ":".join(parts) if self.file else ""


def ordered(diagnostics: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """Errors first, then by file, line and column."""
    return tuple(
        sorted(diagnostics, key=lambda d: (_RANK[d.level], d.file, d.line, d.column, d.tool))
    )


def by_file(
    diagnostics: Iterable[Diagnostic],
) -> dict[str, dict[str, tuple[Diagnostic, ...]]]:
    """By file and then by tool, as a person reads them; files with errors come first.

    What has no file stands under the empty name.
    """
    grouped: dict[str, dict[str, tuple[Diagnostic, ...]]] = {}
    for diagnostic in ordered(diagnostics):
        tools = grouped.setdefault(diagnostic.file, {})
        tools[diagnostic.tool] = (*tools.get(diagnostic.tool, ()), diagnostic)
    return grouped


def fresh(before: Iterable[Diagnostic], after: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """What ``after`` has and ``before`` has not, by :attr:`Diagnostic.key`, one against one.

    A message that only moved is not fresh; a second one just like it is.
    """
    known = Counter(diagnostic.key for diagnostic in before)
    found = []
    for diagnostic in after:
        if known[diagnostic.key]:
            known[diagnostic.key] -= 1
        else:
            found.append(diagnostic)
    return tuple(found)
