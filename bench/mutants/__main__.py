"""How many drivers with a known bug are found out, and by what.

``python -m bench.mutants [--only NAME] [--time SECONDS] [--jobs N] [--kernels KINDS]``: a line for
every mutant of the drivers from ``kdrv new``: what their plain tests say, what ``kdrv explore``
says, and the score of both. ``--list`` says what they are, ``--tables DIR`` takes others.
``--correct --seeds N`` explores the drivers as they are: everything found is false.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.mutants.mutant import DATA, Driver, Mutant, mutants
from bench.mutants.trial import Explored, explore, plain_tests
from kdrv.core.context import Context
from kdrv.explore.campaign import Limits

MISSES = 2
"""So many of all may be missed."""
KINDS = {"plain": (False,), "checked": (True,), "both": (False, True)}
CORRECT = tuple(
    Driver(device, language)
    for device in ("edu", "ringdev", "testdev")
    for language in ("rust", "c")
)
HEAD = (
    f"{'mutant':<27} {'kind':<45} {'lang':<5} {'tests':<7} "
    f"{'explore':<24} {'after':>7} {'runs':>5} {'steps':>5}  replayed"
)


def try_out(
    ctx: Context, mutant: Mutant, folder: Path, chosen: argparse.Namespace
) -> tuple[bool, bool]:
    """Print a mutant's line; whether the plain tests found it, and exploring."""
    project = mutant.write(folder)
    tested = plain_tests(project)
    print(f"{mutant.name:<27} {mutant.kind:<45} {mutant.driver.language:<5} ", end="")
    print(f"{'found' if tested else 'missed':<7} ", end="", flush=True)
    limits = Limits(seconds=chosen.time)
    kinds = KINDS[chosen.kernels]
    explored = explore(ctx, project, folder, limits, jobs=chosen.jobs, kinds=kinds)
    print(_line(explored), flush=True)
    return tested, explored.hit is not None


def _line(explored: Explored) -> str:
    hit = explored.hit
    if hit is None:
        runs = explored.result.runs if explored.result else 0
        return f"{'MISSED':<24} {'':>7} {runs:>5}"
    exact = "byte for byte" if hit.exact else "NO"
    return f"{hit.property:<24} {hit.seconds:>5.1f} s {hit.runs:>5} {hit.steps:>5}  {exact}"


def measure(ctx: Context, chosen: argparse.Namespace) -> bool:
    """Try out the mutants that were asked for; whether exploring found enough of them."""
    wanted = [one for one in mutants(chosen.tables) if chosen.only in one.name]
    print(HEAD, flush=True)
    found = []
    for mutant in wanted:
        with _folder(chosen.keep, mutant.name) as folder:
            found.append(try_out(ctx, mutant, folder, chosen))
    tested, explored = (sum(one[which] for one in found) for which in (0, 1))
    print(f"plain tests alone find {tested} of {len(wanted)}, kdrv explore {explored}")
    return explored >= len(wanted) - (0 if chosen.only else MISSES)


def acquit(ctx: Context, chosen: argparse.Namespace) -> bool:
    """Explore the drivers as they are, the seeds shared out; whether nothing was reported."""
    share, bugs, runs = -(-chosen.seeds // len(CORRECT)), 0, 0
    for driver in CORRECT:
        if chosen.only and chosen.only not in driver.name:
            continue
        with _folder(chosen.keep, driver.module) as folder:
            project = driver.write(folder)
            limits = Limits(seeds=share, first=chosen.first)
            kinds = KINDS[chosen.kernels]
            one = explore(ctx, project, folder, limits, jobs=chosen.jobs, kinds=kinds, first=False)
            bugs += max(len(one.bugs), one.hit is not None)
            runs += one.result.runs if one.result else 0
            _show(driver, one)
    print(f"{runs} runs of correct drivers: {bugs} reports")
    return not bugs


def _show(driver: Driver, one: Explored) -> None:
    result = one.result
    if result is None:
        print(f"{driver.name:<14} {one.hit.words if one.hit else ''}", flush=True)
        return
    rate = result.runs / result.seconds
    print(
        f"{driver.name:<14} {result.runs:>5} runs ({result.checked_runs} checked), {rate:.1f}/s, "
        f"{result.virtual_seconds:.0f} s simulated, {sum(result.fired.values())} faults fired: "
        f"{len(result.bugs) or 'no'} reports",
        flush=True,
    )
    for bug in one.bugs:
        print(f"    {bug.record.property}: {bug.record.words}\n        {bug.folder}", flush=True)


@contextmanager
def _folder(keep: Path | None, name: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        folder = (keep or Path(scratch)) / name
        folder.mkdir(parents=True)
        yield folder


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.mutants")
    parser.add_argument("--only", metavar="NAME", default="", help="those with this in their name")
    parser.add_argument("--time", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--kernels", choices=KINDS, default="both")
    parser.add_argument("--tables", type=Path, default=DATA, metavar="DIR", help="other mutants")
    parser.add_argument("--list", action="store_true", help="say what the mutants are")
    parser.add_argument("--correct", action="store_true", help="the drivers without a mutation")
    parser.add_argument("--seeds", type=int, default=2000, help="with --correct: runs in all")
    parser.add_argument("--first", type=int, default=0, help="with --correct: the first seed")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave projects and bugs here")
    chosen = parser.parse_args()
    if chosen.list:
        for one in mutants(chosen.tables):
            print(f"{one.name:<27} {one.kind:<45} {one.words}")
        return
    began = time.monotonic()
    good = (acquit if chosen.correct else measure)(Context(), chosen)
    print(f"in all {time.monotonic() - began:.0f} s")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
