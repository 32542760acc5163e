"""The parts of a campaign's pictures: order, places, scales."""

from __future__ import annotations

import re

import pytest

from kdrv.explore.history import Moment, Outcome, Violation
from kdrv.report.html.charts import MOST_POINTS, nice, steps
from kdrv.report.html.events import Kind, lane_of, sequence
from kdrv.report.html.layout import LONG, MOST_BREAKS, TORN, clear_part, lay_out
from kdrv.report.html.text import clean, cut, percent, span
from kdrv.report.html.timeline import timeline
from kdrv.sim.trace import Access, ConfigAccess, Record
from tests.fast.test_html import history

THIN = "\N{NARROW NO-BREAK SPACE}"


def read(at: int) -> Access:
    return Access(at, "edu", False, 0, 4, 4, at, "status")


def moment(index: int, began: int, ended: int, actor: int = 0) -> Moment:
    return Moment(index, f"op{index}", {}, actor, began, ended, Outcome.OK)


def order(trace: tuple[Record, ...], *moments: Moment) -> list[str]:
    found = []
    for point in sequence(history(trace, moments), None).points:
        if point.begins:
            found.append(f"+{point.begins.index}")
        elif point.ends:
            found.append(f"-{point.ends.index}")
        elif point.event and point.event.kind is not Kind.FAULT:
            found.append(str(point.at))
    return found


def test_events_lie_within_the_operation_of_their_time() -> None:
    assert order((read(10), read(20)), moment(0, 10, 20)) == ["+0", "10", "20", "-0"]


def test_an_actor_ends_before_it_begins_again() -> None:
    found = order((read(20),), moment(0, 10, 20), moment(1, 20, 30))
    assert found == ["+0", "20", "-0", "+1", "-1"]


def test_another_actor_may_overlap() -> None:
    found = order((), moment(0, 10, 20), moment(1, 20, 30, actor=1))
    assert found == ["+0", "+1", "-0", "-1"]


def test_an_operation_that_takes_no_time_begins_before_it_ends() -> None:
    found = order((), moment(0, 10, 10), moment(1, 10, 10), moment(2, 10, 30))
    assert found == ["+0", "-0", "+1", "-1", "+2", "-2"]


def test_enumeration_is_left_out_and_later_config_accesses_are_one() -> None:
    config = [ConfigAccess(at, "edu", False, 0, 4, 0) for at in (1, 2, 30, 31, 32, 50)]
    trace = (*config[:5], read(40), config[5])
    events = [p.event for p in sequence(history(trace, (moment(0, 10, 60),)), None).points]
    assert [(e.at, e.times) for e in events if e and e.kind is Kind.CONFIG] == [(30, 3), (50, 1)]


def poll(at: int) -> Access:
    return Access(at, "edu", False, 0, 4, 4, 0x80, "status")


def test_polls_are_one_event_up_to_where_an_operation_ends() -> None:
    trace = tuple(poll(at) for at in range(20, 50, 5))
    shown = sequence(history(trace, (moment(0, 10, 33), moment(1, 11, 60, 1))), None)
    events = [p.event for p in shown.points if p.event and p.event.kind is Kind.READ]
    assert [(e.at, e.end, e.times) for e in events] == [(20, 30, 3), (35, 45, 3)]
    picture, _ = timeline(history(trace, (moment(0, 10, 33),)))
    assert ">status = 0x80 \N{MULTIPLICATION SIGN}3</text>" in picture


def test_writes_are_each_their_own() -> None:
    trace = tuple(Access(at, "edu", True, 0, 4, 4, 1, "ack") for at in (20, 21))
    shown = sequence(history(trace, (moment(0, 10, 33),)), None)
    assert sum(bool(p.event and p.event.kind is Kind.WRITE) for p in shown.points) == 2


def test_the_time_of_polls_breaks_nothing() -> None:
    trace = (poll(300), poll(300 + 10 * LONG), read(400 + 10 * LONG))
    shown = sequence(history(trace, (moment(0, 50, 500 + 10 * LONG),)), None)
    assert lay_out(shown.points).breaks == ()


def test_only_the_longest_gaps_break_the_axis() -> None:
    even = tuple(read(at * LONG * 2) for at in range(1, 100))
    trace = (*even, read(10**12), read(2 * 10**12))
    breaks = lay_out(sequence(history(trace, ()), None).points).breaks
    assert [gap.nanoseconds for gap in breaks] == [10**12 - 99 * 2 * LONG, 10**12]
    many = tuple(read(LONG * 2 * 2**at) for at in range(40))
    assert len(lay_out(sequence(history(many, ()), None).points).breaks) == MOST_BREAKS


def test_a_long_run_shows_its_end() -> None:
    trace = tuple(read(at) for at in range(1000, 2000))
    shown = sequence(history(trace, (moment(0, 10, 20), moment(1, 30, 5000))), None, most=50)
    events = [point.event.at for point in shown.points if point.event]
    assert events == list(range(1950, 2000))
    assert [p.begins.index for p in shown.points if p.begins] == [1]
    # The fault of the history is before it all.
    assert (shown.before, shown.after) == (951, 0)


def test_a_long_run_shows_what_went_wrong() -> None:
    trace = tuple(read(at) for at in range(1000, 2000))
    violation = Violation("quiet-when-gone", "words", "place", at=1300)
    shown = sequence(history(trace, ()), violation, most=40)
    events = [point.event for point in shown.points if point.event]
    assert len(events) == 40
    assert Kind.VIOLATION in {event.kind for event in events}
    assert events[0].at < 1300 < events[-1].at
    assert shown.before + shown.after + 40 == 1002


def test_places_grow_and_long_gaps_are_broken() -> None:
    trace = (read(100), read(100), read(400), read(400 + LONG), read(10**12))
    shown = sequence(history(trace, (moment(0, 100, 10**12),)), None)
    layout = lay_out(shown.points)
    assert list(layout.places) == sorted(layout.places)
    assert len(set(layout.places)) == len(layout.places)
    assert [gap.nanoseconds for gap in layout.breaks] == [LONG, 10**12 - 400 - LONG]
    for gap in layout.breaks:
        assert all(abs(place - gap.x) > TORN for place in layout.places)
    assert max(layout.places) < layout.width


def test_a_bar_has_room_for_its_label_beside_a_break() -> None:
    picture, _ = timeline(history((), (moment(0, 100, 10**12),)))
    assert ">op0()  ok</text>" in picture


def test_a_label_is_in_the_first_part_that_holds_it() -> None:
    (gap,) = lay_out(sequence(history((), (moment(0, 100, 10**12),)), None).points).breaks
    assert clear_part(0, 10_000, [gap], 1_000) == (gap.x + TORN, 10_000)
    assert clear_part(0, 10_000, [gap], gap.x - TORN) == (0, gap.x - TORN)
    assert clear_part(0, 10_000, [gap], 20_000) == (gap.x + TORN, 10_000)
    assert clear_part(gap.x + 20, gap.x + 90, [gap], 10) == (gap.x + 20, gap.x + 90)


def test_a_run_of_which_nothing_is_known_has_a_picture() -> None:
    empty = history((), ())
    picture, shown = timeline(empty)
    assert picture.startswith("<svg")
    assert [point.at for point in shown.points] == [200]


def test_lanes_are_of_actors_and_of_the_run() -> None:
    load = Moment(0, "load", {}, 0, 1, 2, Outcome.OK, "load")
    assert [lane_of(load), lane_of(moment(1, 3, 4, actor=2))] == ["run", "actor 2"]


def test_a_chart_ends_at_the_last_value_however_many_there_are() -> None:
    for count in (0, 1, 2, MOST_POINTS, MOST_POINTS + 1, 5 * MOST_POINTS + 3):
        points = [(float(at), at + 1) for at in range(count)]
        picture = steps("runs", points, float(count), "runs")
        line = re.search(r'<path d="([^"]*)" class="line"', picture)
        assert line
        assert line[1].count("V") <= MOST_POINTS
        value = f"{count:,}".replace(",", THIN)
        assert f'class="value">{value}</text>' in picture


@pytest.mark.parametrize(
    ("value", "top"), [(0, 1), (1, 1), (2, 2), (3, 4), (5, 10), (41, 100), (645, 1000)]
)
def test_scales_end_at_round_numbers(value: int, top: int) -> None:
    assert nice(value) == top


@pytest.mark.parametrize(
    ("share", "shown"), [(0, "0"), (0.001, "1"), (0.5, "50"), (0.999, "99"), (1, "100")]
)
def test_only_all_is_a_hundred_per_cent(share: float, shown: str) -> None:
    assert percent(share) == f"{shown}{THIN}%"


@pytest.mark.parametrize(
    ("nanoseconds", "shown"),
    [(0, "0 ns"), (999, "999 ns"), (1_500, "1.5 µs"), (999_900, "1 ms"), (30_000_000_000, "30 s")],
)
def test_spans_have_fitting_units(nanoseconds: int, shown: str) -> None:
    assert span(nanoseconds) == shown.replace(" ", THIN)


def test_text_keeps_tabs_and_new_lines_alone() -> None:
    assert clean("a\tb\nc\x1b\r\u202e") == "a\tb\nc" + 3 * "\N{REPLACEMENT CHARACTER}"
    assert (cut("abcdef", 4), cut("abc", 4), cut("abc", 1)) == ("abc…", "abc", "")
