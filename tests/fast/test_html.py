"""The page of a campaign: whatever a driver says, it is one well-formed page, and only that."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from kdrv.explore.campaign import CampaignResult, Sample
from kdrv.explore.history import History, Line, Moment, Outcome, Violation
from kdrv.explore.hunt import Found
from kdrv.explore.lines import FunctionLines, LineCoverage
from kdrv.explore.lines import Line as SourceLine
from kdrv.explore.plan import Plan, Step
from kdrv.explore.subject import Identity
from kdrv.report.html import campaign_page
from kdrv.report.html.bugs import MOST_BUGS, MOST_CONSOLE, MOST_TOLD
from kdrv.report.html.source import MOST_LINES
from kdrv.sim.faults import FaultKind, FaultPlan, Fired, Rule
from kdrv.sim.trace import Access, DmaAccess, Interrupt, Note, Record

EVIL = "<script>alert('x')</script>\x1b[31m\u202e&\"'\x00"
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Checks that tags are balanced, and keeps what a reader would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub("[ \n\t]+", " ", " ".join(self.words))

    def count(self, tag: str, class_: str) -> int:
        return sum(
            name == tag and class_ in (attributes.get("class") or "").split()
            for name, attributes in self.tags
        )


IDENTITY = Identity("d1", "edu_demo", "7.3.4", "c1")
EMPTY = CampaignResult(IDENTITY, (), 2, 0, 0, 0.0, 0.0, frozenset(), {}, (), (), {}, ())
TRACE: tuple[Record, ...] = (
    Access(100, "edu", True, 0, 8, 4, 5, "factorial"),
    DmaAccess(150, "edu", True, 0x1000, b"abc"),
    Note(200, "edu", "fault irq_lost", (("vector", 0),)),
    Interrupt(5_000_000_000, "edu", 0),
)
MOMENTS = (
    Moment(0, "load", {}, 0, 50, 60, Outcome.OK, "load"),
    Moment(1, "factorial", {"operand": 5}, 1, 90, 6_000_000_000, Outcome.HUNG, words="stuck"),
    Moment(2, "read", {"length": 3}, 0, 95, 180, Outcome.ERROR, errno="EIO"),
)


def history(
    trace: tuple[Record, ...] = TRACE, moments: tuple[Moment, ...] = MOMENTS, says: str = "booted"
) -> History:
    return History(
        moments=moments,
        trace=trace,
        console=(Line(10, says),),
        reports=(),
        fired=(Fired(200, "edu", FaultKind.IRQ_LOST, "", 0, 0),),
        silent=(),
        left=(),
        stray=(),
        hash="ab" * 32,
        lasted=6_000_000_000,
        loaded=True,
    )


def bug(number: int = 0, shown: History | None = None) -> Found:
    violation = Violation("returns", "factorial hangs for ever", f"place {number}", ("frame",))
    faults = FaultPlan(3, (Rule(FaultKind.IRQ_LOST, numbers=(0,), device="edu"),))
    plan = Plan((Step("factorial", {"operand": 5}, actor=1),), faults)
    return Found(violation, plan, shown or history(), 7, 19, 1.5)


def result(*bugs: Found) -> CampaignResult:
    return replace(
        EMPTY,
        operations=("factorial", "read"),
        runs=1200,
        seconds=60.0,
        virtual_seconds=3600.0,
        fired={FaultKind.IRQ_LOST: 9, FaultKind.REG_STUCK: 3},
        never=(FaultKind.DMA_LATE,),
        bugs=bugs,
        met={one.violation.fingerprint: 4 for one in bugs},
        samples=(Sample(1.0, 20, 30, 0), Sample(59.0, 1200, 44, len(bugs))),
    )


COVERAGE = LineCoverage(
    {"a.c": {2: SourceLine(3, 1), 4: SourceLine(1, 0)}},
    {"a.c": {3: True}},
    (
        FunctionLines(
            "probe", "a.c", 1, frozenset({("a.c", 2), ("a.c", 4)}), frozenset({("a.c", 2)})
        ),
    ),
)


def test_a_campaign_that_did_nothing() -> None:
    page = Page(campaign_page(EMPTY, None, {}, "edu-demo"))
    assert "no bug found" in page.text
    assert "No fault fired." in page.text
    assert "Coverage was not measured." in page.text


def test_what_there_is_is_said() -> None:
    found = bug()
    commands = {found.violation.fingerprint: "kdrv replay bugs/one"}
    source = {"a.c": "int probe(void)\n\tone();\n\ttwo();\n\tthree();\n}\n"}
    page = Page(campaign_page(result(found), COVERAGE, source, "edu-demo", commands=commands))
    for words in (
        "1 bug",
        "1\N{NARROW NO-BREAK SPACE}200",
        "20.0",
        "60 times real time",
        "50\N{NARROW NO-BREAK SPACE}%",
        "factorial hangs for ever",
        "kdrv replay bugs/one",
        "from 19 steps to 1",
        "irq_lost: at interrupt no. 0 of edu",
        "dma_late",
        "what the device writes reaches memory later by 200\N{NARROW NO-BREAK SPACE}µs",
        "factorial(operand=5)",
        "1/3",
        "0/1",
        "frame",
    ):
        assert words in page.text, words


def test_lines_have_the_colours_of_their_coverage() -> None:
    source = {"a.c": "int probe(void)\n\tone();\n\ttwo();\n\tthree();\n/* done\n */\n"}
    page = Page(campaign_page(EMPTY, COVERAGE, source, "x"))
    rows = {a["id"]: a.get("class") for tag, a in page.tags if tag == "tr" and "id" in a}
    assert rows == {
        "s0-1": None,
        "s0-2": "hit",
        "s0-3": "near-hit",
        "s0-4": "missed",
        "s0-5": None,
        "s0-6": None,
    }
    assert page.count("td", "remark") == 2


def test_a_diagram_has_the_operations_and_the_events() -> None:
    text = campaign_page(result(bug()), None, {}, "x")
    page = Page(text)
    assert page.count("g", "bar") == 3
    assert [page.count("g", tone) for tone in ("fine", "bad", "refused")] == [1, 1, 1]
    for kind in ("write", "to-memory", "fault", "interrupt"):
        assert sum(a.get("class") == f"mark {kind}" for _, a in page.tags) == 1
    assert page.count("g", "break") == 2
    assert "5\N{NARROW NO-BREAK SPACE}s" in page.text


def everywhere(evil: str) -> tuple[CampaignResult, LineCoverage, dict[str, str], str]:
    """Data with the same text in every field that holds text."""
    trace: tuple[Record, ...] = (
        Access(100, evil, True, 0, 8, 4, 5, evil),
        Note(150, evil, evil, ((evil, evil),)),
        Note(151, evil, f"fault {evil}", ()),
    )
    moments = (Moment(0, evil, {evil: evil}, 0, 90, 300, Outcome.WRONG, evil, evil, evil, evil),)
    shown = replace(
        history(trace, moments, evil),
        fired=(Fired(200, evil, FaultKind.IRQ_LOST, evil, 0, 0),),
        ended=evil,
        left=(evil,),
        hash=evil,
    )
    violation = Violation(evil, evil, evil, (evil,), at=120)
    rules = (Rule(FaultKind.REG_STUCK, 0.5, device=evil, register=evil),)
    plan = Plan((Step(evil, {evil: evil}),), FaultPlan(1, rules))
    found = Found(violation, plan, shown, 1, 1, 0.5)
    campaign = replace(result(found), identity=Identity(evil, evil, evil, evil), operations=(evil,))
    coverage = LineCoverage(
        {evil: {1: SourceLine(1, 1)}},
        {evil: {}},
        (FunctionLines(evil, evil, 1, frozenset({(evil, 1)}), frozenset()),),
    )
    return campaign, coverage, {evil: evil}, evil


def test_no_text_becomes_markup() -> None:
    campaign, coverage, sources, title = everywhere(EVIL)
    commands = {campaign.bugs[0].violation.fingerprint: EVIL}
    page = Page(campaign_page(campaign, coverage, sources, title, commands=commands))
    assert all(tag != "script" for tag, _ in page.tags)
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.text.count("<script>alert('x')</script>") > 20


def test_no_control_character_is_left() -> None:
    campaign, coverage, sources, title = everywhere(EVIL)
    sources["b.c"] = "\ud800"
    text = campaign_page(campaign, coverage, sources, title + "\ud800")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", text)
    text.encode()


def test_the_page_asks_the_network_for_nothing() -> None:
    text = campaign_page(result(bug()), COVERAGE, {"a.c": "x"}, "edu-demo")
    page = Page(text)
    for _, attributes in page.tags:
        assert not {"src", "srcset", "action"} & set(attributes)
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_every_link_has_its_target() -> None:
    text = campaign_page(result(bug(), bug(1)), COVERAGE, {"a.c": "x\n"}, "x")
    page = Page(text)
    targets = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = {attributes["href"] for tag, attributes in page.tags if tag == "a"}
    assert {str(link)[1:] for link in links} <= targets
    assert len(targets) == sum("id" in attributes for _, attributes in page.tags)


def test_hundreds_of_bugs_are_cut_with_a_note() -> None:
    bugs = [bug(number) for number in range(300)]
    page = Page(campaign_page(result(*bugs), None, {}, "x"))
    assert page.count("article", "bug") == MOST_BUGS
    assert f"{300 - MOST_BUGS} more bugs left out" in page.text
    assert "300 bugs" in page.text


def test_long_runs_are_cut_with_a_note() -> None:
    trace = tuple(Access(n * 100, "edu", False, 0, 4, 4, n, "status") for n in range(20_000))
    moments = tuple(
        Moment(n, "read", {}, 0, n * 100, n * 100 + 50, Outcome.OK) for n in range(5_000)
    )
    console = tuple(Line(n, f"line {n}") for n in range(3_000))
    shown = replace(history(trace, moments), console=console)
    text = campaign_page(result(bug(0, shown)), None, {}, "x")
    page = Page(text)
    assert "earlier events left out" in page.text
    assert "events before; trace.txt has all" in page.text
    assert page.text.count("line ") - page.text.count("earlier line") <= MOST_CONSOLE + 1
    assert page.count("td", "who") == MOST_TOLD
    assert len(text) < 400_000


def test_long_sources_are_cut_with_a_note() -> None:
    source = "x;\n" * (MOST_LINES + 7)
    page = Page(campaign_page(EMPTY, COVERAGE, {"a.c": source}, "x"))
    assert "7 more lines left out" in page.text


@pytest.mark.parametrize("interrupted", [False, True])
def test_an_interrupted_campaign_says_so(interrupted: bool) -> None:
    page = Page(campaign_page(replace(EMPTY, interrupted=interrupted), None, {}, "x"))
    assert ("interrupted" in page.text) is interrupted
