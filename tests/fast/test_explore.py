"""Exploration without a kernel: plans as files, properties of made-up runs, what is compared."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdrv.core.errors import UsageError, WorkFailed
from kdrv.explore import plan as plans
from kdrv.explore.bugbase import console, story
from kdrv.explore.campaign import _Ledger
from kdrv.explore.declare import load_menu, operation
from kdrv.explore.differential import differences
from kdrv.explore.generate import Choice
from kdrv.explore.generate import plans as plan_strategy
from kdrv.explore.history import Entry, History, Line, Moment, Outcome, Unrest, Violation
from kdrv.explore.hunt import Caught, Hunt, Task
from kdrv.explore.plan import Plan, Step
from kdrv.explore.properties import known, violations
from kdrv.explore.replay import first_divergence, timeline
from kdrv.explore.shown import Shown, looks_like_request, operations
from kdrv.explore.values import minimal, waiting
from kdrv.machine.reports import judge
from kdrv.sim.faults import CALM, FaultKind, FaultPlan, Fired, Rule
from kdrv.sim.trace import Access, DmaAccess, Interrupt, Note, Record

SHOWN = Shown(
    nodes=("/dev/edu",),
    readable=("/sys/x",),
    writable=("/sys/x",),
    bindings=(("/sys/bus/pci/drivers/edu", "0000:00:00.0"),),
    requests=(0x80047C80,),
)
MENU = {one.name: one for one in operations(SHOWN)}
MS = 1_000_000
QUIET = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))


def moment(
    does: str = "read", outcome: Outcome = Outcome.OK, *, at: int = 1_000, **more: object
) -> Moment:
    """One operation that takes a microsecond."""
    return Moment(0, does, {}, 0, at, at + 1_000, outcome, **more)  # type: ignore[arg-type]


def history(
    *moments: Moment,
    trace: tuple[Record, ...] = (),
    console: tuple[str, ...] = (),
    **more: object,
) -> History:
    """A run in which these moments happened and nothing is wrong."""
    plain = History(
        moments=moments,
        trace=trace,
        console=tuple(Line(0, text) for text in console),
        reports=judge(console),
        fired=(),
        silent=(),
        left=(),
        stray=(),
        hash="h",
        lasted=1_000_000_000,
        loaded=True,
    )
    return replace(plain, **more)  # type: ignore[arg-type]


def broken(run: History) -> list[str]:
    return [one.name for one in violations(run)]


class Calm:
    """A bench on which nothing ever goes wrong; ``drawn`` are the plans it was given."""

    def __init__(self) -> None:
        self.drawn: list[Plan] = []

    def run(self, plan: Plan) -> History:
        self.drawn.append(plan)
        return history()

    def judge(self, plan: Plan, run: History) -> list[Violation]:
        return []


def test_a_batch_is_as_various_as_its_plans_are_many() -> None:
    bench = Calm()
    caught = Hunt(bench, Task(7, 50, Choice(MENU, tuple(FaultKind))), lambda: False).run()  # type: ignore[arg-type]
    assert caught.runs == len(bench.drawn) > 30
    assert len(caught.wanted) > 3 * len(FaultKind) // 4
    steps = {step.does for plan in bench.drawn for step in plan.steps}
    assert steps > MENU.keys() - {"bind"}


class Broken(Calm):
    """A bench on which every run shows one bug, and plans with two actors another one."""

    def judge(self, plan: Plan, run: History) -> list[Violation]:
        two = any(step.actor for step in plan.steps)
        return [Violation(name, "it did", name) for name in ("always", "two")[: 1 + two]]


def test_a_bug_in_every_run_keeps_no_other_from_being_found() -> None:
    task: Task | None = Task(7, 24, Choice(MENU, ()))
    found, tried, met = [], 0, Counter[str]()
    while task:
        left = task.examples
        caught = Hunt(Broken(), task, lambda: False).run()  # type: ignore[arg-type]
        met += caught.again
        task = caught.rest
        if caught.found:
            found.append(caught.found.violation.name)
        if task:
            assert caught.found
            assert caught.found.violation.fingerprint in task.known
            assert task.seed + task.examples == 7 + 24
            tried += left - task.examples
    assert sorted(found) == ["always", "two"]
    assert 0 < tried < 24
    assert max(met.values()) > 12


@QUIET
@given(plan_strategy(Choice(MENU, tuple(FaultKind))))
def test_a_plan_comes_back_from_its_file(plan: Plan) -> None:
    assert plans.load(plans.dump(plan)) == plan
    assert plans.load(plans.dump(plan)).key == plan.key


@QUIET
@given(plan_strategy(Choice(MENU, tuple(FaultKind))))
def test_plans_are_made_of_what_is_there(plan: Plan) -> None:
    assert plan.steps
    assert {step.does for step in plan.steps} <= set(MENU)
    assert all(step.actor < 3 for step in plan.steps)


def test_times_of_batches_add_up_in_any_order() -> None:
    """In seconds as floats the last digit told which worker had been quicker."""

    def after(*lasted: int) -> int:
        ledger = _Ledger()
        for time in lasted:
            none = (
                frozenset[int](),
                (),
                Counter[FaultKind](),
                Counter[FaultKind](),
                Counter[str](),
            )
            ledger.enter(Caught(0, False, 1, 0.1, time, *none), 1.0)
        return ledger.lasted

    assert after(10**17, 1, 1) == after(1, 1, 10**17) == 10**17 + 2


def test_without_kinds_plans_have_no_faults() -> None:
    assert minimal(plan_strategy(Choice(MENU, ()))).faults.rules == ()


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"\x00\xff",
        [1, [b"a"]],
        {"hex": "no bytes", "more": 1},
        1 << 70,
        -5,
        "text",
        0.5,
        True,
    ],
)
def test_every_plain_argument_comes_back(value: object) -> None:
    plan = Plan((Step("op", {"value": value}),), CALM)
    assert plans.load(plans.dump(plan)).steps[0].arguments["value"] == value


def test_an_argument_that_is_no_plain_data_is_refused() -> None:
    with pytest.raises(UsageError, match="an argument of an operation"):
        plans.dump(Plan((Step("op", {"value": object()}),), CALM))


STEPS = 'format = 1\nstep = [{does = "op", arguments = {value = %s}}]'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("format = 1", "missing required field"),
        ("format = 9\nstep = []\n[faults]", "format 9"),
        ("no toml", "cannot be read"),
        ('format = 1\nstep = []\n[faults]\n[[faults.rules]]\nkind = "rain"', "rain"),
        ("format = 1\nstep = [{}]\n[faults]", "does"),
        (STEPS % '{hex = "zz"}' + "\n[faults]", "an argument in the plan"),
        (STEPS % '{int = "x"}' + "\n[faults]", "an argument in the plan"),
        (STEPS % 1 + "\n[faults]\npace = -1", "pace is -1"),
        (STEPS % 1 + "\n[faults]\njitter = inf", "jitter is inf"),
    ],
)
def test_a_bad_plan_is_refused_with_its_reason(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        plans.load(text)


def test_a_call_waits_where_no_scheduler_is() -> None:
    stack = (
        "[<0>] __switch_to+0x3b/0x60",
        "[<0>] schedule_timeout+0x9b/0x130",
        "[<0>] wait_for_answer+0x9/0x20 [edu]",
        "[<0>] edu_ioctl+0x9/0x20 [edu]",
        "[<0>] sys_ioctl+0x9/0x20",
    )
    assert waiting(stack) == "in wait_for_answer [edu], from edu_ioctl [edu]"
    assert waiting(stack[:2]) == waiting(()) == ""


# --- properties


def test_nothing_is_wrong_with_a_good_run() -> None:
    run = history(moment(), moment("unload", phase="unload"), serves=True)
    assert broken(run) == []


@pytest.mark.parametrize(
    ("run", "name"),
    [
        (history(moment(outcome=Outcome.HUNG, words="in wait")), "returns"),
        (history(moment(outcome=Outcome.BLOCKED)), "returns"),
        (history(moment(outcome=Outcome.WRONG, words="1 is not 2")), "right-answer"),
        (
            history(moment("read_at_edge", Outcome.WRONG, phase="edge", words="of 8 bytes")),
            "callers-memory",
        ),
        (history(moment(outcome=Outcome.DIED, words="SIGKILL")), "lives"),
        (history(ended="stalled: the kernel has run for 5 s"), "lives"),
        (history(left=("left behind: device node still there: /dev/x",)), "no-trace"),
        (history(moment("unload", Outcome.ERROR, phase="unload", errno="EAGAIN")), "no-trace"),
        (history(moment("bind", Outcome.ERROR, phase="serve", errno="EIO")), "serves-again"),
        (
            history(moment("echo", Outcome.ERROR, phase="serve", errno="EIO"), serves=False),
            "serves-again",
        ),
        (
            history(moment("unbind", value="x"), unrest=(Unrest(1, "edu", "a transfer runs"),)),
            "quiesced",
        ),
        (history(moment(outcome=Outcome.ERROR, errno="EIO"), prompt=True), "works-when-calm"),
        (
            history(moment(outcome=Outcome.ERROR, errno="EINVAL"), prompt=True, serving={"read"}),
            "works-when-calm",
        ),
        (history(unanswered=("edu: irq_status is 0x1",)), "acknowledges"),
        (history(stray=("memory that was never mapped",)), "own-memory"),
        (history(fault=("edu: access outside", "driver", ())), "legal-access"),
        (
            history(console=("[    1.000000] WARNING: CPU: 0 PID: 1 at drivers/x.c:12 f+0x1/0x2",)),
            "no-report",
        ),
    ],
)
def test_each_property_is_seen_to_break(run: History, name: str) -> None:
    assert broken(run) == [name]


@pytest.mark.parametrize(
    ("errno", "serving"), [("EINVAL", set[str]()), ("EBUSY", {"read"}), ("EINTR", {"read"})]
)
def test_an_error_may_be_the_answer_where_nothing_is_wrong(errno: str, serving: set[str]) -> None:
    refused = moment(outcome=Outcome.ERROR, errno=errno)
    assert broken(history(refused, prompt=True, serving=serving)) == []


def test_two_places_are_two_bugs_and_numbers_are_no_place() -> None:
    one, two = (
        violations(history(fault=(f"edu: no BAR at {at}", "driver", ())))[0]
        for at in ("0x10", "0x20")
    )
    other = violations(history(fault=("edu: too wide", "driver", ())))[0]
    assert one.fingerprint == two.fingerprint != other.fingerprint


WAITS = replace(
    moment("sum", at=0), ended=100 * MS, entries=(Entry("ioctl(3)", 0, 100 * MS),), phase="serve"
)
ASKS = Access(1_000, "edu", True, 0, 8, 4, 5, "factorial")
ANSWERS = Interrupt(20_000, "edu", 0)
LOOKS = Access(100 * MS, "edu", False, 0, 8, 4, 120, "factorial")


@pytest.mark.parametrize("trace", [(ASKS, ANSWERS, LOOKS), (ASKS, ANSWERS)])
def test_a_call_that_only_a_timer_ends_is_seen(trace: tuple[Record, ...]) -> None:
    (one,) = violations(history(WAITS, trace=trace, prompt=True))
    assert one.name == "prompt"
    assert one.words == (
        "sum: ioctl(3) waits for 99 ms although the device has "
        "answered: a timer ends its wait, and nothing else does"
    )
    assert violations(history(WAITS, trace=trace, prompt=True), without={"prompt"}) == []


@pytest.mark.parametrize(
    "run",
    [
        # The device takes its time, or has something new to say.
        history(WAITS, trace=(ASKS, LOOKS), prompt=True),
        history(WAITS, trace=(ASKS, ANSWERS, replace(ANSWERS, at=100 * MS)), prompt=True),
        history(WAITS, trace=(ASKS, replace(ANSWERS, at=99 * MS), LOOKS), prompt=True),
        # It is slow, a fault has fired, or somebody else was there.
        history(WAITS, trace=(ASKS, ANSWERS), prompt=False),
        history(
            WAITS,
            trace=(ASKS, ANSWERS),
            prompt=True,
            fired=(Fired(1, "edu", FaultKind.IRQ_LOST, "", 0, 0),),
        ),
        history(WAITS, moment(at=50 * MS), trace=(ASKS, ANSWERS), prompt=True),
        # Nobody waits for a device, or for a probe.
        history(WAITS, prompt=True),
        history(replace(WAITS, entries=()), trace=(ASKS, ANSWERS), prompt=True),
        history(replace(WAITS, phase="load"), trace=(ASKS, ANSWERS), prompt=True),
    ],
)
def test_a_call_may_wait_for_its_device(run: History) -> None:
    assert broken(run) == []


def test_a_property_that_is_to_be_left_out_must_be_one() -> None:
    assert known(("prompt", "lives")) == {"prompt", "lives"}
    with pytest.raises(UsageError, match="'promt'.*, which is no property") as caught:
        known(("promt",))
    assert "prompt, quiesced" in caught.value.expected


UNBOUND = moment("unbind", at=1_000, value="0000:00:00.0")
ACCESS = Access(5_000, "edu", False, 0, 4, 4, 0, "live")


def test_an_access_after_unbinding_is_seen() -> None:
    assert broken(history(UNBOUND, trace=(ACCESS,))) == ["quiet-when-gone"]


@pytest.mark.parametrize(
    "run",
    [
        history(moment("unbind", at=1_000, value=None), trace=(ACCESS,)),
        history(UNBOUND, moment("bind", at=4_000, value="x"), trace=(ACCESS,)),
        history(UNBOUND, moment("bind", Outcome.ERROR, at=4_500, errno="EIO"), trace=(ACCESS,)),
        history(UNBOUND, moment("unload_and_load", at=4_000), trace=(ACCESS,)),
        history(
            replace(moment("unload_and_load", at=500), ended=6_000),
            UNBOUND,
            moment("unload_and_load", Outcome.ERROR, at=3_000, errno="EBUSY"),
            trace=(ACCESS,),
        ),
    ],
)
def test_an_access_of_a_bound_or_probing_driver_is_its_right(run: History) -> None:
    assert broken(run) == []


def test_dma_after_unbinding_is_seen_unless_a_fault_did_it() -> None:
    blocked = Note(5_000, "edu", "dma blocked", ())
    assert broken(history(UNBOUND, trace=(blocked,))) == ["quiet-when-gone"]
    ours = (Fired(1, "edu", FaultKind.DMA_LATE, "", 0, 0),)
    assert broken(history(UNBOUND, trace=(blocked,), fired=ours)) == []


def test_a_device_that_could_not_be_quieted_may_try_dma_but_not_do_it() -> None:
    gone = (Fired(1, "edu", FaultKind.REG_ALL_ONES, "", 0, 0),)
    blocked = Note(5_000, "edu", "dma blocked", ())
    assert broken(history(UNBOUND, trace=(blocked,), fired=gone)) == []
    done = DmaAccess(5_000, "edu", True, 0x1000, b"data")
    assert broken(history(UNBOUND, trace=(done,), fired=gone)) == ["quiet-when-gone"]


def test_an_answer_made_of_bad_data_is_not_the_drivers_fault() -> None:
    wrong = moment(outcome=Outcome.WRONG, words="1 is not 2", at=1_000)
    late, early = ((Fired(at, "edu", FaultKind.DMA_CORRUPT, "", 0, 0),) for at in (5_000, 500))
    honest = (Fired(500, "edu", FaultKind.IRQ_LOST, "", 0, 0),)
    assert broken(history(wrong, fired=early)) == []
    assert broken(history(wrong, fired=late)) == ["right-answer"]
    assert broken(history(wrong, fired=honest)) == ["right-answer"]


@pytest.mark.parametrize(
    "run",
    [
        history(moment(outcome=Outcome.ERROR, errno="EIO")),
        history(moment(outcome=Outcome.ERROR, errno="EINVAL"), prompt=True),
        history(moment("unbind"), moment(outcome=Outcome.ERROR, errno="EIO"), prompt=True),
    ],
)
def test_an_error_has_a_reason_where_something_is_unusual(run: History) -> None:
    assert broken(run) == []


def test_an_interrupt_nobody_handles_is_ours_after_a_storm() -> None:
    console = ('[    1.000000] irq 5: nobody cared (try booting with the "irqpoll" option)',)
    assert broken(history(console=console)) == ["no-report"]
    ours = (Fired(1, "edu", FaultKind.IRQ_STORM, "", 0, 0),)
    assert broken(history(console=console, fired=ours)) == []


def test_a_property_of_the_users_own_is_checked() -> None:
    def at_most_one(run: History) -> None:
        assert len(run.moments) <= 1, "two moments"

    own = {"at_most_one": at_most_one}
    assert violations(history(moment()), own) == []
    assert violations(history(moment(), moment()), own)[0].words.startswith("two moments")


# --- comparing


def test_the_same_run_twice_does_not_diverge() -> None:
    run = history(moment(), trace=(ACCESS,), console=("hello",))
    assert first_divergence(run, run) is None


def test_the_first_divergence_is_named_with_both_sides() -> None:
    one = history(console=("a", "b", "c"))
    two = history(console=("a", "x", "y"))
    found = first_divergence(one, two)
    assert found and (found.where, found.number, found.one, found.other) == ("console", 1, "b", "x")
    assert found.before == ("a",)


def test_drivers_that_do_the_same_agree_wherever_their_buffers_are() -> None:
    def run(base: int) -> History:
        return history(
            moment(at=0),
            trace=(
                Access(10, "edu", True, 0, 8, 8, base + 8, "source"),
                DmaAccess(20, "edu", False, base + 8, b"abc"),
            ),
        )

    assert differences(run(0x10000), run(0x7000), ("one", "two")) == []


def test_the_first_difference_of_results_is_told() -> None:
    one = history(moment(value=1), moment("write", value=2))
    two = history(moment(value=1), moment("write", value=3))
    (found,) = differences(one, two, ("rust", "c"))
    assert "write" in found.words and "rust" in found.words and found.place == "result:write"


def test_errors_of_one_class_are_the_same_error() -> None:
    def run(name: str) -> History:
        return history(moment(outcome=Outcome.ERROR, errno=name))

    assert differences(run("EIO"), run("ETIMEDOUT"), ("a", "b")) == []
    assert differences(run("EIO"), run("EINVAL"), ("a", "b")) != []


def test_a_write_that_only_one_driver_makes_is_told() -> None:
    write = Access(10, "edu", True, 0, 8, 4, 7, "control")
    one, two = history(moment(at=0), trace=(write,)), history(moment(at=0))
    (found,) = differences(one, two, ("a", "b"))
    assert "control <- 0x7" in found.words


def test_runs_whose_faults_differ_are_not_compared() -> None:
    struck = (Fired(1, "edu", FaultKind.IRQ_LOST, "", 0, 0),)
    one, two = history(moment(value=1), fired=struck), history(moment(value=2))
    assert differences(one, two, ("a", "b")) == []


# --- declaring


def test_operations_and_properties_of_a_file_are_found(tmp_path: Path) -> None:
    path = tmp_path / "operations.py"
    path.write_text(
        "from hypothesis import strategies as st\n"
        "from kdrv.explore import operation, prop\n"
        "@operation(value=st.integers(3, 5), serves=True)\n"
        "def echo(call, value):\n    return value\n"
        "@prop\ndef always(history):\n    assert True\n"
    )
    menu = load_menu([path])
    assert menu["echo"].serves and menu["echo"].run(None, value=4) == 4
    assert list(menu.properties) == ["always"]
    with pytest.raises(UsageError, match="no operation 'ecco'"):
        menu["ecco"]


def test_a_file_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    path = tmp_path / "operations.py"
    path.write_text("import nothing_of_this_name\n")
    with pytest.raises(WorkFailed, match="nothing_of_this_name"):
        load_menu([path])


def test_an_operation_without_strategies_for_its_arguments_is_refused() -> None:
    with pytest.raises(TypeError, match="takes"):

        @operation(value=st.integers())
        def echo(call: object, number: int) -> None: ...


def test_numbers_that_are_ioctl_requests() -> None:
    assert looks_like_request(0x80047C80)
    assert not looks_like_request(0x12345)
    assert not looks_like_request(0xFFFFFFFF)


# --- telling


def test_a_story_tells_operations_and_faults_in_order() -> None:
    fired = (Fired(1_500, "edu", FaultKind.IRQ_LOST, "", 0, 0),)
    run = history(moment(at=1_000), moment("write", at=2_000), fired=fired)
    told = story(run, Violation("returns", "write hangs", "write"))
    places = [
        next(i for i, line in enumerate(told) if word in line)
        for word in ("read(", "irq_lost", "write(")
    ]
    assert told[0] == "returns: write hangs"
    assert places == sorted(places)


def test_the_time_line_interleaves_everything() -> None:
    run = history(moment(at=1_000), trace=(replace(ACCESS, at=1_500),), console=("boot",))
    assert [line[14:].strip()[:8] for line in timeline(run)] == [
        "| boot",
        "[plan 0]",
        "edu: BAR",
        "[plan 0]",
    ]


def test_terminal_controls_do_not_reach_the_terminal() -> None:
    run = history(console=("a\x1b[31mb\x07\x9b31mc",))
    assert [line[14:] for line in timeline(run)] == ["      | abc"]
    assert console(run).endswith(" abc\n")


def test_a_plan_can_be_calmed() -> None:
    plan = Plan((), FaultPlan(7, (Rule(FaultKind.IRQ_LOST, 0.5),)))
    assert plan.calm().faults == FaultPlan(7)


def test_a_device_that_the_kernel_enables_no_more_need_not_serve() -> None:
    lost = Fired(0, "edu", FaultKind.PM_FAIL, "", 0, 0)
    off = Note(5, "edu", "memory space is off", ())
    failed = moment("bind", Outcome.ERROR, phase="serve", errno="ENODEV")
    assert broken(history(failed, trace=(off,), fired=(lost,))) == []
    assert broken(history(failed, trace=(off,))) == ["serves-again"]
    assert broken(history(failed, fired=(lost,))) == ["serves-again"]
