"""Patches against checks, as wide as there is room for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kdrv.core.show import plural
from kdrv.gate.result import GateResult, Outcome, PatchResult, worst
from kdrv.report.gate.words import columns, short

STYLES = {
    Outcome.PASS: "green",
    Outcome.WARN: "yellow",
    Outcome.FAIL: "bold red",
    Outcome.SKIP: "dim",
    Outcome.UNKNOWN: "magenta",
}
_CELLS = {
    Outcome.PASS: "\N{CHECK MARK}",
    Outcome.WARN: "! warn",
    Outcome.FAIL: "\N{BALLOT X} FAIL",
    Outcome.SKIP: "-",
    Outcome.UNKNOWN: "? n/a",
}
_PLAIN_CELLS = {**_CELLS, Outcome.PASS: "ok", Outcome.FAIL: "FAIL"}
_MEANINGS = {
    Outcome.SKIP: "not needed",
    Outcome.UNKNOWN: "could not be judged",
}
MANY = 12
"""More patches than this are not shown one by one while nothing is wrong with them."""
SUBJECT = 26
"""The least room for a subject."""
GAP = 2


@dataclass(frozen=True)
class Row:
    """A patch, or several in a row that pass: the worst outcome for each check they have."""

    label: str
    subject: str
    outcomes: dict[str, Outcome]


def rows(result: GateResult) -> list[Row]:
    """The table's rows; of many patches, those in a row that pass are one."""
    many = len(result.patches) > MANY
    found = []
    for green, group in groupby(result.patches, key=_green):
        members = list(group)
        if many and green and len(members) > 2:
            ends = f"{members[0].patch.number}-{members[-1].patch.number}"
            found.append(Row(ends, f"({plural(len(members), 'patch', 'patches')})", _all(members)))
        else:
            found += [Row(str(m.patch.number), m.patch.subject, _all([m])) for m in members]
    return found


def _green(patch: PatchResult) -> bool:
    return patch.outcome in (Outcome.PASS, Outcome.SKIP)


def _all(patches: Sequence[PatchResult]) -> dict[str, Outcome]:
    checks = [check for patch in patches for check in patch.checks]
    names = dict.fromkeys(check.name for check in checks)
    return {name: worst(tuple(c for c in checks if c.name == name)) for name in names}


def show_table(result: GateResult, console: Console) -> None:
    """Print the table. Where it is too wide, checks that pass everywhere stand below it, and if
    that is not enough there are several tables."""
    shown = rows(result)
    cells = _CELLS if "utf" in console.encoding.lower() else _PLAIN_CELLS
    names = columns(result)
    label = max((len(row.label) for row in shown), default=0)
    room = console.width - label - GAP - SUBJECT
    folded: list[str] = []
    if _width(names, cells) > room:
        bad = {name for row in shown for name, o in row.outcomes.items() if not _good(o)}
        folded = [name for name in names if name not in bad]
        names = [name for name in names if name in bad]
    for block in _blocks(names, room, cells):
        console.print(_table(shown, block, cells, console.width - label - GAP))
    if folded:
        _print(console, f"green wherever they ran: {', '.join(folded)}")
    seen = {o for row in shown for name, o in row.outcomes.items() if name in names}
    if legend := ", ".join(f"{cells[o]} {words}" for o, words in _MEANINGS.items() if o in seen):
        _print(console, legend)


def _good(outcome: Outcome) -> bool:
    return outcome in (Outcome.PASS, Outcome.SKIP)


def _print(console: Console, words: str) -> None:
    for line in Text(words, style="dim").wrap(console, console.width):
        line.rstrip()
        console.print(line, no_wrap=True)


def _header(name: str) -> str:
    return "\n".join(name.split())


def _width(names: Sequence[str], cells: dict[Outcome, str]) -> int:
    widest = max(len(cell) for cell in cells.values())
    return sum(max(widest, *(len(word) for word in name.split())) + GAP for name in names)


def _blocks(names: Sequence[str], room: int, cells: dict[Outcome, str]) -> Iterator[list[str]]:
    """The columns of each table: as many as fit, at least one."""
    block: list[str] = []
    for name in names:
        if block and _width([*block, name], cells) > room:
            yield block
            block = []
        block.append(name)
    if block:
        yield block


def _table(
    shown: Sequence[Row], names: Sequence[str], cells: dict[Outcome, str], room: int
) -> Table:
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("", justify="right", no_wrap=True)
    most = max(SUBJECT, room - _width(names, cells))
    table.add_column("patch", vertical="bottom", no_wrap=True, overflow="ellipsis", max_width=most)
    for name in names:
        table.add_column(_header(name), vertical="bottom", no_wrap=True)
    for row in shown:
        outcomes = [row.outcomes.get(name) for name in names]
        marks = [Text(cells[o], STYLES[o]) if o else Text("") for o in outcomes]
        table.add_row(row.label, Text(row.subject), *marks)
    return table


def plain_lines(result: GateResult) -> Iterator[str]:
    """The table for a reader without a terminal: a line for each patch."""
    for row in rows(result):
        passed = sum(_good(outcome) for outcome in row.outcomes.values())
        bad = [
            f"{outcome.value if outcome is not Outcome.FAIL else 'FAILED'} {name}"
            for name, outcome in row.outcomes.items()
            if not _good(outcome)
        ]
        good = [f"{plural(passed, 'check')} passed"] if passed or not bad else []
        yield f"{row.label:>5}  {short(row.subject)}: {', '.join([*bad, *good])}"
