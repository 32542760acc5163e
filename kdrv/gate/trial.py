"""In a sandbox of its own: a driver's tests, or a short campaign, for tests are code of a patch.

``python -m kdrv.gate.trial FOLDER`` does the :class:`Task` that lies there and leaves a
:class:`Told`, which is all that anyone believes of it.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from kdrv.build.api import LaneBuild, Workbench
from kdrv.core.context import Context
from kdrv.core.errors import KdrvError, UsageError
from kdrv.core.project import load_project
from kdrv.core.show import plural
from kdrv.explore.campaign import Campaign, CampaignResult, Limits
from kdrv.explore.hunt import Found
from kdrv.explore.subject import prepare
from kdrv.testing.prepare import SIM, Prepared, TestRequest, make_request, prepare_built
from kdrv.testing.run import CaseResult, run_project

TASK = "task"
TOLD = "told.json"
ENDED = "ended"
"""The name of a finding that is no test's: they ended before they were through."""
SEEDS = 200
SECONDS = 120.0
"""A campaign ends after so many plans, on a slow machine after so long."""


@dataclass(frozen=True)
class Task:
    """What to try: the project at ``root``, built as ``build`` says, in a ``world``.

    ``cache`` holds what a machine needs to boot; nothing is written there.
    """

    root: Path
    world: str
    bench: Workbench
    build: LaneBuild
    cache: Path


class Finding(msgspec.Struct, frozen=True):
    """A test that failed, by its name, or a bug, by its fingerprint."""

    name: str
    words: str


class Told(msgspec.Struct, frozen=True):
    """What came of a task: how many tests or plans ran, and what they found.

    ``refused`` says why there was nothing to run.
    """

    tried: int = 0
    findings: tuple[Finding, ...] = ()
    refused: str = ""


def carry_out(task: Task, folder: Path) -> Told:
    """Do a task; ``folder`` is the one place that can be written."""
    ctx = Context(cache=folder / "cache", beneath=task.cache, jobs=1)
    scratch = folder / "scratch"
    scratch.mkdir()
    try:
        project = load_project(task.root)
        request = make_request(project, task.world, kernel=str(task.bench.tree.path))

        def built(ctx: Context, request: TestRequest, place: Path) -> Prepared:
            return prepare_built(ctx, request, task.bench, task.build, place)

        if task.world != SIM:
            run = run_project(
                ctx, request, ("-p", "no:cacheprovider"), scratch, quiet=True, prepare=built
            )
            return of_tests(run.cases, run.status)
        subject = prepare(ctx, request, scratch, kinds=(False,), ready=built)
        shown = subject.reconnoitre(ctx)
        limits = Limits(SEEDS, SECONDS)
        campaign = Campaign(subject, shown, limits, jobs=1, watcher=_Silent()).run(ctx)
    except UsageError as error:
        return Told(refused=error.message)
    except KdrvError as error:
        return Told(findings=(Finding("ready", error.message),))
    return Told(campaign.runs, tuple(_bug(found) for found in campaign.bugs))


def of_tests(cases: Sequence[CaseResult], status: int) -> Told:
    """What came of tests, and of the status with which pytest ended.

    They passed only if pytest says so too, and something ran: tests can end it as they like.
    """
    failed = [case for case in cases if case.outcome == "failed"]
    findings = [Finding(case.name, _last(case.detail)) for case in failed]
    if not findings and (status or not cases):
        findings.append(Finding(ENDED, f"pytest ended with status {status}, and no test failed"))
    return Told(len(cases), tuple(findings))


def _last(detail: str) -> str:
    """What an assertion or a crash came to: pytest's last line of its kind."""
    lines = [line.removeprefix("E").strip() for line in detail.splitlines() if line[:1] == "E"]
    return next(filter(None, lines), "failed")


def _bug(found: Found) -> Finding:
    violation = found.violation
    after = plural(len(found.plan.steps), "step")
    words = f"{violation.name}: {violation.words} (after {after})"
    return Finding(violation.fingerprint, words)


class _Silent:
    """Nobody watches."""

    def progress(self, result: CampaignResult) -> None:
        """See :class:`kdrv.explore.campaign.Watcher`."""

    def found(self, bug: Found) -> None:
        """See :class:`kdrv.explore.campaign.Watcher`."""


def main(folder: Path) -> None:
    """Do the task in ``folder``."""
    # Written by kdrv, and read before anything of a patch runs.
    task = pickle.loads((folder / TASK).read_bytes())
    told = carry_out(task, folder)
    (folder / TOLD).write_bytes(msgspec.json.encode(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
