"""KTAP: real output of KUnit and of a shell test in a guest, and the corners of the format."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdrv.testing.ktap import Outcome, Results, of_program, parse

RECORDINGS = Path(__file__).parent / "recordings" / "ktap"


def recording(name):
    return (RECORDINGS / name).read_text().splitlines()


def outcomes(results: Results):
    return [("/".join(leaf.path), leaf.outcome.value) for leaf in results.flatten()]


EDU_RING = [
    ("edu_ring/adds", "passed"),
    ("edu_ring/fails", "failed"),
    ("edu_ring/skips", "skipped"),
    ("edu_ring/slow", "failed"),
    ("edu_ring/even/value 2", "passed"),
    ("edu_ring/even/value 3", "failed"),
    ("edu_ring/even/value 4", "passed"),
]


def test_kunit_on_the_console():
    results = parse(recording("kunit-console.log"))
    assert outcomes(results) == [
        *EDU_RING,
        ("edu_regs/adds", "passed"),
        ("edu_absent/skips", "skipped"),
    ]
    assert not results.passed
    assert results.problems == ()
    ring, regs, absent = results.tests
    assert (ring.outcome, regs.outcome, absent.outcome) == (
        Outcome.FAILED,
        Outcome.PASSED,
        Outcome.SKIPPED,
    )


def test_kunit_in_debugfs_says_the_same_as_the_console():
    assert outcomes(parse(recording("kunit-debugfs.log"))) == EDU_RING


def test_the_detail_of_a_failure_is_what_kunit_said_above_it():
    leaves = {leaf.path: leaf for leaf in parse(recording("kunit-console.log")).flatten()}
    fails = leaves["edu_ring", "fails"].detail.splitlines()
    assert fails[0] == "fails: EXPECTATION FAILED at ktsuite.c:5"
    assert "Expected 1 + 1 == 3, but" in fails
    assert leaves["edu_ring", "skips"].detail == "no hardware here"
    assert "the register is 7" in leaves["edu_ring", "slow"].detail
    assert leaves["edu_ring", "adds"].detail == ""


def test_kunit_cut_off_by_a_crash_misses_what_was_announced():
    lines = recording("kunit-console.log")
    stop = next(n for n, line in enumerate(lines) if "ok 3 skips" in line)
    results = parse([*lines[:stop], "[    1.420999] Kernel panic - not syncing: Fatal exception"])
    assert outcomes(results) == [
        ("edu_ring/adds", "passed"),
        ("edu_ring/fails", "failed"),
        ("edu_ring/3-5 of 5", "missing"),
        ("2-3 of 3", "missing"),
    ]
    assert "Kernel panic" in results.flatten()[2].detail


def test_a_shell_test_with_the_helpers_of_kselftest():
    lines = recording("shell.log")
    assert outcomes(parse(lines)) == [
        ("proc is mounted", "passed"),
        ("the device exists", "failed"),
        ("interrupt by INTx", "skipped"),
        ("dma above 4 GiB", "expected-failure"),
    ]
    test = of_program("edu.sh", lines, 1)
    assert test.outcome is Outcome.FAILED
    assert len(test.subtests) == 4
    assert test.reason == ""


def test_a_shell_test_that_bails_out():
    lines = recording("shell-bail.log")
    results = parse(lines)
    assert results.bail == "device gone"
    assert not results.passed
    assert outcomes(results) == [("loads", "passed"), ("2-3 of 3", "missing")]
    assert of_program("bail.sh", lines, 1).reason == "bailed out: device gone"


@pytest.mark.parametrize(
    ("line", "name", "outcome", "reason"),
    [
        ("ok 1 opens", "opens", "passed", ""),
        ("ok 1 - opens", "opens", "passed", ""),
        ("ok 1", "#1", "passed", ""),
        ("not ok 1 opens", "opens", "failed", ""),
        ("ok 1 check return code # rcode=0", "check return code", "passed", "rcode=0"),
        ("ok 1 irq # SKIP no INTx", "irq", "skipped", "no INTx"),
        ("not ok 1 irq # SKIP no INTx", "irq", "skipped", "no INTx"),
        ("ok 1 irq # skip: no INTx", "irq", "skipped", "no INTx"),
        ("ok 1 # SKIP no INTx", "#1", "skipped", "no INTx"),
        ("not ok 1 dma # TODO above 4 GiB", "dma", "expected-failure", "above 4 GiB"),
        ("ok 1 dma # TODO above 4 GiB", "dma", "passed", "above 4 GiB"),
        ("not ok 1 dma # XFAIL", "dma", "expected-failure", ""),
        ("not ok 1 dma # TIMEOUT 30 seconds", "dma", "failed", "timeout: 30 seconds"),
        ("not ok 1 dma # ERROR no memory", "dma", "failed", "error: no memory"),
        ("not ok 1 dma # exit=1", "dma", "failed", "exit=1"),
        (r"ok 1 the \# sign # SKIP x", "the # sign", "skipped", "x"),
    ],
)
def test_result_lines(line, name, outcome, reason):
    (test,) = parse(["KTAP version 1", "1..1", line]).tests
    assert (test.name, test.outcome.value, test.reason) == (name, outcome, reason)


def test_the_example_of_the_specification():
    example = """\
KTAP version 1
1..1
  KTAP version 1
  1..3
    KTAP version 1
    1..1
    # test_1: initializing test_1
    ok 1 test_1
  ok 1 example_test_1
    KTAP version 1
    1..2
    ok 1 test_1 # SKIP test_1 skipped
    ok 2 test_2
  ok 2 example_test_2
    KTAP version 1
    1..3
    ok 1 test_1
    # test_2: FAIL
    not ok 2 test_2
    ok 3 test_3 # SKIP test_3 skipped
  not ok 3 example_test_3
not ok 1 main_test
"""
    assert outcomes(parse(example.splitlines())) == [
        ("main_test/example_test_1/test_1", "passed"),
        ("main_test/example_test_2/test_1", "skipped"),
        ("main_test/example_test_2/test_2", "passed"),
        ("main_test/example_test_3/test_1", "passed"),
        ("main_test/example_test_3/test_2", "failed"),
        ("main_test/example_test_3/test_3", "skipped"),
    ]


@pytest.mark.parametrize("prefix", ["", "[    1.234567] ", "[    1.234567][   T11] ", "kunit: "])
def test_prefixes_and_foreign_lines_change_nothing(prefix):
    lines = ["KTAP version 1", "1..2", "ok 1 a", "ok 2 b"]
    mixed = ["booting"]
    for line in lines:
        mixed += [prefix + line, "[    1.300000] tsc: Refined TSC clocksource calibration"]
    results = parse(mixed)
    assert outcomes(results) == [("a", "passed"), ("b", "passed")]
    assert results.passed


def test_a_plan_without_a_version_line_is_enough():
    assert outcomes(parse(["1..1", "ok 1 a"])) == [("a", "passed")]


def test_tap_14_subtests_without_a_version_line_of_their_own():
    lines = ["TAP version 14", "1..1", "    # Subtest: inner", "    1..1", "    ok 1 - a"]
    assert outcomes(parse([*lines, "ok 1 - inner"])) == [("inner/a", "passed")]
    assert outcomes(parse(lines)) == [("inner/a", "passed"), ("inner", "missing")]


def test_a_skipped_plan():
    (test,) = parse(["TAP version 13", "1..0 # SKIP no device"]).tests
    assert (test.outcome, test.reason) == (Outcome.SKIPPED, "no device")


def test_two_outputs_in_one_log():
    lines = ["KTAP version 1", "1..1", "ok 1 a"]
    assert outcomes(parse([*lines, *lines])) == [("a", "passed"), ("a", "passed")]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["1..2", "ok 1 a", "ok 3 c"], "test number 3 came where 2 was due: 'ok 3 c'"),
        (["1..1", "ok 1 a", "ok 2 b"], "2 results came where 1 were due"),
        (
            ["1..1", "  KTAP version 1", "  1..1", "  not ok 1 in", "ok 1 out"],
            "'out' says ok though a test in it failed",
        ),
    ],
)
def test_breaches_of_the_protocol_fail_the_run(lines, problem):
    results = parse(["KTAP version 1", *lines])
    assert problem in results.problems
    assert not results.passed


def test_nothing_is_not_passed():
    assert not parse([]).passed
    assert not parse(["hello", "ok 1 said a user before any test began"]).passed


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(0, "passed"), (1, "failed"), (2, "failed"), (4, "skipped"), (-11, "failed")],
)
def test_a_program_without_ktap_is_judged_by_its_status(status, outcome):
    test = of_program("old.sh", ["some output"], status)
    assert (test.outcome.value, test.diagnostics) == (outcome, ("some output",))
    assert test.bad == (outcome == "failed")


def test_a_program_that_dies_after_its_results_has_failed():
    lines = ["KTAP version 1", "1..1", "ok 1 a"]
    assert not of_program("a.sh", lines, 0).bad
    test = of_program("a.sh", lines, -6)
    assert test.bad
    assert test.reason == "killed by signal 6, though no test failed"


def test_a_program_that_skips_everything_is_skipped():
    assert of_program("a.sh", ["1..0 # SKIP no device"], 4).outcome is Outcome.SKIPPED


line = st.one_of(
    st.text(max_size=40),
    st.sampled_from(["KTAP version 1", "  KTAP version 1", "    # Subtest: x", "Bail out!"]),
    st.builds("{}1..{}".format, st.sampled_from(["", "  ", "    "]), st.integers(0, 10**12)),
    st.builds(
        "{}{} {} {}".format,
        st.sampled_from(["", "  ", "    ", "[    1.000000] "]),
        st.sampled_from(["ok", "not ok"]),
        st.integers(0, 9),
        st.text(max_size=10),
    ),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(line, max_size=25))
def test_noise_never_raises_and_no_failure_is_lost(lines):
    results = parse(lines)
    bad = any(test.bad for test in results.tests)
    assert bad == any(leaf.outcome.bad for leaf in results.flatten())
    if bad:
        assert not results.passed
