"""A campaign: batches side by side, coverage and bugs gathered, a clean stop at any time."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import Protocol

from kdrv.core.context import Context
from kdrv.core.executor import Workers, workers
from kdrv.explore.generate import BEARABLE, Choice, allowed
from kdrv.explore.hunt import Caught, Found, Task
from kdrv.explore.plan import Step
from kdrv.explore.shown import Shown
from kdrv.explore.subject import Identity, Subject
from kdrv.explore.worker import Post, carry_out, make_post
from kdrv.sim.faults import FaultKind
from kdrv.testing.prepare import TestRequest

EXAMPLES = {False: 48, True: 8}
"""How many plans a batch has, on the plain and on the checked kernel."""
MOST_PIECES = 200
STOP_SECONDS = 60.0


@dataclass(frozen=True)
class Limits:
    """When a campaign ends: after so many ``seeds`` (plans), or ``seconds``; whichever is first.

    ``first`` is the first seed.
    """

    seeds: int | None = None
    seconds: float | None = None
    first: int = 0


@dataclass(frozen=True)
class Away:
    """A campaign on other machines: their scheduler's address (see :mod:`kdrv.core.cluster`).

    Their workers make the driver ready by themselves, from the ``request`` it was made ready from
    here: kernels and modules are in each machine's own cache.
    """

    address: str
    request: TestRequest


@dataclass(frozen=True)
class Sample:
    """How far a campaign was, so many seconds after it began."""

    at: float
    runs: int
    covered: int
    bugs: int


@dataclass(frozen=True)
class CampaignResult:
    """What a campaign showed.

    ``covered`` are places in the driver's code that were reached (see
    :func:`kdrv.explore.coverage.marked`); ``never`` are faults that were
    asked for and never fired; ``met`` counts how often each bug showed, by fingerprint.
    """

    identity: Identity
    operations: tuple[str, ...]
    jobs: int
    runs: int
    checked_runs: int
    seconds: float
    virtual_seconds: float
    covered: frozenset[int]
    fired: dict[FaultKind, int]
    never: tuple[FaultKind, ...]
    bugs: tuple[Found, ...]
    met: dict[str, int]
    samples: tuple[Sample, ...]
    interrupted: bool = False

    @property
    def ok(self) -> bool:
        """Whether no bug was found."""
        return not self.bugs


class Watcher(Protocol):
    """Is told how a campaign goes on."""

    def progress(self, result: CampaignResult) -> None:
        """A batch has ended; ``result`` is what there is so far."""
        ...

    def found(self, bug: Found) -> None:
        """A bug that was not known."""
        ...


@dataclass
class _Ledger:
    """What has been gathered."""

    covered: set[int] = field(default_factory=set)
    pool: list[tuple[Step, ...]] = field(default_factory=list)
    fired: Counter[FaultKind] = field(default_factory=Counter)
    wanted: Counter[FaultKind] = field(default_factory=Counter)
    met: Counter[str] = field(default_factory=Counter)
    bugs: dict[str, Found] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    runs: int = 0
    checked_runs: int = 0
    virtual: float = 0.0

    def enter(self, caught: Caught, at: float) -> Found | None:
        """Take a batch over; the bug in it if it is new."""
        self.runs += caught.runs
        self.checked_runs += caught.runs if caught.checked else 0
        self.virtual += caught.virtual_seconds
        if caught.covered - self.covered:
            self.covered |= caught.covered
            self.pool = [*self.pool, *caught.kept][-MOST_PIECES:]
        self.fired.update(caught.fired)
        self.wanted.update(caught.wanted)
        self.met.update(caught.again)
        fresh = None
        if found := caught.found:
            self.met[found.violation.fingerprint] += 1
            if found.violation.fingerprint not in self.bugs:
                fresh = self.bugs[found.violation.fingerprint] = found
        self.samples.append(Sample(at, self.runs, len(self.covered), len(self.bugs)))
        return fresh


class Campaign:
    """Explores a subject within limits, ``jobs`` batches at once (default: what there is room for).

    What a batch is drawn from follows from those that have ended: one at a time they give the same
    result wherever they run, otherwise it depends on which is ready first.
    """

    def __init__(
        self,
        subject: Subject,
        shown: Shown,
        limits: Limits,
        *,
        jobs: int | None,
        kinds: tuple[FaultKind, ...] = BEARABLE,
        watcher: Watcher,
        away: Away | None = None,
    ) -> None:
        self._subject = subject
        self._shown = shown
        self._limits = limits
        self._wanted_jobs = jobs
        self._jobs = jobs or 1
        self._watcher = watcher
        self._away = away
        self._menu = subject.menu(shown)
        machine = subject.project.machine
        self._kinds = allowed(kinds, devices=bool(machine.device))
        self._ledger = _Ledger()
        self._next = limits.first
        self._turn = 0
        self._began = time.monotonic()

    def run(self, ctx: Context) -> CampaignResult:
        """Until a limit is reached or somebody interrupts."""
        self._began = time.monotonic()
        interrupted = False
        address = self._away.address if self._away else None
        request = self._away.request if self._away else None
        post = make_post(ctx, self._subject, self._shown, request)
        with workers(self._wanted_jobs, cluster=address) as executor:
            running: set[Future[Caught]] = set()
            try:
                while self._fill(executor, post, running):
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    self._collect(done)
            except KeyboardInterrupt:
                interrupted = True
                executor.stop()
                self._collect(wait(running, timeout=STOP_SECONDS).done)
        return self._result(interrupted)

    def _fill(self, executor: Workers, post: Post, running: set[Future[Caught]]) -> bool:
        """Keep every worker busy; false when there is nothing left to wait for."""
        self._jobs = executor.jobs
        while len(running) < self._jobs and (task := self._task()):
            running.add(executor.submit(carry_out, post, task))
        return bool(running)

    def _task(self) -> Task | None:
        left = self._seconds_left()
        kinds = sorted(self._subject.stands)
        checked = kinds[self._turn % len(kinds)]
        examples = EXAMPLES[checked]
        if self._limits.seeds is not None:
            examples = min(examples, self._limits.first + self._limits.seeds - self._next)
        if left <= 0 or examples <= 0:
            return None
        self._turn += 1
        seed, self._next = self._next, self._next + examples
        ledger = self._ledger
        return Task(
            seed,
            examples,
            Choice({}, self._kinds, tuple(ledger.pool), checked),
            frozenset(ledger.bugs),
            frozenset(ledger.covered),
            min(left, 60.0),
        )

    def _seconds_left(self) -> float:
        if self._limits.seconds is None:
            return float("inf")
        return self._began + self._limits.seconds - time.monotonic()

    def _collect(self, done: set[Future[Caught]]) -> None:
        for caught in sorted((future.result() for future in done), key=lambda one: one.seed):
            fresh = self._ledger.enter(caught, time.monotonic() - self._began)
            if fresh:
                self._watcher.found(fresh)
            self._watcher.progress(self._result(interrupted=False))

    def _result(self, interrupted: bool) -> CampaignResult:
        ledger = self._ledger
        return CampaignResult(
            self._subject.identity,
            tuple(self._menu.operations),
            self._jobs,
            ledger.runs,
            ledger.checked_runs,
            time.monotonic() - self._began,
            ledger.virtual,
            frozenset(ledger.covered),
            dict(ledger.fired),
            tuple(kind for kind in FaultKind if ledger.wanted[kind] and not ledger.fired[kind]),
            tuple(ledger.bugs.values()),
            dict(ledger.met),
            tuple(ledger.samples),
            interrupted,
        )
