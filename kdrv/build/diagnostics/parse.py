"""From the lines of a make to :class:`Diagnostic` records."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePosixPath

from kdrv.build.diagnostics.compilers import CLANG_TOTAL, COMPILERS, GCC
from kdrv.build.diagnostics.draft import Draft, Rule
from kdrv.build.diagnostics.others import MAKE, MISMATCHES_TOTAL, OTHERS, SECTION_MISMATCH
from kdrv.build.diagnostics.record import Diagnostic, Level
from kdrv.toolchain.base import MODULE, MODULE_OUTPUT, OUTPUT, SOURCE

# "  CC [M]  drivers/x.o": kbuild says what it makes, and the output of that target follows.
_TARGET = re.compile(r"^  (?P<kind>[A-Z][A-Z0-9_+]*)(?: \[M\]| [LPT])? +\S")
_ROOTS = re.compile(rf"(?:{SOURCE}|{MODULE_OUTPUT}|{MODULE}|{OUTPUT})/")
_COLOUR = re.compile(r"\x1b\[[0-9;]*[mK]")
_UNCLAIMED = 15
_RULES: tuple[Rule, ...] = (*COMPILERS, *OTHERS)


def parse(lines: Iterable[str], *, lane: str = "") -> tuple[Diagnostic, ...]:
    """What the tools said in the output of a make, in the order they said it.

    A note belongs to the message above it. The same message about the same place, as a header
    gives in every file that includes it, counts once. make's own ``Error 1`` becomes a record only
    when no tool gave a reason for it: the lines above it are then its detail.
    """
    reader = _Reader()
    for line in lines:
        reader.line(_ROOTS.sub("", _COLOUR.sub("", line.rstrip())))
    unique: dict[tuple[object, ...], Diagnostic] = {}
    for draft in reader.end():
        record = draft.finished()
        record = replace(record, lane=lane, file=_normal(record.file))
        where = (record.tool, record.level, record.message, record.file, record.line, record.column)
        unique.setdefault(where, record)
    return tuple(unique.values())


class _Reader:
    """Goes through the lines once: each begins a record, continues one, or is nobody's."""

    def __init__(self) -> None:
        self._drafts: list[Draft] = []
        self._open: Draft | None = None
        self._prelude: list[str] = []
        self._unclaimed: list[str] = []
        self._kind = ""
        self._first_of_target = 0
        self._explained = False

    def line(self, line: str) -> None:
        """Take in the next line, its paths already relative."""
        if target := _TARGET.match(line):
            self._start_target(target["kind"])
        elif failed := MAKE.match(line):
            self._make_failed(failed)
        elif not (self._open and self._open.takes(line)):
            self._open = None
            self._new(line)

    def end(self) -> list[Draft]:
        """All records."""
        return self._drafts

    def _start_target(self, kind: str) -> None:
        self._kind = kind
        self._first_of_target = len(self._drafts)
        self._open = None
        self._prelude = []
        self._unclaimed = []

    def _new(self, line: str) -> None:
        """A line that continues nothing: the first rule that knows it decides."""
        if CLANG_TOTAL.match(line):
            for draft in self._drafts[self._first_of_target :]:
                draft.tool = "clang" if draft.tool == GCC else draft.tool
        elif MISMATCHES_TOTAL.match(line):
            self._promote_mismatches()
            return
        for rule in _RULES:
            if rule.ignore and rule.ignore.match(line):
                return
            if rule.prelude and rule.prelude.match(line):
                self._prelude.append(line)
                return
            if match := rule.head.match(line):
                self._begin(rule.begin(match, self._prelude), line)
                self._prelude = []
                return
        if line:
            self._unclaimed = [*self._unclaimed[1 - _UNCLAIMED :], line]

    def _begin(self, draft: Draft, line: str) -> None:
        if self._kind == "BINDGEN" and draft.tool in (GCC, "rust program"):
            draft.tool = "bindgen"
        above = self._drafts[-1] if self._drafts[self._first_of_target :] else None
        if draft.level is Level.NOTE and above and above.tool == draft.tool:
            above.details += [*self._prelude, line]
            self._open = above
            return
        if above and above.tool == draft.tool == "bindgen" and above.message in draft.message:
            return  # bindgen repeats what its libclang has just said
        self._explained = self._explained or draft.level is Level.ERROR
        self._drafts.append(draft)
        self._open = draft

    def _promote_mismatches(self) -> None:
        """What modpost called warnings turned out to be errors."""
        self._explained = True
        for draft in self._drafts:
            if draft.code == SECTION_MISMATCH:
                draft.level = Level.ERROR

    def _make_failed(self, failed: re.Match[str]) -> None:
        """``*** [Makefile:12: target] Error 1``: of interest when nobody said why."""
        if not self._explained:
            message = f"{failed['target']}: {failed['message']}"
            place = failed["file"] or "", int(failed["line"] or 0)
            details = self._unclaimed
            self._drafts.append(Draft("make", Level.ERROR, message, *place, details=details))
        # The makes above pass the same failure on.
        self._explained = True
        self._open = None
        self._unclaimed = []


def _normal(file: str) -> str:
    """A path without ``./``, ``a/../`` and the ``../`` that leads from O= back to the tree."""
    if not file or file.startswith(("<", "/")):
        return file
    parts: list[str] = []
    for part in PurePosixPath(file).parts:
        if part != "..":
            parts.append(part)
        elif parts:
            parts.pop()
    return "/".join(parts)
