"""Measuring two things in turn, so that a drift of the machine's speed hits both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """Seconds of each round for ours and for the baseline."""

    name: str
    baseline: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    limit: float | None = None

    @property
    def value(self) -> float:
        """The median of the rounds' ratios, ours to theirs."""
        return statistics.median(a / b for a, b in zip(self.ours, self.theirs, strict=True))

    def row(self) -> str:
        """One line: what, both medians, the ratio, and the limit if there is one."""
        ours, theirs = statistics.median(self.ours), statistics.median(self.theirs)
        judged = ""
        if self.limit is not None:
            judged = (
                f"  (at most {self.limit:g}: {'kept' if self.value <= self.limit else 'MISSED'})"
            )
        return (
            f"{self.name:<44} {ours:7.2f} s  {self.baseline:<34} {theirs:7.2f} s"
            f"  ratio {self.value:5.2f}{judged}"
        )


def measure(
    name: str,
    ours: Callable[[], object],
    baseline: str,
    theirs: Callable[[], object],
    *,
    rounds: int = 5,
    limit: float | None = None,
) -> Ratio:
    """Run both in turn, after one uncounted round of each."""
    ours(), theirs()
    pairs = [(_seconds(ours), _seconds(theirs)) for _ in range(rounds)]
    return Ratio(name, baseline, tuple(a for a, _ in pairs), tuple(b for _, b in pairs), limit)


def _seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began
