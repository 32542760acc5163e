"""A run as a diagram: a lane for each actor and each device, along virtual time."""

from __future__ import annotations

from collections.abc import Iterator

from markupsafe import Markup

from kdrv.explore.history import History, Moment, Outcome, Violation
from kdrv.report.html.events import Event, Kind, Sequence, lane_of, sequence, told
from kdrv.report.html.layout import CHARACTER, Layout, clear_part, lay_out, room_for
from kdrv.report.html.svg import element, group, path, picture, title
from kdrv.report.html.text import count, cut, span

NAMES = 84.0
AXIS = 30.0
ACTOR, BAR = 34.0, 22.0
DEVICE = 44.0
"""A device's lane without its labels."""
LABEL_MOST = 28
LABEL_CHARACTER = 6.05
ZIGZAG = 5.0
BREAK_ROOM = 18.0
MARK = 16.0
"""How far below the top of its lane a mark is."""

BAD = frozenset({Outcome.HUNG, Outcome.BLOCKED, Outcome.DIED, Outcome.WRONG})
SHAPES = {
    Kind.READ: "M0 -5L4.5 3H-4.5Z",
    Kind.WRITE: "M0 5L4.5 -3H-4.5Z",
    Kind.TO_MEMORY: "M-4.5 -4.5H4.5V4.5H-4.5Z",
    Kind.FROM_MEMORY: "M-4.5 -4.5H4.5V4.5H-4.5Z",
    Kind.INTERRUPT: "M0 -6L2 -1H5L-1 6L0 1H-4Z",
    Kind.FAULT: "M0 -6L6 0L0 6L-6 0Z",
    Kind.VIOLATION: "M0 -6L6 0L0 6L-6 0Z",
    Kind.CONFIG: "M-4 -1.2H4V1.2H-4Z",
    Kind.NOTE: "M-2 -2H2V2H-2Z",
}
"""A mark about its middle. Towards the device points down, from it up."""
FILLED = frozenset({Kind.WRITE, Kind.TO_MEMORY, Kind.INTERRUPT, Kind.FAULT, Kind.VIOLATION})


def timeline(history: History, violation: Violation | None = None) -> tuple[Markup, Sequence]:
    """The diagram of a run, and what of it is shown. The picture may be wider than a page."""
    shown = sequence(history, violation)
    return _Diagram(shown, lay_out(shown.points)).draw(), shown


class _Diagram:
    def __init__(self, shown: Sequence, layout: Layout) -> None:
        self._shown = shown
        self._layout = layout
        self._events = [
            (point.event, x)
            for point, x in zip(shown.points, layout.places, strict=True)
            if point.event
        ]
        moments = [point.begins for point in shown.points if point.begins]
        lanes = dict.fromkeys(lane_of(m) for m in sorted(moments, key=lambda m: _rank(m)))
        devices = dict.fromkeys(event.device for event, _ in self._events if event.device)
        self._tops: dict[str, float] = {}
        y = AXIS
        for lane in lanes:
            self._tops[lane] = y
            y += ACTOR
        for device in devices:
            self._tops[f"device {device}"] = y
            labels = [len(_label(e)) for e, _ in self._events if e.device == device]
            y += DEVICE + LABEL_CHARACTER * max(labels)
        self._bottom = y

    def draw(self) -> Markup:
        width = self._layout.width
        height = self._bottom + 4
        names = [
            element("text", _name(lane), x=NAMES - 12, y=top + 21, text_anchor="end", class_="lane")
            for lane, top in self._tops.items()
        ]
        inside = [*self._ticks(), *self._bars(), *self._marks(), *self._breaks()]
        # Two pictures: the names of the lanes stay where they are when the other one is scrolled.
        return picture(
            NAMES, height, "Lanes", *self._rules(NAMES), *names, class_="timeline lanes"
        ) + picture(
            width,
            height,
            "Operations and what the devices did, along virtual time",
            *self._rules(width),
            *inside,
            class_="timeline",
        )

    def _rules(self, width: float) -> list[Markup]:
        tops = [*self._tops.values(), self._bottom]
        return [path(f"M0 {top:.1f}H{width:.1f}", class_="rule") for top in tops]

    def _ticks(self) -> Iterator[Markup]:
        """Instants: a hairline each, and a label where there is room for one."""
        first = self._layout.ticks[0].at if self._layout.ticks else 0
        taken = [(gap.x - BREAK_ROOM, gap.x + BREAK_ROOM) for gap in self._layout.breaks]
        last = ""
        for tick in self._layout.ticks:
            yield path(f"M{tick.x:.1f} {AXIS}V{self._bottom:.1f}", class_="instant")
            label = span(tick.at - first) if tick.at > first else f"{tick.at / 1e9:.6f} s +"
            end = tick.x + CHARACTER * len(label)
            inside = end < self._layout.width
            if (
                label == last
                or not inside
                or any(tick.x < right + 10 and left < end + 10 for left, right in taken)
            ):
                continue
            taken.append((tick.x, end))
            last = label
            text = element("text", label, title(exact(tick.at)), x=tick.x, y=18, class_="tick")
            yield group(path(f"M{tick.x:.1f} 23V{AXIS}", class_="stem"), text)

    def _bars(self) -> Iterator[Markup]:
        begun: dict[int, float] = {}
        for point, x in zip(self._shown.points, self._layout.places, strict=True):
            if point.begins:
                begun[point.begins.index] = x
            elif point.ends and point.ends.index in begun:
                yield self._bar(point.ends, begun[point.ends.index], x)

    def _bar(self, moment: Moment, begin: float, end: float) -> Markup:
        y = self._tops[lane_of(moment)] + (ACTOR - BAR) / 2
        width = max(end - begin, 4.0)
        label = told(moment)
        left, right = clear_part(begin, begin + width, self._layout.breaks, room_for(label))
        room = int((right - left - 10) / CHARACTER)
        hover = f"{moment.story()}\n{exact(moment.began)} to {exact(moment.ended)}"
        return group(
            title(hover),
            element("rect", x=begin, y=y, width=width, height=BAR, rx=4),
            element("text", cut(label, room), x=left + 7, y=y + 15),
            class_=f"bar {tone(moment)}",
        )

    def _marks(self) -> Iterator[Markup]:
        for event, x in self._events:
            top = self._tops.get(f"device {event.device}", AXIS - MARK)
            if event.kind in (Kind.FAULT, Kind.VIOLATION):
                end = top + MARK if event.device else self._bottom
                yield path(f"M{x:.1f} {AXIS}V{end:.1f}", class_=f"across {event.kind}")
            yield self._mark(event, x, top + MARK)

    def _mark(self, event: Event, x: float, y: float) -> Markup:
        shape = path(SHAPES[event.kind], class_="filled" if event.kind in FILLED else "hollow")
        # What belongs to no device is on the axis, above the actors' bars.
        text = _label(event) if event.device else ""
        label = element("text", text, transform="translate(-3 12) rotate(90)")
        return group(
            title(_hover(event)),
            shape,
            label,
            transform=f"translate({x:.1f} {y:.1f})",
            class_=f"mark {event.kind}",
        )

    def _breaks(self) -> Iterator[Markup]:
        """A torn strip over all lanes, with the time that it stands for."""
        for gap in self._layout.breaks:
            left, right = gap.x - ZIGZAG, gap.x + ZIGZAG
            down = _torn(left, AXIS, self._bottom)
            up = _torn(right, AXIS, self._bottom)
            yield group(
                title(f"{gap.nanoseconds / 1e9:.9f} s in which nothing happened"),
                path(f"M{down}L{'L'.join(reversed(up.split('L')))}Z", class_="gap"),
                path(f"M{down}M{up}", class_="torn"),
                element("text", span(gap.nanoseconds), x=gap.x, y=18, text_anchor="middle"),
                class_="break",
            )


def _torn(x: float, top: float, bottom: float) -> str:
    """The corners of a zigzag from top to bottom."""
    count = max(2, int((bottom - top) / 7))
    return "L".join(
        f"{x + (2.5 if n % 2 else -2.5):.1f} {top + (bottom - top) * n / count:.1f}"
        for n in range(count + 1)
    )


def _label(event: Event) -> str:
    times = f" \N{MULTIPLICATION SIGN}{count(event.times)}" if event.times > 1 else ""
    return cut(event.label, LABEL_MOST - len(times)) + times


def _hover(event: Event) -> str:
    if event.times == 1:
        return f"{event.words}\n{exact(event.at)}"
    alike = f"{event.words}, and {count(event.times - 1)} more like it"
    return f"{alike}\n{exact(event.at)} to {exact(event.end)}"


def _rank(moment: Moment) -> tuple[bool, int]:
    return (moment.phase == "plan", moment.actor)


def _name(lane: str) -> str:
    return cut(lane.removeprefix("device "), 12)


def tone(moment: Moment) -> str:
    """The class of an operation's colour."""
    if moment.outcome in BAD:
        return "bad"
    return "refused" if moment.outcome is Outcome.ERROR else "fine"


def exact(at: int) -> str:
    """A time as traces give it."""
    return f"{at / 1e9:.9f} s"
