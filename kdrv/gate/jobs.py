"""The jobs of a judgement: one lane walked along the series, or the patches' text looked at.

A job is a function of plain data that can be pickled, so it runs in a thread, in another process
or on another machine; there it borrows that machine's clone, and the commits that it does not have
come with the job as a git bundle.
"""

from __future__ import annotations

import platform
import tempfile
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path

from kdrv.build.lane import Lane, Language
from kdrv.core.context import Context
from kdrv.core.errors import UsageError
from kdrv.core.limits import MIB, Limits
from kdrv.core.process import Limited
from kdrv.core.project import FILENAME
from kdrv.core.release import release
from kdrv.core.stopping import unless_stopped
from kdrv.core.store import Store, digest
from kdrv.gate import blast as radius
from kdrv.gate.boots import Booted, boot
from kdrv.gate.churn import judge_scope
from kdrv.gate.drivers import Trial, try_driver
from kdrv.gate.files import judge_files
from kdrv.gate.git import Repo, borrow, open_repo
from kdrv.gate.lints import Lint, linting
from kdrv.gate.message import judge_message
from kdrv.gate.policy import Policy
from kdrv.gate.result import Blast, Check
from kdrv.gate.results import Results
from kdrv.gate.rustcode import judge_rust
from kdrv.gate.series import Patch, Series
from kdrv.gate.step import Place, Step
from kdrv.gate.touched import touched
from kdrv.gate.walk import LaneWalk, open_lane
from kdrv.gate.worktree import WorkTree
from kdrv.toolchain.base import Toolchain
from kdrv.toolchain.select import by_name

TEXT_KIND = "gate-text"


@dataclass(frozen=True)
class Ground:
    """What every job of a judgement has in common.

    ``repository`` is the path of the user's clone, ``bundle`` the commits that are only ours (a
    series that came by mail). ``cache`` is ``None`` where each worker shall use its own.
    """

    repository: Path
    series: Series
    base_tree: str
    toolchain: str
    policy: Policy
    bundle: bytes = field(default=b"", repr=False)
    cache: Path | None = None
    jobs: int | None = None

    def places(self) -> tuple[Place, ...]:
        """The base and each patch, in order."""
        base = Place(self.series.base, self.base_tree, "the base")
        return (base, *(Place(p.commit, p.tree, f"patch {p.number}") for p in self.series.patches))

    def context(self, ctx: Context | None) -> Context:
        """The context to work in: that of the caller where job and caller share a process."""
        if ctx:
            return ctx
        made = Context(cache=self.cache) if self.cache else Context()
        return made if self.jobs is None else replace(made, jobs=self.jobs)

    def guarded(self, ctx: Context | None, niceness: int = Limits.niceness) -> Context:
        """The context for what runs code of the patches: within the policy's limits."""
        wanted = self.policy.rules.limits
        limits = Limits(
            processes=wanted.processes,
            memory=wanted.memory * MIB,
            disk=wanted.disk * MIB,
            niceness=niceness,
        )
        made = self.context(ctx)
        return replace(made, runner=Limited(made.runner, limits))

    def git(self, ctx: Context) -> Repo:
        """Our repository with every commit of the series in it."""
        theirs = open_repo(ctx, self.repository)
        ours = borrow(ctx, theirs)
        if ours.resolve(self.series.tip) is None:
            _unbundle(ours, self.bundle, self.series, theirs.directory)
        return ours


NICENESS = {Language.RUST: Limits.niceness, Language.C: Limits.niceness + 5}
"""Of builds: side by side the Rust lane takes longer, one crate after the other; the C lane can
take what it leaves. Not of guests, whose deadlines are short."""


@dataclass(frozen=True)
class LaneReport:
    """A lane along the series: a step for the base and for each patch, and what came of it.

    ``blasts`` are per patch, for the Rust lane. ``boots`` are by the number of the patch, 0 being
    the base, and so are ``trials``, those of the drivers that were touched since the last boot;
    ``lints`` by patch too, each what was said before and after it.
    """

    lane: str
    language: Language
    steps: tuple[Step, ...]
    blasts: tuple[Blast | None, ...]
    boots: dict[int, Booted]
    lints: dict[int, tuple[Lint, Lint]]
    trials: dict[int, tuple[Trial, ...]]


def walk_lane(
    ground: Ground, lane: Lane, boots: tuple[int, ...], ctx: Context | None = None
) -> LaneReport:
    """Build the lane at the base and after each patch; boot it after those in ``boots``.

    When a boot fails, the base is booted too, and so it is with the drivers that the patches touch
    and that are tried after each boot: only what worked there can be broken.
    """
    ctx = ground.context(ctx)
    building = ground.guarded(ctx, NICENESS[lane.language])
    ctx = ground.guarded(ctx)
    git = ground.git(ctx)
    toolchain = by_name(ctx, ground.toolchain)
    deadline = ground.policy.rules.limits.minutes * 60.0
    repository = str(ground.repository)
    with (
        open_lane(building, git, repository, lane, toolchain, deadline=deadline) as walk,
        linting(ctx, walk, toolchain) as linter,
    ):
        places = ground.places()
        steps: list[Step] = []
        booted: dict[int, Booted] = {}
        trials: dict[int, tuple[Trial, ...]] = {}
        lints: dict[tuple[int, int], Future[Lint]] = {}
        for number, place in enumerate(places):
            unless_stopped()
            steps.append(walk.step(place))
            if steps[0].stopped:
                raise _no_base(lane, steps[0])
            if not steps[-1].ok:
                continue
            if number in boots:
                booted[number] = boot(ctx, walk, place, toolchain)
                if booted[number].ok and lane.language is Language.RUST:
                    folders = _drivers(ground, git, max(trials, default=0), number)
                    trials[number] = _trials(ctx, walk, place, toolchain, folders)
            # After a patch only where there is something to compare with.
            for patch in ((number,) if (number, number - 1) in lints else ()) + (number + 1,):
                if files := _rust_files(ground, lane, patch):
                    lints[patch, number] = linter.lint(place, files)
        if any(not one.ok for one in booted.values()) and 0 not in booted and steps[0].ok:
            booted[0] = boot(ctx, walk, places[0], toolchain)
        worse = {trial.folder for of in trials.values() for trial in of if trial.findings}
        if worse and steps[0].ok:
            there = (
                one for one in sorted(worse) if git.blob(places[0].commit, f"{one}/{FILENAME}")
            )
            trials[0] = _trials(ctx, walk, places[0], toolchain, tuple(there))
        blasts = _blasts(ground, git, walk, steps)
        pairs = {
            patch: (lints[patch, patch - 1].result(), after.result())
            for (patch, number), after in lints.items()
            if patch == number and (patch, patch - 1) in lints
        }
    return LaneReport(lane.name, lane.language, tuple(steps), blasts, booted, pairs, trials)


def _no_base(lane: Lane, base: Step) -> UsageError:
    return UsageError(
        f"lane {lane.name} cannot be built at the base: {base.stopped}",
        expected="a base that builds within the policy's limits",
        detail=[line for told in base.diagnostics for line in told.detail.splitlines()],
        remedy="more in [policy.limits] of kdrv.toml; to see the build: "
        "git worktree add /tmp/base BASE && kdrv build --all --kernel /tmp/base",
    )


def _drivers(ground: Ground, git: Repo, since: int, number: int) -> tuple[str, ...]:
    """The drivers that the patches after ``since`` touch, up to ``number``."""
    patches = ground.series.patches[since:number]
    return touched(git, patches[-1].commit, {path for patch in patches for path in patch.paths})


def _trials(
    ctx: Context, walk: LaneWalk, place: Place, toolchain: Toolchain, folders: tuple[str, ...]
) -> tuple[Trial, ...]:
    found = (try_driver(ctx, walk, place, toolchain, folder) for folder in folders)
    return tuple(trial for of in found for trial in of)


def _rust_files(ground: Ground, lane: Lane, number: int) -> frozenset[str]:
    """The Rust files that a patch touches, for the lane that compiles them."""
    if lane.language is not Language.RUST or not 0 < number <= len(ground.series.patches):
        return frozenset()
    paths = ground.series.patches[number - 1].paths
    return frozenset(path for path in paths if path.endswith(".rs"))


def read_text(ground: Ground, ctx: Context | None = None) -> tuple[tuple[Check, ...], ...]:
    """What can be said of each patch without building anything."""
    ctx = ground.guarded(ctx)
    git = ground.git(ctx)
    results = Results.of(ctx)
    key = digest("gate-text-1", str(git.directory))
    facts = {"repository": str(ground.repository)}
    waiting = f"the text of {ground.repository}"
    found = []
    toolchain = by_name(ctx, ground.toolchain)
    with (
        Store(ctx).workspace(TEXT_KIND, key, facts, waiting=waiting) as folder,
        ctx.events.step("reading the patches") as step,
    ):
        tree = WorkTree(git, folder)
        patches = ground.series.patches
        for patch in patches:
            unless_stopped()
            step.progress(patch.number - 1, len(patches), patch.subject)
            key = digest(release(), patch.commit, ground.policy.identity, toolchain.identity)
            checks = results.get(key, tuple[Check, ...])
            if checks is None:
                # The base's checkpatch.pl: no patch changes its own judge.
                tree.checkout(ground.series.base)
                checks = _text_checks(ctx, ground, git, tree.path, toolchain, patch)
                results.put(key, checks)
            found.append(checks)
    return tuple(found)


def _text_checks(
    ctx: Context, ground: Ground, git: Repo, tree: Path, toolchain: Toolchain, patch: Patch
) -> tuple[Check, ...]:
    policy = ground.policy
    return (
        judge_scope(policy, patch),
        *judge_message(git, patch),
        *judge_rust(policy, git, patch),
        *judge_files(ctx, toolchain, tree, git, patch, policy),
    )


def _blasts(
    ground: Ground, git: Repo, walk: LaneWalk, steps: list[Step]
) -> tuple[Blast | None, ...]:
    if walk.lane.language is not Language.RUST:
        return tuple(None for _ in ground.series.patches)
    found = []
    pairs = zip(steps, steps[1:], ground.series.patches, strict=False)
    for before, after, patch in pairs:
        if before.bindings == after.bindings and after.ok:
            found.append(Blast())
            continue
        old, new = walk.symbols(before.bindings), walk.symbols(after.bindings)
        found.append(radius.blast(old, new, git, patch.commit, after.diagnostics))
    return tuple(found)


def _unbundle(ours: Repo, bundle: bytes, series: Series, clone: Path) -> None:
    with tempfile.NamedTemporaryFile(prefix="kdrv-", suffix=".bundle") as file:
        file.write(bundle)
        file.flush()
        done = ours.run("bundle", "unbundle", file.name, check=False)
    if not done.ok or ours.resolve(series.tip) is None:
        raise UsageError(
            f"the clone {clone} on {platform.node()} lacks the base {series.base[:12]}",
            expected="a clone at the same path, with the base commit, on every worker",
            remedy=f"git -C {clone} fetch  (on {platform.node()})",
            detail=done.tail(3),
        )
