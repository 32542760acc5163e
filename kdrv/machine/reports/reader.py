"""Reads a console's lines into reports."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from kdrv.machine.reports.draft import Draft, refined
from kdrv.machine.reports.kinds import CUT_HERE, MAPPED_AT, OPENINGS, Kind, Opening
from kdrv.machine.reports.lines import Line, kernel_lines
from kdrv.machine.reports.record import Report

_STALLS = frozenset({Kind.RCU_STALL, Kind.HARD_LOCKUP, Kind.WORKQUEUE_LOCKUP})
_HEAD = 24
"""Lines that may stand above a report's first line and belong to it; um's registers are most."""


def read(lines: Iterable[str]) -> Iterator[Report]:
    """All reports in a console's lines, in the order they began. Never raises."""
    return _Reader().reports(lines)


class _Reader:
    """Reads lines into drafts, one open draft for every caller id."""

    def __init__(self) -> None:
        self._open: dict[str, Draft] = {}
        self._done: list[Draft] = []
        self._before: dict[str, list[Line]] = {}

    def reports(self, lines: Iterable[str]) -> Iterator[Report]:
        for order, line in enumerate(kernel_lines(lines)):
            self._read(order, line)
            recent = self._before.setdefault(line.caller, [])
            recent.append(line)
            del recent[:-_HEAD]
        self._done += self._open.values()
        for draft in sorted(self._done, key=lambda draft: draft.order):
            report = draft.report()
            if report:
                yield report

    def _read(self, order: int, line: Line) -> None:
        draft = self._open.get(line.caller)
        opened = _opened(line.text)
        if opened or line.text == CUT_HERE:
            opening, match = opened or (None, None)
            if draft and draft.absorbs(opening.kind if opening else None):
                if draft.opening is None:
                    draft.begin(opening, match)
                elif opening:
                    draft.muted = True
            else:
                self._finish(line.caller)
                draft = Draft(order)
                for above in self._head(line.caller, opening):
                    draft.take(above)
                draft.begin(opening, match)
                self._open[line.caller] = draft
        elif draft is None and line.text == MAPPED_AT:
            draft = self._reopened(line.caller)
        elif draft is None:
            # the other processors of a stall answer under ids of their own
            draft = next((d for d in self._open.values() if d.kind in _STALLS), None)
        if draft and (not draft.take(line) or draft.closed):
            self._done.append(draft)
            self._open = {who: other for who, other in self._open.items() if other is not draft}

    def _reopened(self, caller: str) -> Draft | None:
        """The warning that ended just now, for the stack that follows it."""
        if not (self._done and self._done[-1].kind is Kind.WARN):
            return None
        draft = self._open[caller] = self._done.pop()
        draft.reopen()
        return draft

    def _finish(self, caller: str) -> None:
        draft = self._open.pop(caller, None)
        if draft:
            self._done.append(draft)

    def _head(self, caller: str, opening: Opening | None) -> list[Line]:
        """The lines just above a report's first line that belong to it."""
        head: list[Line] = []
        for line in reversed(self._before.get(caller, [])):
            if opening is None:
                belongs = refined([line.text]) is not None
            else:
                belongs = bool(opening.head and opening.head.match(line.text))
            if not belongs:
                break
            head.insert(0, line)
        return head


def _opened(text: str) -> tuple[Opening, re.Match[str]] | None:
    for opening in OPENINGS:
        match = opening.pattern.search(text)
        if match:
            return opening, match
    return None
