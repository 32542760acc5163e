"""A judged series as one self-contained HTML page: no network, no script."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kdrv.build.diagnostics import Diagnostic, ordered
from kdrv.core.show import duration
from kdrv.gate.result import Break, Check, GateResult, Outcome, PatchResult, SymbolChange, worst
from kdrv.report.gate.fit import fit
from kdrv.report.gate.lanes import lane_pictures
from kdrv.report.gate.words import (
    Finding,
    blast_words,
    blasts,
    break_words,
    change_lines,
    columns,
    first,
    symbol_words,
    toolchain_words,
    verdict,
)
from kdrv.report.html.environment import environment

MOST_DIAGNOSTICS = 200
"""Of one check."""
MOST_SYMBOLS = 300
"""Of one patch, those that Rust uses first."""
MOST_USES = 12
MOST_LINES = 12
_TONES = {
    Outcome.PASS: "fine",
    Outcome.WARN: "warn",
    Outcome.FAIL: "bad",
    Outcome.SKIP: "none",
    Outcome.UNKNOWN: "open",
}
_CELLS = {
    Outcome.PASS: "\N{CHECK MARK}",
    Outcome.WARN: "!",
    Outcome.FAIL: "\N{BALLOT X}",
    Outcome.SKIP: "\N{EN DASH}",
    Outcome.UNKNOWN: "?",
}
_WORDS = {
    Outcome.PASS: "passed",
    Outcome.WARN: "warning",
    Outcome.FAIL: "failed",
    Outcome.SKIP: "not needed",
    Outcome.UNKNOWN: "not judged",
}
_VERDICTS = {Outcome.FAIL: "fails", Outcome.UNKNOWN: "not judged", Outcome.WARN: "warnings"}


@dataclass(frozen=True)
class Figure:
    """A headline figure: its name, its value, and the class of its colour."""

    name: str
    value: str
    tone: str = ""


@dataclass(frozen=True)
class Cell:
    """A patch's check in the table; ``title`` is told while the pointer is over it."""

    mark: str
    tone: str
    title: str


@dataclass(frozen=True)
class CheckView:
    """A check, ready for the template."""

    name: str
    tone: str
    word: str
    summary: str
    diagnostics: tuple[Diagnostic, ...]
    more: int
    detail: str
    policy: str
    reproducer: str
    seconds: str
    reused: bool


@dataclass(frozen=True)
class SymbolView:
    """A changed symbol: what it is, its text before and after, who uses it."""

    words: str
    before: str
    after: str
    uses: tuple[str, ...]
    more_uses: int


@dataclass(frozen=True)
class PatchView:
    """A patch, or the series as a whole, with its checks: those to look at, and the others."""

    anchor: str
    number: str
    subject: str
    short: str
    author: str
    tone: str
    cells: tuple[Cell | None, ...]
    bad: tuple[CheckView, ...]
    good: tuple[CheckView, ...]


@dataclass(frozen=True)
class BreakView:
    """A break of a lane in words."""

    words: str
    symbols: tuple[SymbolView, ...]
    maintainers: tuple[str, ...]


@dataclass(frozen=True)
class BlastView:
    """What a patch changes between C and Rust."""

    number: int
    words: str
    symbols: tuple[SymbolView, ...]
    more: int


def gate_page(result: GateResult) -> str:
    """The page's text."""
    result = fit(result)
    names = columns(result)
    urgent = first(result)
    return (
        environment()
        .get_template("gate.html.j2")
        .render(
            result=result,
            badge=(_VERDICTS.get(result.outcome, "passes"), _TONES[result.outcome]),
            verdict=verdict(result),
            toolchain=toolchain_words(result),
            figures=list(_figures(result)),
            urgent=_urgent(urgent) if urgent else None,
            names=names,
            patches=[_patch(patch, names) for patch in result.patches],
            series=_series(result),
            lanes=_lanes(result),
            breaks=[_break(broken) for broken in result.breaks],
            blasts=[_blast(patch) for patch, _ in blasts(result)],
        )
    )


def _figures(result: GateResult) -> Iterator[Figure]:
    checks = [check for _, check in result.all_checks()]
    yield Figure("patches", str(len(result.patches)))
    yield Figure("checks", str(len(checks)))
    for outcome in (Outcome.FAIL, Outcome.WARN, Outcome.UNKNOWN):
        number = sum(check.outcome is outcome for check in checks)
        name = {Outcome.WARN: "warned"}.get(outcome, _WORDS[outcome])
        yield Figure(name, str(number), _TONES[outcome] if number else "")
    yield Figure("known from before", str(sum(check.reused for check in checks)))
    yield Figure("time", duration(result.seconds))


def _urgent(finding: Finding) -> dict[str, str]:
    return {
        "tone": _TONES[finding.check.outcome],
        "sentence": finding.sentence,
        "place": finding.place,
        "reproducer": finding.check.reproducer,
        "anchor": _anchor(finding.patch),
    }


def _anchor(patch: PatchResult | None) -> str:
    return f"p{patch.patch.number}" if patch else "series"


def _patch(result: PatchResult, names: Sequence[str]) -> PatchView:
    patch = result.patch
    return PatchView(
        anchor=_anchor(result),
        number=str(patch.number),
        subject=patch.subject,
        short=patch.short,
        author=patch.author,
        tone=_TONES[result.outcome],
        cells=tuple(_cell(name, result) for name in names),
        bad=tuple(_check(check) for check in result.checks if not _good(check)),
        good=tuple(_check(check) for check in result.checks if _good(check)),
    )


def _series(result: GateResult) -> PatchView:
    return PatchView(
        anchor=_anchor(None),
        number="",
        subject="The series as a whole",
        short="",
        author="",
        tone=_TONES[worst(result.checks)],
        cells=(),
        bad=tuple(_check(check) for check in result.checks if not _good(check)),
        good=tuple(_check(check) for check in result.checks if _good(check)),
    )


def _good(check: Check) -> bool:
    return check.outcome in (Outcome.PASS, Outcome.SKIP)


def _cell(name: str, result: PatchResult) -> Cell | None:
    checks = tuple(check for check in result.checks if check.name == name)
    if not checks:
        return None
    outcome = worst(checks)
    told = next(check for check in checks if check.outcome is outcome)
    summary = f": {told.summary}" if told.summary else ""
    return Cell(_CELLS[outcome], _TONES[outcome], f"{name} {_WORDS[outcome]}{summary}")


def _check(check: Check) -> CheckView:
    return CheckView(
        name=check.name,
        tone=_TONES[check.outcome],
        word=_WORDS[check.outcome],
        summary=check.summary,
        diagnostics=ordered(check.diagnostics)[:MOST_DIAGNOSTICS],
        more=max(0, len(check.diagnostics) - MOST_DIAGNOSTICS),
        detail="\n".join(check.detail),
        policy=check.policy,
        reproducer=check.reproducer,
        seconds=duration(check.seconds) if check.seconds else "",
        reused=check.reused,
    )


def _break(broken: Break) -> BreakView:
    symbols = tuple(_symbol(symbol) for symbol in broken.symbols)
    return BreakView(break_words(broken), symbols, broken.maintainers)


def _lanes(result: GateResult) -> list[tuple[str, Markup]]:
    return lane_pictures(result) if result.breaks else []


def _blast(patch: PatchResult) -> BlastView:
    blast = patch.blast
    assert blast is not None
    symbols = sorted(blast.symbols, key=lambda symbol: not symbol.uses)
    return BlastView(
        patch.patch.number,
        blast_words(blast),
        tuple(_symbol(symbol) for symbol in symbols[:MOST_SYMBOLS]),
        max(0, len(symbols) - MOST_SYMBOLS),
    )


def _symbol(symbol: SymbolChange) -> SymbolView:
    before, after = symbol.before, symbol.after
    if before and after and max(before.count("\n"), after.count("\n")) > MOST_LINES:
        # Of a long struct, the fields that differ.
        changed = change_lines(symbol)
        before, after = ("\n".join(text for sign, text in changed if sign in (s, "")) for s in "-+")
    return SymbolView(
        words=symbol_words(symbol),
        before=before,
        after=after,
        uses=tuple(f"{use.file}:{use.line}" for use in symbol.uses[:MOST_USES]),
        more_uses=max(0, len(symbol.uses) - MOST_USES),
    )
