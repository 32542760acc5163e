"""From the steps of a lane to what each patch is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kdrv.build.diagnostics import Diagnostic, Level
from kdrv.build.lane import Language
from kdrv.gate.boots import Booted
from kdrv.gate.drivers import QEMU, Trial
from kdrv.gate.jobs import LaneReport
from kdrv.gate.lints import Lint
from kdrv.gate.policy import load_policy
from kdrv.gate.result import Blast, Check, Outcome
from kdrv.gate.series import Patch, Series
from kdrv.gate.step import Lost, Step
from kdrv.gate.trial import Finding
from kdrv.gate.verdict import LaneJudge
from kdrv.testing.prepare import SIM
from kdrv.testing.smoke import Proof

GREEN = Step(True, (), (), frozenset({"RUST=y", "PCI=y"}), 7, 1.0)
LOST = Lost("RUST", "RUST needs !BUG, and BUG is on", "drop that dependency", follows=False)


def said(level: Level, message: str, line: int = 1, tool: str = "rustc") -> Diagnostic:
    return Diagnostic(tool, level, message, "rust/kernel/a.rs", line)


BROKEN = said(Level.ERROR, "no function bindings::foo")
RED = replace(GREEN, ok=False, diagnostics=(BROKEN,))
NO_RUST = replace(GREEN, ok=False, lost=(LOST,), config=frozenset({"PCI=y"}), targets=0)


def judge(*steps: Step, preset: str = "default", notice: str = "", **more: object) -> LaneJudge:
    """A judge of the base and one patch for each further step."""
    patches = tuple(
        Patch(n, f"{n}" * 40, f"{n - 1}" * 40, "", f"Patch {n}", "Ada", f"Patch {n}\n{notice}", ())
        for n in range(1, len(steps))
    )
    series = Series("base..tip", "0" * 40, patches[-1].commit, patches)
    report = LaneReport("rust", Language.RUST, steps, tuple(Blast() for _ in patches), {}, {}, {})
    policy = load_policy(None, preset)
    return LaneJudge(policy, series, replace(report, **more), ("kdrv", "gate"))  # type: ignore[arg-type]


def told(judged: LaneJudge, number: int, name: str) -> Check:
    checks = judged.checks(judged.series.patches[number - 1])
    return next(check for check in checks if check.name == name)


def test_a_green_patch_passes_and_needs_no_reproducer() -> None:
    check = told(judge(GREEN, GREEN), 1, "build rust")
    assert (check.outcome, check.summary, check.reproducer) == (Outcome.PASS, "7 targets made", "")


def test_a_break_and_what_only_stays_broken() -> None:
    judged = judge(GREEN, RED, RED, GREEN)
    first, second = told(judged, 1, "build rust"), told(judged, 2, "build rust")
    assert first.outcome is second.outcome is Outcome.FAIL
    assert first.diagnostics == (BROKEN,)
    assert second.diagnostics == ()
    assert second.summary == "still does not build, as since patch 1"
    assert first.reproducer == f"kdrv gate {'0' * 12}..{'1' * 12}"
    assert "build.rust" in first.policy
    assert told(judged, 3, "build rust").summary.startswith("green again")
    (broken,) = judged.breaks()
    assert (broken.patch, broken.mended) == (1, 3)


def test_what_the_base_has_broken_is_not_the_patchs_fault() -> None:
    worse = replace(RED, diagnostics=(BROKEN, said(Level.ERROR, "another")))
    judged = judge(RED, RED, worse)
    assert told(judged, 1, "build rust").outcome is Outcome.WARN
    assert told(judged, 2, "build rust").outcome is Outcome.FAIL
    assert judged.breaks() == ()


@pytest.mark.parametrize(
    ("notice", "outcome"),
    [("", Outcome.FAIL), ("\nBreaks-Rust: patch 2 follows", Outcome.WARN)],
)
def test_a_named_notice_excuses_where_the_policy_says_so(notice: str, outcome: Outcome) -> None:
    judged = judge(GREEN, RED, GREEN, preset="relaxed", notice=notice)
    assert told(judged, 1, "build rust").outcome is outcome


def test_the_loss_of_a_symbol_is_explained_once() -> None:
    judged = judge(GREEN, NO_RUST, NO_RUST, GREEN)
    first, second = told(judged, 1, "build rust"), told(judged, 2, "build rust")
    assert first.summary == "RUST can no longer be configured"
    assert first.detail == (f"{LOST.summary}  change: {LOST.change}",)
    assert second.summary == "still does not build, as since patch 1"
    assert second.detail == ()


def test_warnings_are_held_against_the_last_step_that_compiled() -> None:
    old, new = said(Level.WARNING, "old"), said(Level.WARNING, "new")
    warned = replace(GREEN, diagnostics=(old,))
    back = replace(GREEN, diagnostics=(replace(old, line=9), new))
    judged = judge(warned, NO_RUST, back)
    check = told(judged, 2, "warnings rust")
    assert check.diagnostics == (new,)
    names = [check.name for check in judged.checks(judged.series.patches[0])]
    assert "warnings rust" not in names


def test_a_stopped_build_is_a_verdict() -> None:
    stopped = replace(RED, stopped="make started more than 500 processes")
    check = told(judge(GREEN, stopped, GREEN), 1, "build rust")
    assert check.outcome is Outcome.FAIL
    assert "more than 500 processes" in check.summary


def test_a_symbol_that_vanished() -> None:
    check = told(judge(GREEN, replace(GREEN, config=frozenset({"RUST=y"}))), 1, "config rust")
    assert check.outcome is not Outcome.PASS
    assert check.detail == ("PCI",)
    changed = replace(GREEN, config=frozenset({"RUST=y", "PCI=m"}))
    assert told(judge(GREEN, changed), 1, "config rust").outcome is Outcome.PASS


def test_a_boot_is_held_against_the_bases() -> None:
    good, bad = (
        Proof("reaches userspace", True, 1.0),
        Proof("reaches userspace", False, 1.0, "oops"),
    )
    lost = judge(GREEN, GREEN, boots={1: Booted((bad,)), 0: Booted((good,))})
    assert told(lost, 1, "boot rust").outcome is Outcome.FAIL
    assert "oops" in told(lost, 1, "boot rust").summary
    same = judge(GREEN, GREEN, boots={1: Booted((bad,)), 0: Booted((bad,))})
    assert told(same, 1, "boot rust").outcome is Outcome.WARN
    assert told(judge(GREEN, GREEN, boots={1: Booted((good,))}), 1, "boot rust").outcome is (
        Outcome.PASS
    )


def test_a_drivers_trials_are_held_against_the_bases() -> None:
    def trial(*names: str, world: str = QEMU, refused: str = "") -> Trial:
        found = tuple(Finding(name, "wrong") for name in names)
        return Trial("drivers/misc/foo", world, 3, found, refused, 1.0)

    good = judge(GREEN, GREEN, trials={1: (trial(), trial(world=SIM))})
    assert told(good, 1, "tests foo").summary == "3 tests passed"
    assert told(good, 1, "explore foo").summary == "3 plans passed"
    known = {0: (trial("a", "b"),), 1: (trial("b", "c"), trial("x", world=SIM))}
    lost = told(judge(GREEN, GREEN, trials=known), 1, "tests foo")
    assert (lost.outcome, lost.summary, lost.detail) == (Outcome.FAIL, "c: wrong", ())
    assert (
        lost.reproducer
        == f"git checkout {'1' * 12} && kdrv test --qemu --kernel . drivers/misc/foo"
    )
    assert told(judge(GREEN, GREEN, trials=known), 1, "explore foo").outcome is Outcome.FAIL
    same = told(judge(GREEN, GREEN, trials={0: (trial("a"),), 1: (trial("a"),)}), 1, "tests foo")
    assert same.outcome is Outcome.WARN
    none = judge(GREEN, GREEN, trials={1: (trial(world=SIM, refused="no such device"),)})
    assert told(none, 1, "explore foo").outcome is Outcome.SKIP


def test_lints_tell_only_what_is_new() -> None:
    old = said(Level.WARNING, "old", tool="clippy")
    new = said(Level.WARNING, "new", tool="clippy")
    before, after = Lint((old,), ()), Lint((old, new), (), ("rustdoc",))
    judged = judge(GREEN, GREEN, lints={1: (before, after)})
    assert told(judged, 1, "clippy").diagnostics == (new,)
    assert told(judged, 1, "rustdoc").outcome is Outcome.SKIP
