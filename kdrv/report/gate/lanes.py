"""A lane's way through a series: a line of patches, red where it did not build."""

from __future__ import annotations

from markupsafe import Markup

from kdrv.gate.result import GateResult, Outcome, PatchResult
from kdrv.report.html import svg

STEP = 34.0
RADIUS = 7.0
MIDDLE = 14.0
HEIGHT = 40.0
_TONES = {
    Outcome.PASS: "fine",
    Outcome.WARN: "fine",
    Outcome.SKIP: "fine",
    Outcome.FAIL: "bad",
    Outcome.UNKNOWN: "open",
}
_WORDS = {"fine": "builds", "bad": "does not build", "open": "not judged"}


def lane_pictures(result: GateResult) -> list[tuple[str, Markup]]:
    """Each lane's name and picture: those that were built, and those that broke."""
    names = dict.fromkeys(
        check.name.removeprefix("build ")
        for patch in result.patches
        for check in patch.checks
        if check.name.startswith("build ")
    )
    names |= dict.fromkeys(broken.lane for broken in result.breaks)
    return [(name, _picture(result, name)) for name in names]


def _picture(result: GateResult, lane: str) -> Markup:
    tones = [_tone(result, lane, patch) for patch in result.patches]
    ways, stops = [], []
    for place, (before, tone) in enumerate(zip(["fine", *tones], tones, strict=False)):
        x, number = STEP * (place + 0.5), result.patches[place].patch.number
        start = max(0.0, x - STEP)
        ways.append(
            svg.element("line", x1=start, x2=x, y1=MIDDLE, y2=MIDDLE, class_=f"way {before}")
        )
        stops.append(
            svg.group(
                svg.title(f"patch {number}: {_WORDS[tone]}"),
                svg.element("circle", cx=x, cy=MIDDLE, r=RADIUS),
                svg.element("text", str(number), x=x, y=HEIGHT - 4),
                class_=f"stop {tone}",
            )
        )
    label = f"lane {lane}, patch by patch"
    width = STEP * max(1, len(tones))
    return svg.picture(width, HEIGHT, label, *ways, *stops, class_="lane-way")


def _tone(result: GateResult, lane: str, patch: PatchResult) -> str:
    """How the lane is after a patch; from a break on it is broken, until it is mended."""
    number = patch.patch.number
    for broken in result.breaks:
        over = broken.mended is not None and number >= broken.mended
        if broken.lane == lane and number >= broken.patch and not over:
            return "bad"
    found = (check for check in patch.checks if check.name == f"build {lane}")
    return next((_TONES[check.outcome] for check in found), "open")
