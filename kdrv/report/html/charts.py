"""Charts of a campaign: quantities that grow in steps, over time."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from kdrv.core.show import duration
from kdrv.report.html.svg import element, group, path, picture
from kdrv.report.html.text import count

WIDTH, HEIGHT = 340, 168
LEFT, RIGHT, TOP, BOTTOM = 1, 54, 34, 26
MOST_POINTS = 400


def steps(name: str, points: Sequence[tuple[float, int]], seconds: float, kind: str) -> Markup:
    """A step line from 0 through ``points`` (time in seconds, value) to the end at ``seconds``.

    ``kind`` is a class that gives the colour.
    """
    stride = -(-len(points) // MOST_POINTS) or 1
    # The last of each group: a step may come late, but never before it happened.
    thinned = [*points[::-stride]][::-1]
    length = max(seconds, *(at for at, _ in thinned), 1e-9) if thinned else max(seconds, 1e-9)
    top = nice(max((value for _, value in thinned), default=0))
    inner, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(at: float) -> float:
        return LEFT + inner * at / length

    def y(value: float) -> float:
        return TOP + tall * (1 - value / top)

    line = f"M{x(0):.1f} {y(0):.1f}"
    last = 0
    for at, value in thinned:
        line += f"H{x(at):.1f}V{y(value):.1f}"
        last = value
    line += f"H{x(length):.1f}"
    grid = [
        path(f"M{LEFT} {y(value):.1f}H{LEFT + inner}", class_="grid") for value in (top / 2, top)
    ]
    scale = [
        element("text", count(int(value)), x=LEFT, y=y(value) - 4, class_="scale")
        for value in ({top / 2, top} if top > 1 else {top})
        if value == int(value)
    ]
    return picture(
        WIDTH,
        HEIGHT,
        f"{name}: {count(last)} after {duration(seconds)}",
        element("text", name, x=LEFT, y=14, class_="name"),
        *grid,
        *scale,
        path(f"M{LEFT} {y(0):.1f}H{LEFT + inner}", class_="base"),
        group(
            path(f"{line}V{y(0):.1f}Z", class_="area"),
            path(line, class_="line"),
            element("circle", cx=x(length), cy=y(last), r=3, class_="dot"),
            class_=kind,
        ),
        element("text", count(last), x=LEFT + inner + 8, y=y(last) + 4, class_="value"),
        element("text", "0", x=LEFT, y=HEIGHT - 8, class_="scale"),
        element(
            "text",
            duration(seconds),
            x=LEFT + inner,
            y=HEIGHT - 8,
            class_="scale",
            text_anchor="end",
        ),
        class_="chart",
    )


def nice(value: int) -> int:
    """The next of 1, 2, 4, 10, 20, 40, ... that is not less: its half is whole, too, from 2 on."""
    scale = 1
    while True:
        for step in (1, 2, 4):
            if value <= step * scale:
                return step * scale
        scale *= 10
