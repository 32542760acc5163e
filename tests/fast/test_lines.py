"""Lines of a driver's source from the places KCOV reports.

The objects beside the sources in recordings/lines were built at /run/kdrv/mod, as modules are for
User Mode Linux: with -g, KCOV's calls and, for C, -mcmodel=large; by gcc 14, clang 19, rustc 1.85.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kdrv.explore.coverage import marked
from kdrv.explore.debuginfo import read_debug_info
from kdrv.explore.lines import (
    LineCoverage,
    campaign_lines,
    line_coverage,
    readable,
    sources,
    together,
)

RECORDED = Path(__file__).parent / "recordings" / "lines"
# Where the calls return to, as objdump shows them; sections count from 0.
GCC = [0x1C, 0x22, 0x2F, 0x41, 0x48, 0x64]
CLANG = [0x13, 0x1A, 0x3B, 0x6F]
RUST = [0xF, 0x1F, 0x28, 1 << 32 | 0x11, 2 << 32 | 0x9]


def figures(coverage: LineCoverage) -> dict[int, tuple[int, int]]:
    (lines,) = coverage.lines.values()
    return {number: (line.hit, line.sites) for number, line in lines.items()}


@pytest.mark.parametrize(
    ("name", "sites"), [("small_c.o", GCC), ("small_clang.o", CLANG), ("small_rs.o", RUST)]
)
def test_finds_every_call_of_kcov(name: str, sites: list[int]) -> None:
    assert read_debug_info((RECORDED / name).read_bytes()).sites == sites


def test_lines_of_c() -> None:
    coverage = line_coverage(RECORDED / "small_c.o", {GCC[0], GCC[2]})
    assert figures(coverage) == {
        8: (0, 2),
        13: (1, 1),
        14: (0, 1),
        17: (1, 1),
        18: (0, 2),  # what was inlined counts for the call, too
        23: (0, 1),
    }
    assert list(coverage.lines) == ["small.c"]
    assert (coverage.covered, coverage.reachable) == (2, 6)


def test_a_line_without_a_place_is_told_by_the_one_before() -> None:
    coverage = line_coverage(RECORDED / "small_c.o", {GCC[0], GCC[2]})
    beside = coverage.beside["small.c"]
    assert beside[12]  # the prologue comes before the first place
    assert beside[6]  # inlined behind line 17
    assert not beside[15]
    assert not beside[22]  # of another function
    assert not set(beside) & set(coverage.lines["small.c"])


def test_functions_have_their_own_lines_alone() -> None:
    coverage = line_coverage(RECORDED / "small_c.o", {GCC[0], GCC[2], GCC[3]})
    found = {one.name: (one.line, one.covered, one.reachable) for one in coverage.functions}
    assert found == {"twice": (4, 1, 1), "reached": (11, 3, 4), "missed": (21, 0, 1)}


def test_functions_of_clang_are_named() -> None:
    coverage = line_coverage(RECORDED / "small_clang.o", {CLANG[3]})
    assert [(one.name, one.covered) for one in coverage.functions] == [
        ("reached", 0),
        ("missed", 1),
    ]


def test_lines_of_rust_in_sections_of_their_own() -> None:
    coverage = line_coverage(RECORDED / "small_rs.o", {RUST[1], RUST[4]})
    assert figures(coverage) == {
        7: (0, 1),
        8: (1, 2),
        13: (0, 1),
        16: (1, 1),  # in a closure, inlined into a generic function
        18: (0, 1),
        26: (1, 1),
    }
    assert [one.name for one in coverage.functions] == [
        "run",
        "Small::reached",
        "<Small as Drop>::drop",
    ]


def test_both_kernels_tell_of_one_source() -> None:
    modules = {False: RECORDED / "small_c.o", True: RECORDED / "small_clang.o"}
    places = frozenset({GCC[0]}) | marked(frozenset({CLANG[2]}), checked=True)
    both = campaign_lines(modules, places)
    assert figures(both)[14] == (1, 2)  # by clang's code
    assert figures(both)[13] == (1, 1)  # by gcc's
    assert figures(both)[23] == (0, 1)
    assert both.beside["small.c"][6] is False
    assert not set(both.beside["small.c"]) & set(both.lines["small.c"])
    reached = next(one for one in both.functions if one.name == "reached")
    assert ("small.c", 14) in reached.hit
    assert [one.name for one in both.functions] == ["twice", "reached", "missed"]


def test_one_build_is_like_itself() -> None:
    alone = line_coverage(RECORDED / "small_rs.o", {RUST[0]})
    assert together([alone]) == alone


def test_sources_are_those_with_lines(tmp_path: Path) -> None:
    coverage = line_coverage(RECORDED / "small_c.o", ())
    assert sources(coverage, tmp_path) == {}
    text = sources(coverage, RECORDED)["small.c"].splitlines()
    assert text[12].strip() == "if (value < 0) {"


def test_only_files_of_the_driver_count() -> None:
    coverage = line_coverage(RECORDED / "small_c.o", {GCC[0]}, below="/run/kdrv/mod/sub")
    assert coverage == LineCoverage({}, {}, ())
    assert coverage.share == 0.0


def test_without_debug_information_there_are_no_lines() -> None:
    object_file = Path(__file__).parent / "recordings" / "checks" / "undefined.o"
    assert line_coverage(object_file, {4}) == LineCoverage({}, {}, ())


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("ring_probe", "ring_probe"),
        ("_RNvMCs1dyVI3wcfiu_5smallNtB2_5Small7reached", "Small::reached"),
        ("_RINvCs1dyVI3wcfiu_5small3runmNCNvMB2_NtB2_5Small7reached0EB2_", "run"),
        (
            "_RNvXs_Cs1dyVI3wcfiu_5smallNtB4_5SmallNtNtNtCs4l5shrRSuHC_4core3ops4drop4Drop4drop",
            "<Small as Drop>::drop",
        ),
    ],
)
def test_names_are_those_of_the_source(symbol: str, name: str) -> None:
    assert readable(symbol) == name
