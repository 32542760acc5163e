"""Replaying a bug: the same plan on the driver as it is now, and what that shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from kdrv.core.show import clean
from kdrv.explore.bench import Bench
from kdrv.explore.bugbase import Bug
from kdrv.explore.history import History, Violation
from kdrv.explore.plan import Plan
from kdrv.explore.subject import Identity


@dataclass(frozen=True)
class Divergence:
    """The first place at which two runs of one plan differ.

    ``where`` is ``console``, ``trace`` or ``operations``; ``before`` are the last lines that both
    have.
    """

    where: str
    number: int
    one: str
    other: str
    before: tuple[str, ...]


@dataclass(frozen=True)
class Replay:
    """What a replay showed.

    ``exact`` is whether the history is the recorded one, byte for byte; ``same_driver`` and
    ``same_kernel`` whether it could be. ``divergence`` is set when a second run differed.
    """

    plan: Plan
    history: History
    violations: tuple[Violation, ...]
    exact: bool
    same_driver: bool
    same_kernel: bool
    reproduced: bool
    divergence: Divergence | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong any more."""
        return not self.violations and self.divergence is None


def replay(bench: Bench, bug: Bug, identity: Identity, *, twice: bool = False) -> Replay:
    """Run a bug's plan, or run it twice and compare."""
    history = bench.run(bug.plan)
    broken = bench.judge(bug.plan, history)
    other = first_divergence(history, bench.run(bug.plan)) if twice else None
    return Replay(
        plan=bug.plan,
        history=history,
        violations=tuple(broken),
        exact=history.hash == bug.record.hash,
        same_driver=identity.driver == bug.record.driver,
        same_kernel=(identity.kernel, identity.config) == (bug.record.kernel, bug.record.config),
        reproduced=any(one.fingerprint == bug.record.fingerprint for one in broken),
        divergence=other,
    )


def first_divergence(one: History, other: History) -> Divergence | None:
    """Where two histories differ first, in virtual time; None when they are the same."""
    found = [
        divergence
        for where, ours, theirs in (
            ("trace", [str(r) for r in one.trace], [str(r) for r in other.trace]),
            ("console", _console(one), _console(other)),
            ("operations", [m.story() for m in one.moments], [m.story() for m in other.moments]),
        )
        if (divergence := _first(where, ours, theirs))
    ]
    return found[0] if found else None


def _console(history: History) -> list[str]:
    return [clean(line.text) for line in history.console]


def _first(where: str, ours: Sequence[str], theirs: Sequence[str]) -> Divergence | None:
    for number, (one, other) in enumerate(zip_longest(ours, theirs, fillvalue="(nothing)")):
        if one != other:
            return Divergence(where, number, one, other, tuple(ours[max(0, number - 3) : number]))
    return None


def timeline(history: History) -> list[str]:
    """Operations, bus, faults and console, interleaved on one virtual time line."""
    events: list[tuple[int, int, str]] = []
    for moment in history.moments:
        who = f"{moment.phase} {moment.actor}" if moment.phase == "plan" else moment.phase
        events.append((moment.began, 0, f"[{who}] {moment.does} begins"))
        events.append((moment.ended, 3, f"[{who}] {moment.story()}"))
    events += [(record.at, 1, f"  {record.device}: {record.words()}") for record in history.trace]
    events += [(line.at, 2, f"    | {clean(line.text)}") for line in history.console]
    events.sort(key=lambda event: event[:2])
    return [f"{at / 1e9:14.9f}  {text}" for at, _, text in events]
