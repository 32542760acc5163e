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
"""From how many nanoseconds on a gap may break the axis."""
MOST_BREAKS = 16
"""A device that is looked at every millisecond does not tear everything: the longest gaps do."""
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
    long = _long(points)
    x, last = EDGE, None
    for point in points:
        step = SLOT if point.event else EDGE
        gap = point.at - last if last is not None else 0
        if gap >= long:
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
            room = room_for(told(point.ends))
            start = begun.get(point.ends.index, x)
            left, right = clear_part(start, x, breaks, room)
            if right - left < room:
                # Behind the last break: nothing else has been put there yet.
                x = max(x, clear_from(start, breaks) + room)
        if last is None or gap:
            ticks.append(Tick(x, point.at))
        places.append(x)
        last = point.event.end if point.event else point.at
    return Layout(tuple(places), tuple(breaks), tuple(ticks), x + 2 * EDGE)


def _long(points: Sequence[Point]) -> int:
    """From how many nanoseconds on a gap breaks this axis."""
    ends = [point.event.end if point.event else point.at for point in points]
    gaps = sorted((b.at - end for end, b in zip(ends, points[1:], strict=False)), reverse=True)
    return max(LONG, gaps[MOST_BREAKS] + 1) if len(gaps) > MOST_BREAKS else LONG


def clear_from(begin: float, breaks: Sequence[Break]) -> float:
    """Where a bar from ``begin`` on is whole from: behind the last break, if there is one in it."""
    return max(begin, breaks[-1].x + TORN) if breaks else begin


def clear_part(
    begin: float, end: float, breaks: Sequence[Break], room: float
) -> tuple[float, float]:
    """The first part of a bar that no break tears and that is ``room`` wide, or the widest one."""
    edges = [begin]
    for gap in breaks:
        if begin < gap.x < end:
            edges += [gap.x - TORN, gap.x + TORN]
    edges.append(end)
    parts = list(zip(edges[::2], edges[1::2], strict=True))
    wide = (part for part in parts if part[1] - part[0] >= room)
    return next(wide, max(parts, key=lambda part: part[1] - part[0]))


def room_for(label: str) -> float:
    """How wide a bar is to be, so that its label can be read."""
    return CHARACTER * min(len(label), BAR_TEXT_MOST) + BAR_TEXT_MARGIN
