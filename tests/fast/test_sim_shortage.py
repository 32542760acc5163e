"""Memory that runs out: drawn by the schedule, suffered by calls, taken back where it was not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kdrv.machine.reports import Kind, Report
from kdrv.sim.excuses import excused
from kdrv.sim.faults import FaultKind, FaultPlan, Fired, Rule, Schedule
from kdrv.sim.shortage import COUNTING, PROBE_MOST, Scarcity
from kdrv.sim.trace import Trace

from .test_sim_allocfail import ARMED, DISARMED, Plain

HIT, MISSED = b"0\n", b"4\n"


def machine(*rules):
    return SimpleNamespace(schedule=Schedule(FaultPlan(1, rules)), trace=Trace(), now=5)


def session(left):
    return SimpleNamespace(begin=Plain([*ARMED, 7, *DISARMED], left))


@pytest.mark.parametrize(("left", "happened"), [(HIT, True), (MISSED, False)])
def test_what_did_not_happen_did_not_fire(left, happened):
    where, who = machine(Rule(FaultKind.PROBE_FAIL_NTH, 1.0, most=1)), session(left)
    undisturbed = who.begin
    shortage = Scarcity(where).draw(FaultKind.PROBE_FAIL_NTH)
    assert 1 <= shortage.nth <= PROBE_MOST
    with shortage.on(who):
        assert who.begin.dup(9).result() == 7
    assert who.begin is undisturbed
    assert shortage.happened is happened
    assert [fault.kind for fault in where.schedule.fired] == ["probe_fail_nth"] * happened
    # One that was taken back does not count against the most there may be.
    assert bool(Scarcity(where).draw(FaultKind.PROBE_FAIL_NTH)) is not happened


def test_a_call_that_never_came_back_suffered():
    where, who = machine(Rule(FaultKind.ALLOC_FAIL_NTH, 1.0)), session(MISSED)
    shortage = Scarcity(where).draw(FaultKind.ALLOC_FAIL_NTH)
    with pytest.raises(RuntimeError), shortage.on(who):
        who.begin.dup(9)
        raise RuntimeError("the kernel died")
    assert shortage.happened
    assert where.schedule.fired


def test_every_call_of_a_test_is_an_opportunity():
    where, who = machine(Rule(FaultKind.ALLOC_FAIL_NTH, numbers=(1,))), session(HIT)
    plain = who.begin
    with Scarcity(where).over(who):
        held = who.begin
        plain.results = [7]
        plain._start = lambda what, kind, body, decode, extra_seconds=0.0: SimpleNamespace(
            result=lambda: len(body)
        )
        lengths = [held.dup(9).result() for _ in range(3)]
    assert lengths[0] == lengths[2] < lengths[1]
    assert who.begin is plain
    # A file that the test opened goes on with the calls it was opened by.
    assert held.dup(9).result() == lengths[0]
    assert [fault.number for fault in where.schedule.fired] == [1]


def test_nothing_is_touched_where_memory_suffices():
    where, who = machine(Rule(FaultKind.IRQ_LOST, 1.0)), session(HIT)
    plain, scarcity = who.begin, Scarcity(where)
    scarcity.prepare(None)
    with scarcity.over(who):
        assert who.begin is plain
    assert scarcity.draw(FaultKind.ALLOC_FAIL_NTH) is None


def test_a_loading_is_counted_and_fails_near_its_end_more_often():
    where = machine(Rule(FaultKind.PROBE_FAIL_NTH, 1.0))
    scarcity, who = Scarcity(where), session(str(COUNTING - 160).encode())
    plain = who.begin
    with scarcity.counting(who):
        who.begin.dup(9).result()
    assert who.begin is plain
    late = [scarcity.draw(FaultKind.PROBE_FAIL_NTH, loads=True).nth for _ in range(200)]
    assert all(1 <= nth <= 160 for nth in late)
    assert sum(nth > 80 for nth in late) > 120
    bound = [scarcity.draw(FaultKind.PROBE_FAIL_NTH) for _ in range(200)]
    assert 100 < max(shortage.nth for shortage in bound) <= 160
    # One that came too late tells how many a binding makes; one that bound nothing tells nothing.
    too_late = next(shortage for shortage in bound if shortage.nth > 91)
    for made, most in ((3, 160), (91, 91)):
        who = session(str(too_late.nth - made).encode())
        with too_late.on(who):
            who.begin.dup(9).result()
        numbers = [scarcity.draw(FaultKind.PROBE_FAIL_NTH).nth for _ in range(200)]
        assert most - 20 < max(numbers) <= most


@pytest.mark.parametrize(
    ("kind", "title", "fault", "is_ours"),
    [
        (Kind.ALLOC_FAILURE, "page allocation failure", FaultKind.ALLOC_FAIL_NTH, True),
        (Kind.ALLOC_FAILURE, "page allocation failure", FaultKind.IRQ_LOST, False),
        (Kind.IRQ, "nobody cared", FaultKind.IRQ_STORM, True),
        (Kind.IRQ, "nobody cared", FaultKind.IRQ_LATE, False),
        (Kind.WARN, "name 'spurious'", FaultKind.PROBE_FAIL_NTH, True),
        (Kind.WARN, "something else", FaultKind.PROBE_FAIL_NTH, False),
        (Kind.DMA, "debugging out of memory", FaultKind.ALLOC_FAIL_NTH, True),
    ],
)
def test_reports_that_a_fault_brings_about(kind, title, fault, is_ours):
    report = Report(kind, title)
    assert excused(report, [Fired(0, "guest", fault, "", 0, 0)]) is is_ours
    assert not excused(report, [])
