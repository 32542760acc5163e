"""A judged series for a person at a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from kdrv.build.diagnostics import Diagnostic, Level, by_file
from kdrv.core.show import duration
from kdrv.gate.result import Break, GateResult, Outcome, PatchResult
from kdrv.report.gate.fit import fit
from kdrv.report.gate.table import STYLES, plain_lines, show_table
from kdrv.report.gate.words import (
    Finding,
    blast_words,
    blasts,
    break_words,
    change_lines,
    columns,
    findings,
    first,
    place_of,
    symbol_words,
    toolchain_words,
    use_words,
    verdict,
)

MOST_DIAGNOSTICS = 10
"""Of one check."""
MOST_OF_ALL = 80
MOST_DETAIL = 20
MOST_SYMBOLS = 6
_LEVELS = {Level.ERROR: "red", Level.WARNING: "yellow", Level.NOTE: "cyan"}
_MARKS = {
    Outcome.PASS: "ok    ",
    Outcome.WARN: "warn  ",
    Outcome.FAIL: "FAILED",
    Outcome.SKIP: "skip  ",
    Outcome.UNKNOWN: "?     ",
}
_VERDICTS = {Outcome.FAIL: "FAILED", Outcome.UNKNOWN: "NOT JUDGED"}
_FIRST = {
    Outcome.FAIL: "Fix first:",
    Outcome.UNKNOWN: "Not judged:",
    Outcome.WARN: "Look at first:",
}


def show_gate(result: GateResult, console: Console | None = None) -> None:
    """Print what was found: what to fix first, the table, and why.

    Where there is no terminal, every line stands by itself and none is wrapped. A green series is
    told in a few lines.
    """
    _View(fit(result), console or Console(highlight=False)).show()


class _View:
    def __init__(self, result: GateResult, console: Console) -> None:
        self._result = result
        self._console = console
        self._left = MOST_OF_ALL

    def show(self) -> None:
        found = findings(self._result)
        if found:
            self._first()
            self._table()
            for broken in self._result.breaks:
                self._break(broken)
            self._findings(found)
        self._blasts(short=not found)
        self._last()

    def _say(self, indent: int, *parts: str | tuple[str, str], whole: bool = False) -> None:
        """A line, wrapped on a terminal with its rest under its beginning, unless it is to be
        copied ``whole``."""
        text = Text.assemble(*parts)
        if whole or not self._console.is_terminal:
            self._console.print(Text(" " * indent) + text, soft_wrap=True)
            return
        for line in text.wrap(self._console, max(20, self._console.width - indent)):
            line.rstrip()
            self._console.print(Text(" " * indent) + line, no_wrap=True)

    def _gap(self) -> None:
        self._console.print()

    def _again(self, indent: int, command: str) -> None:
        if command:
            self._say(indent, ("reproduce: ", "bold"), command, whole=True)

    def _first(self) -> None:
        finding = first(self._result)
        if finding is None:
            return
        outcome = finding.check.outcome
        self._say(0, (f"{_FIRST[outcome]} ", STYLES[outcome]), finding.sentence)
        if finding.place:
            self._say(2, finding.place)
        if finding.breaks and outcome is Outcome.FAIL:
            uses = [use for symbol in finding.breaks.symbols for use in symbol.uses]
            if uses:
                self._say(2, f"used in {use_words(uses)}")
        self._again(2, finding.check.reproducer)
        self._gap()

    def _table(self) -> None:
        if not self._result.patches:
            return
        if self._console.is_terminal:
            show_table(self._result, self._console)
        else:
            for line in plain_lines(self._result):
                self._say(0, line)
        self._gap()

    def _break(self, broken: Break) -> None:
        self._say(0, (break_words(broken), STYLES[Outcome.FAIL]))
        for symbol in broken.symbols[:MOST_SYMBOLS]:
            self._say(2, symbol_words(symbol))
            for word, text in change_lines(symbol):
                self._say(4, (f"{word:<4} ", "dim"), text)
            if symbol.uses:
                self._say(4, f"used in {use_words(symbol.uses)}")
        self._more(2, len(broken.symbols) - MOST_SYMBOLS, "symbols")
        if broken.maintainers:
            self._say(2, ("ask: ", "bold"), ", ".join(broken.maintainers))
        self._gap()

    def _findings(self, found: Sequence[Finding]) -> None:
        """Each check that did not pass, under its patch."""
        patch: PatchResult | None = None
        begun = False
        for finding in found:
            if not begun or finding.patch is not patch:
                begun, patch = True, finding.patch
                self._head(finding)
            self._finding(finding)
        self._gap()

    def _head(self, finding: Finding) -> None:
        if finding.patch:
            patch = finding.patch.patch
            self._say(
                0, (finding.whose, "bold"), " ", " ".join((patch.short, patch.subject)).strip()
            )
        else:
            self._say(0, ("the series as a whole", "bold"))

    def _finding(self, finding: Finding) -> None:
        check = finding.check
        summary = f": {check.summary}" if check.summary else ""
        mark = (_MARKS[check.outcome], STYLES[check.outcome])
        self._say(2, mark, f" {check.name}{summary}")
        self._diagnostics(check.diagnostics)
        detail = [line for text in check.detail for line in text.splitlines()]
        for line in detail[:MOST_DETAIL]:
            self._say(6, line)
        self._more(6, len(detail) - MOST_DETAIL, "lines")
        if check.policy:
            self._say(6, ("policy: ", "bold"), check.policy)
        if check.outcome is not Outcome.WARN:
            self._again(6, check.reproducer)

    def _diagnostics(self, diagnostics: Sequence[Diagnostic]) -> None:
        """Grouped by file, errors first; a note of how many were left out."""
        shown, room = 0, min(MOST_DIAGNOSTICS, self._left)
        for file, tools in by_file(diagnostics).items():
            if shown >= room:
                break
            self._say(6, (file or "(no file)", "bold"))
            for diagnostic in [one for tool in tools.values() for one in tool][: room - shown]:
                shown += 1
                self._diagnostic(diagnostic)
        self._left -= shown
        self._more(6, len(diagnostics) - shown, "new ones" if shown else "new diagnostics")

    def _diagnostic(self, one: Diagnostic) -> None:
        place = ":".join(str(number) for number in (one.line, one.column) if number)
        code = f" [{one.code}]" if one.code else ""
        level = (one.level.value, _LEVELS[one.level])
        self._say(8, f"{place:<7} ", level, f" {one.message}{code}  ({one.tool})")

    def _more(self, indent: int, number: int, what: str) -> None:
        if number > 0:
            self._say(indent, f"and {number} more {what} (--json shows all)")

    def _blasts(self, *, short: bool) -> None:
        """What changes between C and Rust; of a green series only what Rust uses."""
        told = [(p, b) for p, b in blasts(self._result) if b.used or not short]
        for patch, blast in told:
            whose = f"blast radius of {place_of(patch, self._result)}:"
            self._say(0, (whose, "bold"), f" {blast_words(blast)}")
            names = [
                f"{symbol.name} in {use_words(symbol.uses, 1)}"
                for symbol in blast.used[:MOST_SYMBOLS]
            ]
            if names:
                self._say(2, f"used: {'; '.join(names)}")
            self._more(2, len(blast.used) - MOST_SYMBOLS, "symbols")
        if told and not short:
            self._gap()

    def _last(self) -> None:
        """The verdict and the time."""
        result = self._result
        if not findings(result):
            self._green()
        checks = [check for _, check in result.all_checks()]
        reused = sum(check.reused for check in checks)
        again = f", {reused} of {len(checks)} checks known from before" if reused else ""
        mark = (_VERDICTS.get(result.outcome, "ok"), STYLES[result.outcome])
        self._say(0, mark, f" {verdict(result)}{again}", (f"  {duration(result.seconds)}", "dim"))

    def _green(self) -> None:
        names = [*columns(self._result), *(check.name for check in self._result.checks)]
        if names:
            self._say(0, (f"{', '.join(names)} ({toolchain_words(self._result)})", "dim"))
