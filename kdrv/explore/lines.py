"""Which lines of a driver's source were reached, by its debug information.

KCOV reports where it is called: where a basic block begins, or, by clang and rustc, as many blocks
as tell of the others. A line has such *sites* of its own or not; code that was inlined counts for
the line that calls it, too. Lines with code but without a site are told by the site before them.
"""

from __future__ import annotations

import contextlib
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import demangle

from kdrv.explore.coverage import SECTION_SHIFT, of_kernel
from kdrv.explore.debuginfo import DebugInfo, Function, read_debug_info
from kdrv.kernel.modinfo import code_sections
from kdrv.toolchain.base import MODULE

GENERATED = ".mod.c"


@dataclass(frozen=True)
class Line:
    """How many ``sites`` a line has, and how many of them were ``hit``."""

    sites: int
    hit: int

    @property
    def covered(self) -> bool:
        """Whether any was."""
        return self.hit > 0


@dataclass(frozen=True)
class FunctionLines:
    """A function of the source, where it begins, and its ``lines`` with sites, by file and number.

    ``hit`` are those of them that were reached.
    """

    name: str
    file: str
    line: int
    lines: frozenset[tuple[str, int]]
    hit: frozenset[tuple[str, int]]

    @property
    def reachable(self) -> int:
        """How many lines KCOV can report."""
        return len(self.lines)

    @property
    def covered(self) -> int:
        """How many of them it did."""
        return len(self.hit)

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.covered / self.reachable if self.reachable else 0.0


@dataclass(frozen=True)
class LineCoverage:
    """Lines by file, relative to the driver's directory, and by number.

    ``lines`` have sites. ``beside`` have code and none, and whether the site before that code was
    hit: a hint, not a measurement.
    """

    lines: Mapping[str, Mapping[int, Line]]
    beside: Mapping[str, Mapping[int, bool]]
    functions: tuple[FunctionLines, ...]

    @property
    def reachable(self) -> int:
        """How many lines KCOV can report."""
        return sum(len(lines) for lines in self.lines.values())

    @property
    def covered(self) -> int:
        """How many of them it did."""
        return sum(line.covered for lines in self.lines.values() for line in lines.values())

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.covered / self.reachable if self.reachable else 0.0


def line_coverage(module: Path, places: Collection[int], below: str = MODULE) -> LineCoverage:
    """The lines of a module that was built with debug information.

    ``places`` are a history's ``covered``; ``below`` is the driver's own directory when it was
    built. Without debug information, or without instrumentation, the result is empty.
    """
    hit = frozenset(places)
    info = read_debug_info(module.read_bytes(), hit)
    sites: dict[str, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    functions: dict[Function, set[tuple[str, int, int]]] = defaultdict(set)
    for site in info.sites:
        for function, file, line in _stack(info, site):
            name = _relative(file, below)
            if name and line:
                sites[name][line].add(site)
                if _relative(function.file, below):
                    functions[function].add((name, line, site))
    return LineCoverage(
        {
            name: {
                line: Line(len(found), len(found & hit)) for line, found in sorted(lines.items())
            }
            for name, lines in sorted(sites.items())
        },
        _beside(module, info, hit, sites, below),
        _functions(functions, hit, below),
    )


def _stack(info: DebugInfo, site: int) -> Iterator[tuple[Function, str, int]]:
    """Where a site is in the source: in its function, and in each one that was inlined there."""
    scopes = info.scopes.get(site, [])
    # The site is where the call returns to, which may be another line's already.
    row = info.row(site - 1)
    within = [(scope.file, scope.line) for scope in scopes[1:]]
    places = [*within, (row.file, row.line)] if row else within
    for scope, (file, line) in zip(scopes, places, strict=False):
        yield scope.function, file, line


def together(found: Iterable[LineCoverage]) -> LineCoverage:
    """The coverage of one source by several builds of it, such as for the two kernels."""
    lines: dict[str, dict[int, Line]] = defaultdict(dict)
    beside: dict[str, dict[int, bool]] = defaultdict(dict)
    every = list(found)
    for one in every:
        for file, own in one.lines.items():
            for number, line in own.items():
                same = lines[file].get(number, Line(0, 0))
                lines[file][number] = Line(line.sites + same.sites, line.hit + same.hit)
    for one in every:
        for file, near in one.beside.items():
            for number, hit in near.items():
                if number not in lines.get(file, {}):
                    beside[file][number] = hit or beside[file].get(number, False)
    functions = _merged(function for one in every for function in one.functions)
    return LineCoverage(dict(lines), dict(beside), functions)


def campaign_lines(
    modules: Mapping[bool, Path], places: frozenset[int], below: str = MODULE
) -> LineCoverage:
    """The lines that a campaign reached.

    ``modules`` are the driver's builds for the plain (False) and the checked kernel, ``places``
    what :class:`~kdrv.explore.campaign.CampaignResult` has as ``covered``.
    """
    return together(
        line_coverage(module, of_kernel(places, checked), below)
        for checked, module in sorted(modules.items())
    )


def sources(coverage: LineCoverage, directory: Path) -> dict[str, str]:
    """The text of the files that there are lines of, as far as they are still there."""
    found = {}
    for name in coverage.lines:
        with contextlib.suppress(OSError):
            found[name] = (directory / name).read_text(errors="replace")
    return found


def _relative(file: str, below: str) -> str:
    """A file's path in the driver's directory; empty for one of somewhere else."""
    if not file.startswith(f"{below}/") or file.endswith(GENERATED):
        return ""
    return file.removeprefix(f"{below}/")


def _beside(
    module: Path,
    info: DebugInfo,
    hit: frozenset[int],
    sites: Mapping[str, Mapping[int, set[int]]],
    below: str,
) -> dict[str, dict[int, bool]]:
    """Lines without a site: what the last site before their code says, in the same function."""
    starts = [
        number << SECTION_SHIFT | at
        for number, section in enumerate(code_sections(module))
        for at, _ in section.functions
    ]
    found: dict[str, dict[int, bool]] = defaultdict(dict)
    for row in info.rows:
        name = _relative(row.file, below)
        if not name or row.line in sites.get(name, ()):
            continue
        inside = bisect_right(starts, row.begin)
        end = starts[inside] if inside < len(starts) else 1 << 63
        place = bisect_right(info.sites, row.begin)
        # A function's prologue comes before its first site.
        if not place or not inside or info.sites[place - 1] <= starts[inside - 1]:
            place += 1
        if place > len(info.sites) or info.sites[place - 1] > end:
            continue
        found[name][row.line] = found[name].get(row.line, False) or info.sites[place - 1] in hit
    return {name: dict(sorted(lines.items())) for name, lines in sorted(found.items())}


def _functions(
    functions: Mapping[Function, Iterable[tuple[str, int, int]]],
    hit: frozenset[int],
    below: str,
) -> tuple[FunctionLines, ...]:
    """Functions by place; a closure counts for the function that it is written in."""
    found = [
        FunctionLines(
            readable(function.symbol),
            _relative(function.file, below),
            function.line,
            frozenset((file, line) for file, line, _ in places),
            frozenset((file, line) for file, line, site in places if site in hit),
        )
        for function, places in functions.items()
    ]
    return _merged(found)


def _merged(found: Iterable[FunctionLines]) -> tuple[FunctionLines, ...]:
    """Functions of one name in one file as one, in the order of the source."""
    merged: dict[tuple[str, str], FunctionLines] = {}
    for one in found:
        key = (one.file, one.name)
        same = merged.get(key, one)
        first = min(one.line, same.line)
        merged[key] = FunctionLines(*key[::-1], first, one.lines | same.lines, one.hit | same.hit)
    return tuple(sorted(merged.values(), key=lambda one: (one.file, one.line, one.name)))


def readable(symbol: str) -> str:
    """A function's name as its source has it: ``Edu::factorial``, ``<Edu as Drop>::drop``."""
    if not symbol.startswith("_R"):
        return symbol
    name = str(demangle.demangle(symbol, language="rust")).replace("->", "")
    while "<" in name:
        # From the innermost outwards: generic arguments go, ``<Type as Trait>`` is put aside.
        name, count = re.subn(r"(::|(?<=\w))?<([^<>]*)>", _argument, name)
        if not count:
            break
    name = re.sub(r"\b[a-z_]\w*::(?=[\w[])", "", name.split("::{")[0])
    return re.sub(r"\[(\w+)\]", r"\1", name).replace("[", "<").replace("]", ">")


def _argument(found: re.Match[str]) -> str:
    return f"[{found[2]}]" if found[1] is None else ""
