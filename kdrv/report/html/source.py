"""A driver's source with what of it was reached, line by line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kdrv.explore.lines import FunctionLines, LineCoverage

MOST_LINES = 5000
TAB = 8


@dataclass(frozen=True)
class SourceLine:
    """A line: ``state`` is the class of its colour, ``hits`` how many of its sites were hit."""

    number: int
    text: str
    state: str
    hits: str
    remark: bool


@dataclass(frozen=True)
class SourceFile:
    """A file. ``left_out`` counts lines beyond the bound."""

    name: str
    anchor: str
    lines: tuple[SourceLine, ...]
    functions: tuple[FunctionLines, ...]
    covered: int
    reachable: int
    left_out: int

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.covered / self.reachable if self.reachable else 0.0


def source_files(coverage: LineCoverage, sources: Mapping[str, str]) -> list[SourceFile]:
    """Every file that there is source or coverage for; those with most lines to reach first."""
    names = sorted({*sources, *coverage.lines})
    files = [_file(n, name, coverage, sources.get(name, "")) for n, name in enumerate(names)]
    return sorted(files, key=lambda file: -file.reachable)


def _file(number: int, name: str, coverage: LineCoverage, text: str) -> SourceFile:
    reached = coverage.lines.get(name, {})
    rows = text.expandtabs(TAB).splitlines()
    return SourceFile(
        name,
        f"s{number}",
        tuple(_lines(name, rows[:MOST_LINES], coverage)),
        tuple(one for one in coverage.functions if one.file == name),
        sum(line.covered for line in reached.values()),
        len(reached),
        max(0, len(rows) - MOST_LINES),
    )


def _lines(name: str, rows: list[str], coverage: LineCoverage) -> Iterator[SourceLine]:
    reached, beside = coverage.lines.get(name, {}), coverage.beside.get(name, {})
    block = False
    for number, text in enumerate(rows, start=1):
        bare = text.strip()
        remark = block or bare.startswith(("//", "/*"))
        block = (block or bare.startswith("/*")) and "*/" not in bare
        state, hits = "", ""
        if line := reached.get(number):
            state = "hit" if line.covered else "missed"
            hits = f"{line.hit}/{line.sites}"
        elif number in beside:
            state = "near-hit" if beside[number] else "near-missed"
        yield SourceLine(number, text, state, hits, remark)
