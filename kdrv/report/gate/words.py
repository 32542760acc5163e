"""What a result comes to, in the words that every view shares. Results are fit to be shown."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kdrv.build.diagnostics import ordered
from kdrv.core.errors import EXIT_ENVIRONMENT, EXIT_FAILED
from kdrv.core.show import plural
from kdrv.gate.result import (
    Blast,
    Break,
    Changed,
    Check,
    GateResult,
    Outcome,
    PatchResult,
    SymbolChange,
    Use,
)

MOST_SUBJECT = 60
MOST_USES = 3
MOST_CHANGED = 12
_KINDS = {
    "fn": "C function",
    "struct": "C struct",
    "union": "C union",
    "enum": "C enum",
    "type": "C type",
    "const": "C constant",
    "static": "C variable",
    "helper": "helper",
}
_CHANGED = {Changed.ADDED: "is new", Changed.GONE: "is gone", Changed.CHANGED: "changed"}
_VERBS = {
    Outcome.UNKNOWN: "could not be judged",
    Outcome.FAIL: "failed",
    Outcome.WARN: "warned",
}
_URGENCY = (Outcome.FAIL, Outcome.UNKNOWN, Outcome.WARN)


@dataclass(frozen=True)
class Finding:
    """A check that did not simply pass, with its patch; ``patch`` is ``None`` for the series'."""

    result: GateResult
    patch: PatchResult | None
    check: Check

    @property
    def whose(self) -> str:
        """``patch 2/4``, or ``the series``."""
        return place_of(self.patch, self.result) if self.patch else "the series"

    @property
    def breaks(self) -> Break | None:
        """The break that the check is the first sight of: ``build rust`` for the lane ``rust``."""
        if not self.patch:
            return None
        mark = (self.patch.patch.number, self.check.name)
        return next((b for b in self.result.breaks if (b.patch, f"build {b.lane}") == mark), None)

    @property
    def sentence(self) -> str:
        """What is wrong, in a sentence without its end."""
        named = f"{self.whose} ({short(self.patch.patch.subject)})" if self.patch else self.whose
        if (broken := self.breaks) and self.check.outcome is Outcome.FAIL:
            symbols = "; ".join(symbol_words(symbol) for symbol in broken.symbols[:MOST_USES])
            return f"{named} breaks lane {broken.lane}" + (f": {symbols}" if symbols else "")
        word = _VERBS.get(self.check.outcome, self.check.outcome.value)
        summary = f": {self.check.summary.rstrip('.')}" if self.check.summary else ""
        return f"{named}, {self.check.name} {word}{summary}"

    @property
    def place(self) -> str:
        """``file:line:column: message`` of the first thing that was said, if it has a place and
        the sentence does not have it already."""
        placed = (d for d in ordered(self.check.diagnostics) if d.file)
        told = next((f"{d.place}: {d.message}" for d in placed), "")
        return told if told not in self.sentence else ""


def place_of(patch: PatchResult, result: GateResult) -> str:
    """``patch 2/4``. A patch that does not apply is no part of the series, but has a result."""
    total = max(len(result.series.patches), len(result.patches))
    return f"patch {patch.patch.number}/{total}"


def findings(result: GateResult) -> list[Finding]:
    """All that did not simply pass, in reading order."""
    return [
        Finding(result, patch, check)
        for patch, check in result.all_checks()
        if check.outcome in _URGENCY
    ]


def first(result: GateResult) -> Finding | None:
    """What to look at first: a patch that does not apply, then what does not build, then the rest.

    A failure comes before what could not be judged, and that before a warning.
    """
    return min(findings(result), key=_urgency, default=None)


def _urgency(finding: Finding) -> tuple[int, int, int]:
    name = finding.check.name
    kinds = (name.startswith("appl"), finding.breaks or name.startswith("build"), finding.patch)
    kind = next((place for place, holds in enumerate(kinds) if holds), len(kinds))
    number = finding.patch.patch.number if finding.patch else 0
    return _URGENCY.index(finding.check.outcome), kind, number


def exit_code(result: GateResult) -> int:
    """0 for a series that passes, 1 for one that fails, 2 where it could not be judged."""
    return {Outcome.FAIL: EXIT_FAILED, Outcome.UNKNOWN: EXIT_ENVIRONMENT}.get(result.outcome, 0)


def columns(result: GateResult) -> list[str]:
    """The names of the patches' checks, in the order in which they stand."""
    names: dict[str, None] = {}
    for patch in result.patches:
        names |= dict.fromkeys(check.name for check in patch.checks)
    return list(names)


def verdict(result: GateResult) -> str:
    """What the series comes to, in a sentence without its end."""
    if not result.patches and not result.checks:
        return f"{result.series.source} holds no patch: there is nothing to judge"
    patches = plural(len(result.patches), "patch", "patches")
    return f"{patches} on Linux {result.kernel}, policy {result.policy}: {counts(result)}"


def counts(result: GateResult) -> str:
    """``2 checks failed, 1 warned``."""
    checks = [check.outcome for _, check in result.all_checks()]
    words = {Outcome.FAIL: "failed", Outcome.UNKNOWN: "not judged", Outcome.WARN: "warned"}
    numbers = [(checks.count(outcome), word) for outcome, word in words.items()]
    told = [f"{plural(number, 'check')} {word}" for number, word in numbers if number]
    return ", ".join(told) or ("all pass" if len(result.patches) > 1 else "all checks pass")


def toolchain_words(result: GateResult) -> str:
    """``clang 19.1.7, rustc 1.85.1``."""
    versions = result.toolchain.versions.items()
    return ", ".join(f"{name} {version}" for name, version in versions) or result.toolchain.name


def symbol_words(symbol: SymbolChange) -> str:
    """``C function foo changed``."""
    kind = _KINDS.get(symbol.kind, f"C {symbol.kind}")
    return f"{kind} {symbol.name} {_CHANGED[symbol.changed]}"


def use_words(uses: Sequence[Use], most: int = MOST_USES) -> str:
    """``rust/kernel/pci.rs:12, rust/kernel/dma.rs:40 and 3 more``."""
    places = [f"{use.file}:{use.line}" for use in uses]
    more = f" and {len(places) - most} more" if len(places) > most else ""
    return ", ".join(places[:most]) + more


def break_words(broken: Break) -> str:
    """``patch 2 breaks lane rust; green again at patch 4``."""
    end = f"green again at patch {broken.mended}" if broken.mended else "never green again"
    return f"patch {broken.patch} breaks lane {broken.lane}; {end}"


def change_lines(symbol: SymbolChange) -> list[tuple[str, str]]:
    """What became of a symbol's text: lines with ``from``, ``to``, or ``-`` and ``+``."""
    before, after = symbol.before.strip().splitlines(), symbol.after.strip().splitlines()
    if len(before) <= 1 and len(after) <= 1:
        pairs = (("from" if after else "was", before), ("to" if before else "now", after))
        return [(word, lines[0].strip()) for word, lines in pairs if lines]
    changed = [
        (text[0], text[2:].strip())
        for text in difflib.ndiff(before, after)
        if text.startswith(("- ", "+ "))
    ]
    more = len(changed) - MOST_CHANGED
    return [*changed[:MOST_CHANGED], *([("", f"and {more} more lines")] if more > 0 else [])]


def blast_words(blast: Blast) -> str:
    """``3 C symbols changed, 1 gone; 2 of them used by Rust files``."""
    told: list[str] = []
    for changed in (Changed.CHANGED, Changed.GONE, Changed.ADDED):
        if number := sum(symbol.changed is changed for symbol in blast.symbols):
            what = plural(number, "C symbol") if not told else str(number)
            told.append(f"{what} {_CHANGED[changed].split()[-1]}")
    used = f"{len(blast.used)} of them used" if blast.used else "none of them used"
    return f"{', '.join(told)}; {used} by Rust files"


def blasts(result: GateResult) -> Iterator[tuple[PatchResult, Blast]]:
    """The patches that change the interface between C and Rust."""
    for patch in result.patches:
        if patch.blast and patch.blast.symbols:
            yield patch, patch.blast


def short(text: str, most: int = MOST_SUBJECT) -> str:
    """At most so many characters, an ellipsis among them."""
    return text if len(text) <= most else text[: most - 3].rstrip() + "..."
