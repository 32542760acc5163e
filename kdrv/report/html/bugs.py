"""What a page says of each bug."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby

from markupsafe import Markup

from kdrv.explore import plan as plans
from kdrv.explore.bugbase import name_of
from kdrv.explore.campaign import CampaignResult
from kdrv.explore.history import History
from kdrv.explore.hunt import Found
from kdrv.report.html.events import lane_of
from kdrv.report.html.text import count, plural, span
from kdrv.report.html.timeline import timeline, tone
from kdrv.sim.faults import ANY, FACTS, FaultKind, Rule

MOST_BUGS = 40
MOST_TOLD = 40
MOST_CONSOLE = 200
MOST_REPORT = 60
MOST_PLAN = 20_000


@dataclass(frozen=True)
class Told:
    """A line of a story; ``tone`` is the class of its colour."""

    at: str
    who: str
    text: str
    tone: str


@dataclass(frozen=True)
class BugView:
    """A bug, ready for the template. Notes say what was left out."""

    name: str
    anchor: str
    property: str
    words: str
    facts: tuple[tuple[str, str], ...]
    replay: str
    steps: tuple[str, ...]
    faults: tuple[str, ...]
    plan: str
    story: tuple[Told, ...]
    story_note: str
    diagram: Markup
    diagram_note: str
    report: str
    console: str
    console_note: str
    met: int
    size: int


def bug_views(result: CampaignResult, commands: Mapping[str, str]) -> list[BugView]:
    """The first bugs of a campaign; ``commands`` replay them, by fingerprint."""
    return [
        _view(number, found, result, commands)
        for number, found in enumerate(result.bugs[:MOST_BUGS])
    ]


def _view(place: int, found: Found, result: CampaignResult, commands: Mapping[str, str]) -> BugView:
    violation, history, plan = found.violation, found.history, found.plan
    diagram, shown = timeline(history, violation)
    story = list(_story(history))
    console = history.console
    met = result.met.get(violation.fingerprint, 1)
    kernel = "checked" if plan.checked else "plain"
    left_out = [
        f"{plural(number, 'event')} {where}"
        for number, where in ((shown.before, "before"), (shown.after, "after"))
        if number
    ]
    text = plans.dump(plan)
    return BugView(
        name=name_of(violation),
        anchor=f"b{place}",
        property=violation.name,
        words=violation.words,
        facts=(
            ("met", plural(met, "time")),
            ("first", f"after {plural(found.runs, 'run')} of its batch"),
            ("shrunk", f"from {plural(found.shrunk_from, 'step')} to {len(plan.steps)}"),
            ("kernel", kernel),
            ("seed", str(plan.seed)),
            ("history", history.hash[:16]),
        ),
        replay=commands.get(violation.fingerprint, ""),
        steps=tuple(step.words() for step in plan.steps),
        faults=tuple(_rule(rule) for rule in plan.faults.rules),
        plan=text
        if len(text) <= MOST_PLAN
        else text[:MOST_PLAN] + "\n... (plan.toml has all of it)",
        story=tuple(story[-MOST_TOLD:]),
        story_note=_earlier(len(story) - MOST_TOLD, "event"),
        diagram=diagram,
        diagram_note=f"Left out: {' and '.join(left_out)}; trace.txt has all." if left_out else "",
        report="\n".join(_report(found)),
        console="\n".join(f"{line.at / 1e9:.6f}  {line.text}" for line in console[-MOST_CONSOLE:]),
        console_note=_earlier(len(console) - MOST_CONSOLE, "line"),
        met=met,
        size=len(plan.steps),
    )


def _earlier(number: int, what: str) -> str:
    return f"{plural(number, f'earlier {what}')} left out" if number > 0 else ""


def _report(found: Found) -> list[str]:
    """What the kernel said, or else what the property adds to its words."""
    reports = found.history.reports
    lines = list(reports[0].lines) if reports else list(found.violation.detail)
    more = len(lines) - MOST_REPORT
    return [*lines[:MOST_REPORT], *([f"... and {plural(more, 'more line')}"] if more > 0 else [])]


def _story(history: History) -> Iterator[Told]:
    """Operations and faults in the order they began."""
    events = [
        (m.began, Told(f"{m.began / 1e9:.6f}", lane_of(m), m.story(), tone(m)))
        for m in history.moments
    ]
    for fault in history.fired:
        where = f", {fault.register}" if fault.register else ""
        text = f"{fault.kind}{where}: {happens(fault.kind)}"
        events.append((fault.at, Told(f"{fault.at / 1e9:.6f}", fault.device, text, "fault")))
    events.sort(key=lambda each: each[0])
    for _, alike in groupby(events, key=_same):
        (_, first), *more = alike
        times = f"  \N{MULTIPLICATION SIGN}{count(len(more) + 1)}" if more else ""
        yield replace(first, text=first.text + times)
    if history.ended:
        yield Told(f"{history.lasted / 1e9:.6f}", "end", history.ended, "bad")


def _same(event: tuple[int, Told]) -> tuple[str, str, str]:
    """What faults that repeat have in common; operations are each their own."""
    at, told = event
    return (told.who, told.text, "" if told.tone == "fault" else str(at))


def happens(kind: FaultKind) -> str:
    """What a fault is, in words, with the time that it lasts if nothing else is said."""
    return FACTS[kind].words.replace("`lasts`", span(FACTS[kind].lasts))


def _rule(rule: Rule) -> str:
    """A rule of a fault plan in words."""
    facts = FACTS[rule.kind]
    if rule.numbers:
        numbers = ", ".join(str(number) for number in rule.numbers[:8])
        more = f" and {len(rule.numbers) - 8} more" if len(rule.numbers) > 8 else ""
        when = f"at {facts.opportunity} no. {numbers}{more}"
    else:
        when = f"at each {facts.opportunity} with probability {rule.rate:g}"
    where = f" of {rule.device}" if rule.device != ANY else ""
    register = f", register {rule.register}" if rule.register != ANY else ""
    return f"{rule.kind}: {when}{where}{register}"
