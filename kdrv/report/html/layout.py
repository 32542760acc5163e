"""Where on a diagram's axis each point is.

Virtual time stands still while the kernel computes and leaps while it waits: a true scale would
show a wall of marks and much white. So every point has its own place, in order; gaps grow with the
logarithm of the time they stand for; and from a millisecond on the axis is broken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kdrv.report.html.events import Point, told

SLOT = 15.0
"""Between two events, so that their labels, which stand upright, can be read."""
EDGE = 7.0
BREAK = 60.0
TORN = 9.0
"""How far a break is torn to either side of its middle."""
LONG = 1_000_000
"""From how many nanoseconds on a gap breaks the axis."""
CHARACTER = 6.3
BAR_TEXT_MOST = 44
BAR_TEXT_MARGIN = 14.0


@dataclass(frozen=True)
class Break:
    """A gap that is not drawn: ``x`` is its middle."""

    x: float
    nanoseconds: int


@dataclass(frozen=True)
class Tick:
    """Where an instant begins."""

    x: float
    at: int


@dataclass(frozen=True)
class Layout:
    """``places`` are the points' horizontal positions, from 0 to ``width``."""

    places: tuple[float, ...]
    breaks: tuple[Break, ...]
    ticks: tuple[Tick, ...]
    width: float


def lay_out(points: Sequence[Point]) -> Layout:
    """Place points from left to right."""
    places: list[float] = []
    breaks: list[Break] = []
    ticks: list[Tick] = []
    begun: dict[int, float] = {}
    x, last = EDGE, None
    for point in points:
        step = SLOT if point.event else EDGE
        gap = point.at - last if last is not None else 0
        if gap >= LONG:
            breaks.append(Break(x + BREAK / 2, gap))
            x += BREAK
        elif gap:
            # 100 ns are hardly seen, 100 us are three slots.
            x += step + EDGE * max(0.0, math.log10(gap / 100))
        elif last is not None:
            x += step
        if point.begins:
            begun[point.begins.index] = x
        elif point.ends:
            room = CHARACTER * min(len(told(point.ends)), BAR_TEXT_MOST) + BAR_TEXT_MARGIN
            clear = widest(begun.get(point.ends.index, x), x, breaks)
            if clear[1] - clear[0] < room:
                # Behind the last break: nothing else has been put there yet.
                x = max(x, clear_from(begun.get(point.ends.index, x), breaks) + room)
        if last is None or gap:
            ticks.append(Tick(x, point.at))
        places.append(x)
        last = point.at
    return Layout(tuple(places), tuple(breaks), tuple(ticks), x + 2 * EDGE)


def clear_from(begin: float, breaks: Sequence[Break]) -> float:
    """Where a bar from ``begin`` on is whole from: behind the last break, if there is one in it."""
    return max(begin, breaks[-1].x + TORN) if breaks else begin


def widest(begin: float, end: float, breaks: Sequence[Break]) -> tuple[float, float]:
    """The widest part of a bar that no break tears, as its left and right."""
    edges = [begin]
    for gap in breaks:
        if begin < gap.x < end:
            edges += [gap.x - TORN, gap.x + TORN]
    edges.append(end)
    return max(zip(edges[::2], edges[1::2], strict=True), key=lambda part: part[1] - part[0])
