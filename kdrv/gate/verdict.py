"""From what the lanes said at each commit to checks of each patch."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import PurePosixPath

from kdrv.build.diagnostics import Diagnostic, Level, fresh
from kdrv.build.lane import Language
from kdrv.core.show import plural
from kdrv.gate.blast import State, breaks
from kdrv.gate.boots import Booted
from kdrv.gate.crates import Tool
from kdrv.gate.drivers import QEMU, Trial
from kdrv.gate.jobs import LaneReport
from kdrv.gate.policy import Policy, judge_red
from kdrv.gate.result import Break, Check, Outcome
from kdrv.gate.series import Patch, Series
from kdrv.gate.step import Step
from kdrv.testing.prepare import SIM

SPARSE = "sparse"
TRIED = {QEMU: ("tests", "test"), SIM: ("explore", "plan")}
"""What a driver's trial is called, by its world, and what it consists of."""
SAMPLE = 3
"""How many findings a summary names."""


@dataclass(frozen=True)
class LaneJudge:
    """One lane's word on the patches.

    ``again`` is the command line that judges with the same choices, without the series;
    ``no_sparse`` why sparse did not look, empty when it did.
    """

    policy: Policy
    series: Series
    report: LaneReport
    again: tuple[str, ...]
    no_sparse: str = ""

    def checks(self, patch: Patch) -> tuple[Check, ...]:
        """The checks of a patch, the lane's name in each."""
        before, after = self._compared(patch.number), self.report.steps[patch.number]
        checks = [self._build(patch, before, after)]
        if _compiled(after):
            checks.append(self._warnings(patch, before, after))
            checks.append(self._config(patch, before, after))
            if self.report.language is Language.C:
                checks.append(self._sparse(patch, before, after))
        checks += self._lints(patch)
        if booted := self.report.boots.get(patch.number):
            checks.append(self._boot(patch, booted))
        checks += [self._trial(patch, trial) for trial in self.report.trials.get(patch.number, ())]
        return tuple(checks)

    def breaks(self) -> tuple[Break, ...]:
        """Where the lane broke, and where it was mended."""
        states = []
        for patch, blast in zip(self.series.patches, self.report.blasts, strict=True):
            before, after = self._compared(patch.number), self.report.steps[patch.number]
            states.append(State(patch.number, after.ok, _errors(before, after), blast))
        if not self.report.steps[0].ok:
            return ()
        return breaks(self.report.lane, states)

    def _compared(self, number: int) -> Step:
        """The step that a patch's is compared with: the last before it that compiled anything."""
        earlier = self.report.steps[:number]
        return next((step for step in reversed(earlier) if _compiled(step)), earlier[-1])

    def _check(
        self, kind: str, patch: Patch, outcome: Outcome, summary: str, **more: object
    ) -> Check:
        again = "" if outcome is Outcome.PASS else self._again(patch)
        name = f"{kind} {self.report.lane}"
        return Check(name, outcome, summary, reproducer=again, **more)  # type: ignore[arg-type]

    def _again(self, patch: Patch) -> str:
        return shlex.join([*self.again, f"{patch.parent[:12]}..{patch.short}"])

    def _build(self, patch: Patch, before: Step, after: Step) -> Check:
        timing = {"seconds": after.seconds, "reused": after.reused}
        parent = self.report.steps[patch.number - 1]
        if after.ok:
            summary = after.untouched or f"{plural(after.targets, 'target')} made"
            if not parent.ok:
                summary = f"green again; {summary}"
            return self._check("build", patch, Outcome.PASS, summary, **timing)
        errors = _errors(before, after)
        known = {lost.symbol for lost in parent.lost}
        lost = [one for one in after.lost if not one.follows and one.symbol not in known]
        since = self._red_since(patch.number)
        if lost:
            names = ", ".join(one.symbol for one in lost[:SAMPLE])
            what = f"{names} can no longer be configured"
        elif after.stopped:
            what = f"the build was stopped: {after.stopped}"
        elif errors:
            what = f"does not build: {errors[0].place or errors[0].tool}: {errors[0].message}"
        else:
            what = "still does not build, as since " + (f"patch {since}" if since else "the base")
        if since:
            breaker = self.series.patches[since - 1]
            last = patch.number == len(self.series.patches)
            language = self.report.language.value
            outcome, why, policy = judge_red(self.policy, language, breaker, last=last)
        else:
            # What the base has broken, a patch can only make worse.
            outcome = Outcome.FAIL if lost or errors else Outcome.WARN
            why, policy = "the base does not build either", ""
        return self._check(
            "build",
            patch,
            outcome,
            f"{what} ({why})" if outcome is not Outcome.FAIL or not since else what,
            diagnostics=errors,
            detail=tuple(f"{one.summary}  change: {one.change}" for one in lost),
            policy=policy,
            **timing,
        )

    def _red_since(self, number: int) -> int:
        """The patch after which the lane has been red up to this one; 0 for the base."""
        while number and not self.report.steps[number - 1].ok:
            number -= 1
        return number

    def _warnings(self, patch: Patch, before: Step, after: Step) -> Check:
        found = tuple(
            one
            for one in fresh(before.diagnostics, after.diagnostics)
            if one.level is Level.WARNING and one.tool != SPARSE
        )
        return self._found(f"warnings {self.report.lane}", "warnings", patch, found)

    def _sparse(self, patch: Patch, before: Step, after: Step) -> Check:
        if self.no_sparse:
            return Check(SPARSE, Outcome.SKIP, self.no_sparse)
        said = fresh(before.diagnostics, after.diagnostics)
        found = tuple(one for one in said if one.tool == SPARSE)
        return self._found(SPARSE, SPARSE, patch, found)

    def _lints(self, patch: Patch) -> list[Check]:
        """clippy and rustdoc, of a patch that touches Rust and compiles before and after."""
        pair = self.report.lints.get(patch.number)
        if pair is None:
            return []
        before, after = pair
        checks = []
        for tool in Tool:
            if tool.program in after.missing:
                checks.append(Check(tool, Outcome.SKIP, f"the toolchain has no {tool.program}"))
            else:
                found = fresh(before.of(tool), after.of(tool))
                checks.append(self._found(tool, tool, patch, found))
        return checks

    def _found(
        self, name: str, severity: str, patch: Patch, found: tuple[Diagnostic, ...]
    ) -> Check:
        """A check that is about what tools said anew."""
        if not found:
            return Check(name, Outcome.PASS, "nothing new")
        return Check(
            name,
            self.policy.outcome(severity),
            f"{len(found)} new: {found[0].place}: {found[0].message}",
            diagnostics=found,
            policy=self.policy.cite(f"severity.{severity}"),
            reproducer=self._again(patch),
        )

    def _config(self, patch: Patch, before: Step, after: Step) -> Check:
        """Symbols that were on and are off, or gone."""
        now = {line.partition("=")[0] for line in after.config}
        gone = sorted({line.partition("=")[0] for line in before.config} - now)
        if not gone:
            return self._check("config", patch, Outcome.PASS, "no symbol vanished")
        names = ", ".join(gone[:SAMPLE]) + (" ..." if len(gone) > SAMPLE else "")
        return self._check(
            "config",
            patch,
            self.policy.outcome("config"),
            f"{plural(len(gone), 'symbol')} vanished from .config: {names}",
            detail=tuple(gone),
            policy=self.policy.cite("severity.config"),
        )

    def _boot(self, patch: Patch, booted: Booted) -> Check:
        failed = [proof for proof in booted.proofs if not proof.ok]
        timing = {"seconds": sum(p.seconds for p in booted.proofs), "reused": booted.reused}
        if not failed:
            names = f"{plural(len(booted.proofs), 'proof')}, from userspace to the last sample"
            summary = names if len(booted.proofs) > 1 else "reaches userspace"
            return self._check("boot", patch, Outcome.PASS, summary, **timing)
        base = self.report.boots.get(0)
        old = {proof.name for proof in base.proofs if not proof.ok} if base else set()
        regressions = [proof for proof in failed if proof.name not in old]
        chosen = regressions or failed
        detail = tuple(f"{proof.name}: {proof.detail}" for proof in chosen)
        outcome = Outcome.FAIL if regressions else Outcome.WARN
        words = detail[0] if regressions else f"{detail[0]} (as at the base)"
        return self._check("boot", patch, outcome, words, detail=detail[1:], **timing)

    def _trial(self, patch: Patch, trial: Trial) -> Check:
        """A driver's tests or its campaign: what the base's has found too is not the patch's."""
        kind, what = TRIED[trial.world]
        base = self.report.trials.get(0, ())
        same = [one for one in base if (one.folder, one.world) == (trial.folder, trial.world)]
        old = {finding.name for one in same for finding in one.findings}
        fresh = [one for one in trial.findings if one.name not in old]
        words = [f"{one.name}: {one.words}" for one in fresh or trial.findings]
        if trial.refused:
            outcome, summary = Outcome.SKIP, trial.refused
        elif not words:
            outcome, summary = Outcome.PASS, f"{plural(trial.tried, what)} passed"
        elif fresh:
            outcome, summary = Outcome.FAIL, words[0]
        else:
            outcome, summary = Outcome.WARN, f"{words[0]} (as at the base)"
        return Check(
            f"{kind} {PurePosixPath(trial.folder).name}",
            outcome,
            summary,
            detail=tuple(words[1:]),
            reproducer=f"git checkout {patch.short} && {trial.command}" if words else "",
            seconds=trial.seconds,
            reused=trial.reused,
        )


def _compiled(step: Step) -> bool:
    """Whether make went to its end, be it a bad one."""
    return not step.lost and not step.stopped


def _errors(before: Step, after: Step) -> tuple[Diagnostic, ...]:
    found = fresh(before.diagnostics, after.diagnostics)
    return tuple(one for one in found if one.level is Level.ERROR)
