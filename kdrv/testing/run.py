"""Running a project's tests: pytest underneath, typed results above."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from kdrv.build.result import KernelBuild, ModuleBuild
from kdrv.core.context import Context
from kdrv.core.errors import UsageError, WorkFailed
from kdrv.testing.hall import Hall, open_hall
from kdrv.testing.plugin import HALL
from kdrv.testing.prepare import Preparation, TestRequest, prepare_project
from kdrv.testing.scripts import KmemleakItem
from kdrv.testing.worlds import Simulated

PLUGIN = "kdrv.testing.plugin"
LOOKING = frozenset({"--collect-only", "--co", "-h", "--help", "--fixtures", "--markers", "-V"})
"""Arguments with which pytest runs no test."""
NOT_REWRITTEN = "ignore::pytest.PytestAssertRewriteWarning"
"""We imported the plugin before pytest could rewrite its assertions; it has none."""


@dataclass(frozen=True)
class CaseResult:
    """One test. ``outcome`` is passed, failed or skipped.

    ``verdict`` is what the machine showed when the kernel, not an assertion, ended the test;
    ``fingerprint`` then identifies the crash.
    """

    name: str
    outcome: str
    seconds: float
    detail: str = ""
    verdict: str = ""
    fingerprint: str = ""
    reproducer: str = ""


@dataclass(frozen=True)
class TestRun:
    """A whole run of one project in one world."""

    __test__ = False  # a name of ours, not of pytest's
    world: str
    lane: str
    kernel: KernelBuild
    module: ModuleBuild | None
    cases: tuple[CaseResult, ...]
    boots: int
    boot_seconds: float
    seconds: float
    status: int
    """pytest's own exit status (pytest.ExitCode)."""
    simulated: tuple[Simulated, ...] = ()
    """What each simulated machine lived through, in the order of their boots."""

    @property
    def ok(self) -> bool:
        """Whether every test passed or was skipped, and there was at least one."""
        return self.status == pytest.ExitCode.OK


class _Recorder:
    """Hands pytest the prepared hall, and collects its reports."""

    def __init__(self, hall: Hall, request: TestRequest) -> None:
        self._hall = hall
        self._request = request
        self.cases: dict[str, CaseResult] = {}
        self.broken: list[str] = []

    def pytest_configure(self, config: pytest.Config) -> None:
        config.stash[HALL] = self._hall

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, session: pytest.Session, items: list[pytest.Item]
    ) -> None:
        """After all that were selected, kmemleak has its word on a debug kernel."""
        if items and self._request.debug:
            items.append(KmemleakItem.from_parent(session, name="kmemleak"))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.broken.append(report.longreprtext)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        before = self.cases.get(report.nodeid)
        seconds = report.duration + (before.seconds if before else 0.0)
        if before and before.outcome == "failed":
            return
        if report.when != "call" and report.passed:
            if before:
                self.cases[report.nodeid] = replace(before, seconds=seconds)
            return
        properties = dict(report.user_properties)
        self.cases[report.nodeid] = CaseResult(
            name=report.nodeid,
            outcome=report.outcome,
            seconds=seconds,
            detail=report.longreprtext if report.failed else "",
            verdict=str(properties.get("verdict", "")),
            fingerprint=str(properties.get("fingerprint", "")),
            reproducer=self._request.command(report.nodeid) if report.failed else "",
        )


def run_project(
    ctx: Context,
    request: TestRequest,
    arguments: Sequence[str],
    scratch: Path,
    *,
    quiet: bool = False,
    prepare: Preparation = prepare_project,
) -> TestRun:
    """Build, boot, run the tests with pytest's own ``arguments``, shut down.

    With ``quiet`` pytest prints nothing. Raises :class:`WorkFailed` when a test file cannot be
    collected and :class:`UsageError` when there is no test or pytest refuses the arguments.
    """
    assert request.project is not None
    root = request.project.root
    began = time.monotonic()
    with open_hall(ctx, request, scratch, prepare) as hall:
        recorder = _Recorder(hall, request)
        argv = ["-p", PLUGIN, "--rootdir", str(root), "-W", NOT_REWRITTEN]
        places = [str(root / path) for path in request.project.test.paths]
        if not any(_names_tests(word, root) for word in arguments):
            argv += places
        if not request.simulated and not set(arguments) & LOOKING:
            # It boots while pytest gets ready.
            hall.room.begin()
        with _silenced() if quiet else contextlib.nullcontext():
            status = pytest.main([*argv, *_absolute(arguments, root)], plugins=[recorder])
        room, prepared = hall.room, hall.prepared
        room.discard()
        result = TestRun(
            world=request.world,
            lane=prepared.build.kernel.lane,
            kernel=prepared.build.kernel,
            module=prepared.build.module,
            cases=tuple(recorder.cases.values()),
            boots=room.boots,
            boot_seconds=room.boot_seconds,
            seconds=time.monotonic() - began,
            status=int(status),
            simulated=tuple(hall.simulated),
        )
    _refuse(result, recorder.broken, request)
    return result


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """pytest's report goes nowhere: stdout is for the result."""
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def _refuse(result: TestRun, broken: list[str], request: TestRequest) -> None:
    """Turn pytest's statuses that are no test results into errors with a remedy."""
    if broken:
        lines = [line for line in broken[0].splitlines() if line.startswith("E ")] or broken[0:1]
        raise WorkFailed(
            f"a test file cannot be read: {lines[-1].removeprefix('E').strip()}",
            detail=broken[0].splitlines()[-8:],
            expected="Python that pytest can collect",
            reproducer=request.command(),
        )
    if result.status == pytest.ExitCode.NO_TESTS_COLLECTED:
        raise UsageError(
            "no test was selected",
            expected="test_*.py, *.sh or KUnit suites below [test] paths of kdrv.toml",
            remedy=request.command(),
        )
    if result.status == pytest.ExitCode.USAGE_ERROR:
        raise UsageError("pytest refused its arguments (see above)", remedy="pytest --help")
    if result.status == pytest.ExitCode.INTERRUPTED:
        raise KeyboardInterrupt


def _names_tests(word: str, root: Path) -> bool:
    path = word.split("::")[0]
    return not word.startswith("-") and ((root / path).exists() or Path(path).exists())


def _absolute(arguments: Sequence[str], root: Path) -> list[str]:
    """Arguments that name tests, as paths below the project, wherever kdrv was called from."""
    words = []
    for word in arguments:
        path, *rest = word.split("::")
        if not word.startswith("-") and not Path(path).exists() and (root / path).exists():
            word = "::".join([str(root / path), *rest])
        words.append(word)
    return words
