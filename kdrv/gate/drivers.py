"""Trying the drivers that a series touches: their tests in QEMU, a short campaign by simulation.

Built like everything else, in the sandbox and from the tree as it is at a commit. The tests are
Python, and a patch's: they run in a sandbox of their own (:mod:`kdrv.gate.trial`).
"""

from __future__ import annotations

import os
import pickle
import shlex
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from kdrv.build.api import BuildRequest, LaneBuild, Workbench, build
from kdrv.build.lane import Language
from kdrv.core.context import Context
from kdrv.core.errors import DeadlineExceeded, KdrvError, SetupError, WorkFailed
from kdrv.core.inside import inside, open_inside, read_text_inside, understood
from kdrv.core.limits import LimitExceeded, unless_machine_short
from kdrv.core.project import FILENAME, Project, load_project
from kdrv.core.release import release
from kdrv.core.store import digest
from kdrv.gate.step import Place
from kdrv.gate.trial import ENDED, SEEDS, TASK, TOLD, Finding, Task, Told
from kdrv.gate.walk import LaneWalk
from kdrv.kernel.arch import Arch
from kdrv.testing.prepare import SIM, require_green
from kdrv.toolchain.base import Toolchain
from kdrv.toolchain.sandbox import NOBODY, python_sandboxed

QEMU = "qemu"
NEEDED = (
    *("toolchain", "foreign", "initramfs", "qemu-devices", "acpi-table", "device-tree"),
    *("sim-launcher", "sim-shim", "sim-tree"),
)
"""What of the cache a machine may need to boot."""
TOLD_LIMIT = 4 << 20
TRIAL_DEADLINE = 1800.0
READY, STOPPED = "ready", "stopped"
"""Findings that are no test's and no bug's: the driver did not come as far, or ran too long."""
UNSURE = frozenset({READY, STOPPED, ENDED})
"""What may come out otherwise the next time."""


@dataclass(frozen=True)
class Trial:
    """One driver in one world at one commit.

    ``folder`` is its project's, in the tree; the rest is as in :class:`~kdrv.gate.trial.Told`.
    """

    folder: str
    world: str
    tried: int = 0
    findings: tuple[Finding, ...] = ()
    refused: str = ""
    seconds: float = 0.0
    reused: bool = False

    @property
    def command(self) -> str:
        """What shows the same in a checkout of the commit."""
        if self.world == SIM:
            limits = ("--kernels", "plain", "--seeds", str(SEEDS), "--jobs", "1")
            return shlex.join(("kdrv", "explore", "--kernel", ".", *limits, self.folder))
        return shlex.join(("kdrv", "test", "--qemu", "--kernel", ".", self.folder))


def try_driver(
    ctx: Context, walk: LaneWalk, place: Place, toolchain: Toolchain, folder: str
) -> tuple[Trial, ...]:
    """Try a driver in both worlds at a commit at which the lane is green, or know it from before.

    Raises :class:`SetupError` when the machine cannot.
    """
    walk.have(place)
    tree = walk.tree(place.commit)
    trials = []
    here = walk.lane.arch
    arches = {SIM: Arch.UM} if here is Arch.UM else {QEMU: here, SIM: Arch.UM}
    for world, arch in arches.items():
        key = digest(release(), place.tree, folder, world, walk.lane.identity, toolchain.identity)
        trial = walk.results.get(key, Trial)
        if trial:
            trial = replace(trial, reused=True)
        else:
            bench = Workbench(tree, toolchain, seed=walk.build if arch is here else None)
            trial = _tried(ctx, bench, folder, world, arch)
            if UNSURE.isdisjoint(finding.name for finding in trial.findings):
                walk.results.put(key, trial)
        trials.append(trial)
    return tuple(trials)


def _tried(ctx: Context, bench: Workbench, folder: str, world: str, arch: Arch) -> Trial:
    began = time.monotonic()
    with ctx.events.step(f"trying {folder} in {world}"):
        try:
            with understood(f"the project in {folder}"):
                project = _project(bench.tree.path, folder)
                built = _built(ctx, bench, project, world, arch)
            told = _told(ctx, Task(project.root, world, bench, built, ctx.cache))
        except _Refused as refused:
            told = Told(refused=refused.message)
        except KdrvError as error:
            unless_machine_short(error)
            told = Told(findings=(Finding(READY, error.message),))
    seconds = time.monotonic() - began
    return Trial(folder, world, told.tried, told.findings, told.refused, seconds)


class _Refused(KdrvError):
    """There is nothing to try in this world."""


def _project(tree: Path, folder: str) -> Project:
    """The project in a folder of the tree, that has to stay in the tree. Raises KdrvError."""
    root = inside(tree, tree / folder)
    open_inside(tree, root / FILENAME, TOLD_LIMIT).close()
    project = load_project(root)
    if project.module_dir:
        inside(tree, project.module_dir)
    return project


def _built(ctx: Context, bench: Workbench, project: Project, world: str, arch: Arch) -> LaneBuild:
    """The driver with the Rust lane's kernel, which can load both kinds."""
    request = BuildRequest(
        kernel=str(bench.tree.path),
        toolchain=bench.toolchain.name,
        languages=(Language.RUST,),
        arch=arch,
        instrument=world == SIM,
    )
    (built,) = build(ctx, request.for_project(project, keep_languages=True), bench)
    if world == SIM and built.kernel.missing:
        raise _Refused(f"User Mode Linux cannot have it: {built.kernel.missing[0].summary}")
    require_green(built)
    return built


def _told(ctx: Context, task: Task) -> Told:
    """Do the task where it can do no harm."""
    with tempfile.TemporaryDirectory(prefix="kdrv-") as scratch:
        folder = Path(scratch)
        (folder / TASK).write_bytes(pickle.dumps(task))
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        modules = task.build.module.modules if task.build.module else ()
        assert task.build.kernel.image
        shown = [task.bench.tree.path, task.build.kernel.image.build]
        shown += [path.parent for path in modules[:1]]
        shown += [ctx.cache / kind for kind in NEEDED]
        argv = [sys.executable, "-m", "kdrv.gate.trial", scratch]
        command = python_sandboxed(argv, shown=shown, writable=folder)
        try:
            done = ctx.runner.run(command, deadline=TRIAL_DEADLINE, check=False)
        except (LimitExceeded, DeadlineExceeded) as error:
            unless_machine_short(error)
            return Told(findings=(Finding(STOPPED, error.message),))
        try:
            return msgspec.json.decode(read_text_inside(folder, Path(TOLD), TOLD_LIMIT), type=Told)
        except (OSError, WorkFailed, msgspec.DecodeError, RecursionError):
            if done.output.startswith(("bwrap: ", "setpriv: ")):
                raise SetupError(
                    "this machine cannot make the sandbox in which a patch's tests run",
                    expected="a bubblewrap (and for root, setpriv) that may make namespaces",
                    remedy="kdrv gate --boot never, or: kdrv doctor",
                    detail=done.tail(3),
                    reproducer=command.shell(),
                ) from None
            said = " / ".join(done.tail(3)) or "nothing"
            words = f"ended with status {done.status} and without a result, saying {said}"
            return Told(findings=(Finding(ENDED, words),))
