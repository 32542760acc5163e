"""The whole way once: from nothing to a Rust driver proven, with what each step took."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from kdrv.build.api import build
from kdrv.build.api import prepare as prepare_build
from kdrv.build.lane import Language
from kdrv.build.result import KernelBuild
from kdrv.core.context import Context
from kdrv.core.project import load_project
from kdrv.scaffold.api import ScaffoldRequest, create
from kdrv.testing.prepare import TestRequest, require_green
from kdrv.testing.run import TestRun, run_project
from kdrv.testing.smoke import LaneProof, prove_lane

T = TypeVar("T")
NAME = "edu-demo"
BUS = "pci"


@dataclass(frozen=True)
class Step:
    """One line of the demo's table."""

    what: str
    ok: bool
    seen: str
    seconds: float


@dataclass(frozen=True)
class Demo:
    """The whole table. ``project`` stays there to look at."""

    steps: tuple[Step, ...]
    project: Path
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether every step was good."""
        return all(step.ok for step in self.steps)


def demo(
    ctx: Context, kernel: str | None, toolchain: str, scratch: Path, *, quiet: bool = False
) -> Demo:
    """Set up, scaffold, build both lanes, boot both, run the driver's tests.

    Raises what the steps raise when one cannot be done at all.
    """
    began = time.monotonic()
    steps: list[Step] = []

    def timed(what: str, action: Callable[[], T], see: Callable[[T], tuple[bool, str]]) -> T:
        start = time.monotonic()
        result = action()
        steps.append(Step(what, *see(result), time.monotonic() - start))
        return result

    request = TestRequest(None, "qemu", kernel=kernel, toolchain=toolchain)
    # The Rust lane first: it fills the compiler's cache for the C lane.
    both = request.to_build(Language.RUST, Language.C)
    bench = timed(
        "toolchain and kernel sources",
        lambda: prepare_build(ctx, both),
        lambda b: (True, f"{b.toolchain.name} toolchain, {b.tree.origin}"),
    )
    project = ctx.cache / "demo" / NAME
    if project.exists():
        shutil.rmtree(project)
    project.parent.mkdir(parents=True, exist_ok=True)
    timed(
        f"kdrv new {NAME} --bus {BUS}",
        lambda: create(ScaffoldRequest(name=NAME, bus=BUS, directory=project.parent)),
        lambda made: (True, f"{len(made.files)} files in {project}"),
    )
    for language in both.languages:
        one = replace(both, languages=(language,))
        (lane,) = timed(
            f"lane {language.value}: build",
            partial(build, ctx, one, bench),
            lambda builds: (builds[0].ok, _built(builds[0].kernel)),
        )
        require_green(lane)
        timed(
            f"lane {language.value}: boot",
            partial(prove_lane, ctx, request, bench, lane, scratch),
            lambda proof: (proof.ok, _proven(proof)),
        )
    tests = replace(request, project=load_project(project))
    timed(
        f"kdrv test --qemu {NAME}",
        lambda: run_project(ctx, tests, (), scratch, quiet=quiet),
        lambda result: (result.ok, _tested(result)),
    )
    return Demo(tuple(steps), project, time.monotonic() - began)


def _built(kernel: KernelBuild) -> str:
    return "in the cache" if kernel.cached else f"{kernel.objects} targets"


def _proven(lane: LaneProof) -> str:
    bad = [f"{proof.name}: {proof.detail}" for proof in lane.proofs if not proof.ok]
    samples = len(lane.proofs) - 1
    return "; ".join(bad) or "reaches userspace" + (f", {samples} Rust samples" if samples else "")


def _tested(run: TestRun) -> str:
    passed = sum(case.outcome == "passed" for case in run.cases)
    return f"{passed} of {len(run.cases)} tests passed"
