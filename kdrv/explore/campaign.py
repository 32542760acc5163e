"""A campaign: batches side by side, coverage and bugs gathered, a clean stop at any time."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from math import inf
from typing import Protocol

from kdrv.core.context import Context
from kdrv.core.errors import WorkFailed
from kdrv.core.executor import Workers, workers
from kdrv.explore.generate import BEARABLE, Choice, allowed
from kdrv.explore.hunt import Caught, Found, Task
from kdrv.explore.plan import Step
from kdrv.explore.shown import Shown
from kdrv.explore.subject import Identity, Subject
from kdrv.explore.worker import Post, carry_out, make_post
from kdrv.sim.faults import FaultKind
from kdrv.testing.prepare import TestRequest

EXAMPLES = {False: 24, True: 8}
"""How many plans a batch has, on the plain and on the checked kernel."""
HOPELESS = 30
"""After so many plans with it a fault that never fired is taken for one that cannot."""
IN_TIME, LEAST_SHRINKING = 45.0, 10.0
"""Seconds for which a bug is shrunk where there is a time to keep: at most, and at least."""
BATCH_SECONDS = 60.0
MOST_PIECES = 200
STOP_SECONDS = 60.0
BATCH_PATIENCE, LAST_PATIENCE = 3600.0, 600.0


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
    lasted: int = 0  # ns: a sum of floats would tell in which order the batches ended

    def enter(self, caught: Caught, at: float) -> Found | None:
        """Take a batch over; the bug in it if it is new."""
        self.runs += caught.runs
        self.checked_runs += caught.runs if caught.checked else 0
        self.lasted += caught.lasted
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
                fresh = replace(found, seconds=at - caught.seconds + found.seconds)
                self.bugs[found.violation.fingerprint] = fresh
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
        self._due: list[Task] = []
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
                    patience = self._patience()
                    done, running = wait(running, patience, return_when=FIRST_COMPLETED)
                    if not done:
                        raise _lost(patience)
                    self._collect(done)
            except KeyboardInterrupt:
                interrupted = True
                executor.stop()
                self._collect(wait(running, timeout=STOP_SECONDS).done)
        return self._result(interrupted)

    def _patience(self) -> float:
        """How long the next batch may take to come back, in seconds: far longer than any does."""
        left = self._seconds_left()
        if left == inf or self._away:
            return BATCH_PATIENCE  # a worker elsewhere may have to build its kernels first
        return max(left, 0.0) + LAST_PATIENCE

    def _fill(self, executor: Workers, post: Post, running: set[Future[Caught]]) -> bool:
        """Keep every worker busy; false when there is nothing left to wait for."""
        self._jobs = executor.jobs
        while len(running) < self._jobs and (task := self._task()):
            running.add(executor.submit(carry_out, post, task))
        return bool(running)

    def _task(self) -> Task | None:
        left = self._seconds_left()
        if left <= 0:
            return None
        task = self._due.pop(0) if self._due else self._fresh()
        if task is None or left == inf:
            # What comes of a seed then does not depend on the host's speed.
            return task
        return replace(
            task,
            seconds=min(left, BATCH_SECONDS),
            shrink_seconds=min(IN_TIME, max(left, LEAST_SHRINKING)),
        )

    def _fresh(self) -> Task | None:
        """The next batch of seeds."""
        kinds = sorted(self._subject.stands)
        checked = kinds[self._turn % len(kinds)]
        examples = EXAMPLES[checked]
        if self._limits.seeds is not None:
            examples = min(examples, self._limits.first + self._limits.seeds - self._next)
        if examples <= 0:
            return None
        self._turn += 1
        seed, self._next = self._next, self._next + examples
        ledger = self._ledger
        return Task(
            seed,
            examples,
            Choice({}, self._worth(), tuple(ledger.pool), checked),
            frozenset(ledger.bugs),
            frozenset(ledger.covered),
        )

    def _worth(self) -> tuple[FaultKind, ...]:
        """The faults to draw from: without those that this driver and device never meet."""
        fired, wanted = self._ledger.fired, self._ledger.wanted
        kinds = tuple(k for k in self._kinds if fired[k] or wanted[k] < HOPELESS)
        return kinds or self._kinds

    def _seconds_left(self) -> float:
        if self._limits.seconds is None:
            return inf
        return self._began + self._limits.seconds - time.monotonic()

    def _collect(self, done: set[Future[Caught]]) -> None:
        now = time.monotonic() - self._began
        batches = sorted((future.result() for future in done), key=lambda one: one.seed)
        self._due += [caught.rest for caught in batches if caught.rest]
        # All, before a watcher can interrupt.
        for fresh in [self._ledger.enter(caught, now) for caught in batches]:
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
            ledger.lasted / 1e9,
            frozenset(ledger.covered),
            dict(ledger.fired),
            tuple(kind for kind in FaultKind if ledger.wanted[kind] and not ledger.fired[kind]),
            tuple(ledger.bugs.values()),
            dict(ledger.met),
            tuple(ledger.samples),
            interrupted,
        )


def _lost(patience: float) -> WorkFailed:
    return WorkFailed(
        f"no batch of plans has come back for {patience:.0f} s",
        expected="operations and properties that return: each call in the guest has a deadline",
        remedy="kdrv explore --jobs 1 --seeds 1, to see which one loops",
    )
