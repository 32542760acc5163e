"""What the plain tests and ``kdrv explore`` make of a driver."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdrv.core.context import Context
from kdrv.core.errors import EXIT_FAILED, SetupError, WorkFailed
from kdrv.core.project import load_project
from kdrv.explore.bugbase import Bug
from kdrv.explore.campaign import Campaign, CampaignResult, Limits
from kdrv.explore.hunt import Found
from kdrv.explore.keep import Keeper
from kdrv.explore.replay import replay
from kdrv.explore.subject import prepare
from kdrv.testing.prepare import make_request

BUGS = "bugs"
KDRV = "from kdrv.cli.main import main; main()"


@dataclass(frozen=True)
class Hit:
    """The first bug that exploring found.

    ``seconds`` passed before a run showed it; ``runs`` were made until it was shrunk, too.
    ``exact`` says whether its replay gave the same history, byte for byte.
    """

    property: str
    words: str
    seconds: float
    runs: int
    steps: int
    exact: bool


@dataclass(frozen=True)
class Explored:
    """A campaign's result, and its first bug if there is one."""

    result: CampaignResult | None
    hit: Hit | None
    bugs: Sequence[Bug] = ()


class _First:
    """Ends a campaign at its first bug, as Ctrl-C does."""

    def __init__(self, *, stop: bool) -> None:
        self._stop = stop

    def progress(self, result: CampaignResult) -> None:
        """Nothing to say."""

    def found(self, bug: Found) -> None:
        # Once: what the other workers still bring in is gathered in peace.
        stop, self._stop = self._stop, False
        if stop:
            raise KeyboardInterrupt


def plain_tests(project: Path) -> bool:
    """Whether the project's own tests, in the simulator, find anything wrong.

    Raises :class:`SetupError` when they cannot be run.
    """
    argv = [sys.executable, "-c", KDRV, "test", "--sim", str(project)]
    done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode not in (0, EXIT_FAILED) or "does not build" in done.stdout + done.stderr:
        raise SetupError(f"the tests of {project} cannot be run: {done.stderr or done.stdout}")
    return done.returncode == EXIT_FAILED


def explore(
    ctx: Context,
    project: Path,
    scratch: Path,
    limits: Limits,
    *,
    jobs: int,
    kinds: Sequence[bool],
    first: bool = True,
) -> Explored:
    """Explore a driver on the plain kernel (False) or the checked one (True), or both.

    With ``first`` it ends at the first bug, which is replayed.
    """
    request = make_request(load_project(project), "sim")
    subject = prepare(ctx, request, scratch, kinds=kinds)
    try:
        shown = subject.reconnoitre(ctx)
    except WorkFailed as failed:
        # It is broken while nothing is wrong: no plan is needed to see it.
        return Explored(None, Hit("loads", failed.message, 0.0, 1, 0, exact=True))
    keeper = Keeper(project / BUGS, subject, _First(stop=first))
    result = Campaign(subject, shown, limits, jobs=jobs, watcher=keeper).run(ctx)
    if not result.bugs:
        return Explored(result, None)
    found, bug = result.bugs[0], keeper.bugs[0]
    at = next(sample for sample in result.samples if sample.bugs)
    again = replay(subject.bench(ctx, shown), bug, subject.identity)
    hit = Hit(
        found.violation.name,
        found.violation.words,
        found.seconds,
        at.runs,
        len(found.plan.steps),
        exact=again.exact and again.reproduced,
    )
    return Explored(result, hit, tuple(keeper.bugs))
