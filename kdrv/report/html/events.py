"""What a diagram shows of a run: its operations and what devices did, in order."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from kdrv.explore.history import History, Moment, Violation
from kdrv.report.html.text import call
from kdrv.sim.trace import Access, ConfigAccess, DmaAccess, Interrupt, Note, Record

MOST = 220
"""How many events a diagram shows: about twelve screens."""
FAULT = "fault "


class Kind(StrEnum):
    """What an event on a device's bus is."""

    READ = "read"
    WRITE = "write"
    CONFIG = "config"
    TO_MEMORY = "to-memory"
    FROM_MEMORY = "from-memory"
    INTERRUPT = "interrupt"
    FAULT = "fault"
    VIOLATION = "violation"
    NOTE = "note"


@dataclass(frozen=True)
class Event:
    """A mark, or ``times`` alike in a row, the last one ``until``.

    Times are nanoseconds of virtual time; ``words`` tell all of it.
    """

    at: int
    device: str
    kind: Kind
    label: str
    words: str
    times: int = 1
    until: int = 0

    @property
    def end(self) -> int:
        """When the last one was."""
        return max(self.at, self.until)


@dataclass(frozen=True)
class Point:
    """One place on the axis: an event, or where an operation begins or ends."""

    at: int
    event: Event | None = None
    begins: Moment | None = None
    ends: Moment | None = None


@dataclass(frozen=True)
class Sequence:
    """Points in order. ``before`` and ``after`` count the events that were left out."""

    points: tuple[Point, ...]
    before: int
    after: int


def sequence(history: History, violation: Violation | None, most: int = MOST) -> Sequence:
    """The last ``most`` events, or those around a violation that has a time."""
    start = min((moment.began for moment in history.moments), default=0)
    # What the kernel does before anything else is to look for devices: the same in every run.
    wanted = (e for e in _events(history) if e.at >= start or e.kind is not Kind.CONFIG)
    events = list(_merged(wanted, history.moments))
    if violation and violation.at:
        words = f"{violation.name}: {violation.words}"
        place = next((n for n, e in enumerate(events) if e.at > violation.at), len(events))
        events.insert(place, Event(violation.at, "", Kind.VIOLATION, violation.name, words))
        last = min(len(events), max(place + most // 4, most))
    else:
        last = len(events)
    first = max(0, last - most)
    kept = events[first:last]
    low = kept[0].at if first else 0
    high = kept[-1].at if last < len(events) else None
    points = _points(kept, history.moments, low, high)
    return Sequence(tuple(points), first, len(events) - last)


def _points(
    events: list[Event], moments: tuple[Moment, ...], low: int, high: int | None
) -> list[Point]:
    """All in order: at one time operations begin first and end last."""
    keyed: list[tuple[tuple[int, int, int, int], Point]] = []
    for number, event in enumerate(events):
        keyed.append(((event.at, 1, number, 0), Point(event.at, event=event)))
    ended_at = {(lane_of(m), m.ended): m.index for m in sorted(moments, key=lambda m: -m.index)}
    for moment in moments:
        if moment.ended < low or (high is not None and moment.began > high):
            continue
        began, ended = max(moment.began, low), moment.ended
        ended = ended if high is None else min(ended, high)
        # It waits for the one before it.
        follows = ended_at.get((lane_of(moment), began), moment.index) < moment.index
        first = (began, 3 if follows else 0, moment.index, 0)
        last = (ended, 2, moment.index, 1) if ended > began else (*first[:3], 1)
        keyed.append((first, Point(began, begins=moment)))
        keyed.append((last, Point(ended, ends=moment)))
    return [point for _, point in sorted(keyed, key=lambda each: each[0])]


def _events(history: History) -> Iterator[Event]:
    told = set()
    found = []
    for record in history.trace:
        event = _event(record)
        if event:
            found.append(event)
            if event.kind is Kind.FAULT:
                told.add((event.at, event.device, event.label))
    for fault in history.fired:
        # Most faults leave a note in the trace, where they stand among the other events.
        if (fault.at, fault.device, fault.kind.value) not in told:
            where = f" {fault.register}" if fault.register else ""
            words = f"fault {fault.kind}{where}"
            found.append(Event(fault.at, fault.device, Kind.FAULT, fault.kind.value, words))
    found.sort(key=lambda event: event.at)
    yield from found


def _event(record: Record) -> Event | None:
    def made(kind: Kind, label: str) -> Event:
        return Event(record.at, record.device, kind, label, record.words())

    match record:
        case Access(write=write, register=register, offset=offset, value=value):
            kind = Kind.WRITE if write else Kind.READ
            arrow = "\N{LEFTWARDS ARROW}" if write else "="
            return made(kind, f"{register or f'+{offset:#x}'} {arrow} {value:#x}")
        case ConfigAccess():
            return made(Kind.CONFIG, "config space")
        case DmaAccess(write=write, data=data):
            kind = Kind.TO_MEMORY if write else Kind.FROM_MEMORY
            return made(kind, f"dma {'to' if write else 'from'} memory, {len(data)} B")
        case Interrupt(vector=vector):
            return made(Kind.INTERRUPT, f"interrupt {vector}")
        case Note(event=event) if event.startswith(FAULT):
            return made(Kind.FAULT, event.removeprefix(FAULT))
        case Note(event=event):
            return made(Kind.NOTE, event)
    return None


def _merged(events: Iterable[Event], moments: Iterable[Moment]) -> Iterator[Event]:
    """Polls as one event, and accesses to config space; no operation begins or ends among them."""
    edges = sorted(time for moment in moments for time in (moment.began, moment.ended))
    last: Event | None = None
    for event in events:
        if last and _alike(last, event):
            between = bisect_left(edges, last.end), bisect_right(edges, event.at)
            if between[0] == between[1]:
                last = replace(last, times=last.times + 1, until=event.at)
                continue
        if last:
            yield last
        last = event
    if last:
        yield last


def _alike(one: Event, other: Event) -> bool:
    same = (one.kind, one.device, one.label) == (other.kind, other.device, other.label)
    return same and one.kind in (Kind.READ, Kind.CONFIG)


def lane_of(moment: Moment) -> str:
    """Who does an operation: an actor, or the run itself before and after the plan."""
    return f"actor {moment.actor}" if moment.phase == "plan" else "run"


def told(moment: Moment) -> str:
    """An operation and how it went, as a bar's label."""
    outcome = moment.errno or moment.outcome.value
    return f"{call(moment.does, dict(moment.arguments))}  {outcome}"
