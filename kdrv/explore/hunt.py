"""One batch of runs: plans by chance until one fails, then the smallest that fails alike.

hypothesis does both; runs are exact, so an answer once given is kept and never asked for again.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis.strategies import SearchStrategy

from kdrv.explore.bench import Bench
from kdrv.explore.coverage import marked
from kdrv.explore.generate import Choice, plans
from kdrv.explore.history import History, Violation
from kdrv.explore.plan import Plan, Step, dump
from kdrv.sim.faults import FaultKind, Rule, explicit

SHRINK_SECONDS = 600.0
SHRINK_RUNS = 300
"""Shrinking ends after so many runs, the same on every machine; on a very slow one by the time."""
PRUNE_SECONDS = 15.0
"""How long single steps are left out after that."""
LONGEST_PIECE = 12
ROUND = 10
"""So many plans hypothesis draws at once. What comes after the tenth it makes mostly of what it
has, by putting copies of one part in place of others: after 50 plans hardly a fault is new."""
QUIET = tuple(HealthCheck)


@dataclass(frozen=True)
class Task:
    """What a worker is to do: ``examples`` plans from ``seed`` on, at most ``seconds`` long.

    Bugs with a ``known`` fingerprint are counted and not looked at again. ``seen`` is the coverage
    so far.
    """

    seed: int
    examples: int
    choice: Choice
    known: frozenset[str] = frozenset()
    seen: frozenset[int] = frozenset()
    seconds: float = inf
    shrink_seconds: float = SHRINK_SECONDS


@dataclass(frozen=True)
class Found:
    """A bug: the smallest plan that shows it, and what that plan's run showed."""

    violation: Violation
    plan: Plan
    history: History
    runs: int
    """After how many runs of its batch it showed first."""
    shrunk_from: int
    """How many steps the first failing plan had."""
    seconds: float
    """How long after its batch began it showed first; in a campaign's result, after the campaign
    did."""


@dataclass(frozen=True)
class Caught:
    """What came of a task.

    ``again`` counts known bugs that were met once more, ``lasted`` nanoseconds of virtual time;
    ``rest`` is what a new bug has kept from being tried. It follows from the task alone, and not
    from what others have found meanwhile.
    """

    seed: int
    checked: bool
    runs: int
    seconds: float
    lasted: int
    covered: frozenset[int]
    kept: tuple[tuple[Step, ...], ...]
    fired: Counter[FaultKind]
    wanted: Counter[FaultKind]
    again: Counter[str]
    found: Found | None = None
    rest: Task | None = None


class _Bug(Exception):
    """Raised for hypothesis alone: this plan fails in the way that is being looked for."""


class _Enough(BaseException):
    """Ends hypothesis, which would go on drawing: no ``Exception``, for those it takes for bugs."""


def _size(plan: Plan) -> tuple[int, int, int]:
    return len(plan.steps), len(plan.faults.rules), len(dump(plan))


class Hunt:
    """Carries a task out. ``stop`` is asked before every run."""

    def __init__(self, bench: Bench, task: Task, stop: Callable[[], bool]) -> None:
        self._bench = bench
        self._task = task
        self._stop = stop
        self._began = time.monotonic()
        self._until = self._began + task.seconds
        self._seen = set(task.seen)
        self._answers: dict[str, list[Violation]] = {}
        self._target = ""
        self._best: Plan | None = None
        self._first = (0, 0, 0.0)
        self._drawn = 0
        self._runs = 0
        self._lasted = 0
        self._covered: set[int] = set()
        self._kept: list[tuple[Step, ...]] = []
        self._fired: Counter[FaultKind] = Counter()
        self._wanted: Counter[FaultKind] = Counter()
        self._again: Counter[str] = Counter()

    def run(self) -> Caught:
        """Search, and shrink what is found."""
        task, strategy = self._task, plans(self._task.choice)
        with contextlib.suppress(_Bug, _Enough):
            for done in range(0, task.examples, ROUND):
                self._round(strategy, task.seed + done, min(ROUND, task.examples - done))
        found = self._found(self._best) if self._best else None
        return Caught(
            task.seed,
            task.choice.checked,
            self._runs,
            time.monotonic() - self._began,
            self._lasted,
            frozenset(self._covered),
            tuple(self._kept),
            self._fired,
            self._wanted,
            self._again,
            found,
            self._rest(),
        )

    def _rest(self) -> Task | None:
        task, left = self._task, self._task.examples - self._drawn
        if not self._target or left <= 0:
            return None
        return replace(
            task,
            seed=task.seed + self._drawn,
            examples=left,
            known=task.known | {self._target},
            seen=frozenset(self._seen),
        )

    def _round(self, strategy: SearchStrategy[Plan], seed: int, examples: int) -> None:
        @seeded(seed)
        @settings(
            max_examples=examples,
            database=None,
            deadline=None,
            phases=[Phase.generate, Phase.shrink],
            report_multiple_bugs=False,
            suppress_health_check=QUIET,
            print_blob=False,
        )
        @given(strategy)
        def probe(plan: Plan) -> None:
            self._probe(plan)

        probe()

    def _probe(self, plan: Plan) -> None:
        self._drawn += not self._target
        said = self._answers.get(plan.key)
        if said is None:
            spent = self._target and self._runs - self._first[0] > SHRINK_RUNS
            if spent or time.monotonic() > self._until or self._stop():
                raise _Enough
            said = self._answers[plan.key] = self._try(plan)
        for violation in said:
            if violation.fingerprint in self._task.known:
                if not self._target:
                    self._again[violation.fingerprint] += 1
                continue
            if not self._target:
                self._target = violation.fingerprint
                now = time.monotonic() - self._began
                self._first = (self._runs, len(plan.steps), now)
                self._until = time.monotonic() + self._task.shrink_seconds
            if violation.fingerprint == self._target:
                self._best = min(self._best or plan, plan, key=_size)
                raise _Bug

    def _try(self, plan: Plan) -> list[Violation]:
        history = self._bench.run(plan)
        self._runs += 1
        self._lasted += history.lasted
        if not self._target:
            self._learn(plan, history)
        return self._bench.judge(plan, history)

    def _learn(self, plan: Plan, history: History) -> None:
        self._fired.update(fault.kind for fault in history.fired)
        self._wanted.update({rule.kind for rule in plan.faults.rules})
        new = marked(history.covered, plan.checked) - self._seen
        if new:
            self._seen |= new
            self._covered |= new
            if plan.steps:
                self._kept.append(plan.steps[:LONGEST_PIECE])

    def _found(self, plan: Plan) -> Found | None:
        """The bug, without what does not matter, and with its faults named one by one."""
        found = self._shows(plan)
        if found is None:
            # A run that was cut short by the host (HOST_PATIENCE) and not by the driver.
            return None
        if shorter := _reached(found):
            found = self._shows(shorter) or found
        return self._named(self._pruned(found))

    def _named(self, found: Found) -> Found:
        """With the faults that fired in place of rates."""
        plan = replace(found.plan, faults=explicit(found.plan.faults, found.history.fired))
        return found if plan == found.plan else self._shows(plan) or found

    def _pruned(self, found: Found) -> Found:
        """Without each step that the bug can do without, where hypothesis had no time to see it.

        A fault at a numbered opportunity is another one when there are fewer steps before it, so
        the same faults at every opportunity are tried first.
        """
        rules = tuple(
            Rule(rule.kind, rate=1.0, device=rule.device, most=rule.most)
            for rule in found.plan.faults.rules
        )
        faults = replace(found.plan.faults, rules=rules)
        found = self._shows(replace(found.plan, faults=faults)) or found
        for place in reversed(range(len(found.plan.steps))):
            if self._stop() or time.monotonic() > self._until + PRUNE_SECONDS:
                break
            steps = found.plan.steps[:place] + found.plan.steps[place + 1 :]
            found = self._shows(replace(found.plan, steps=steps)) or found
        return found

    def _shows(self, plan: Plan) -> Found | None:
        """What a plan shows, if it is the bug."""
        history = self._bench.run(plan)
        for one in self._bench.judge(plan, history):
            if one.fingerprint == self._target:
                return Found(one, plan, history, *self._first)
        return None


def _reached(found: Found) -> Plan | None:
    """The plan without the steps that were not reached, each actor's last ones, if there are."""
    done = Counter(m.actor for m in found.history.moments if m.phase == "plan")
    kept = []
    for step in found.plan.steps:
        if done[step.actor]:
            done[step.actor] -= 1
            kept.append(step)
    return replace(found.plan, steps=tuple(kept)) if len(kept) < len(found.plan.steps) else None
