"""Building one lane of a kernel tree.

A tree from a package cannot change, so its kernel is an entry of the content-addressed cache: same
inputs, same kernel, no make. A tree of the user's gets a build directory of its own, where make
decides what to do.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kdrv.build.configure import CONFIG, configure
from kdrv.build.diagnostics import Diagnostic, parse
from kdrv.build.explain import Explanation, explain_lane
from kdrv.build.interrupted import MARKER, guarded
from kdrv.build.lane import Lane, Language
from kdrv.build.make import Heard, Make, run
from kdrv.build.result import KernelBuild, ToolchainRecord
from kdrv.build.vetting import vet
from kdrv.core.context import Context
from kdrv.core.errors import KdrvError
from kdrv.core.process import Command
from kdrv.core.store import Entry, Store, digest
from kdrv.kernel.arch import TRAITS, Arch
from kdrv.kernel.tree import KernelTree, require_rust
from kdrv.machine.contract import KernelImage
from kdrv.toolchain.base import Toolchain

CACHED_KIND = "kernel"
WORKSPACE_KIND = "workspace"
LOG = "make.log"
COPY_DEADLINE = 600.0


class _NotGreen(KdrvError):
    """Carries the result of a failed build out of the cache's maker."""

    def __init__(self, result: KernelBuild) -> None:
        super().__init__("the lane is not green")
        self.result = result


def build_kernel(
    ctx: Context,
    tree: KernelTree,
    lane: Lane,
    toolchain: Toolchain,
    *,
    reproducer: str = "",
    seed: Path | None = None,
) -> KernelBuild:
    """Configure and build one lane; a lane that is not green is a result, not an error.

    ``seed`` is a build directory of the same tree, and of a lane much like this one, to start from
    where there is nothing yet. Raises :class:`kdrv.core.errors.UsageError` for a tree too old for
    the lane and :class:`kdrv.core.errors.SetupError` when the machine fails (disk, permissions).
    """
    if lane.language is Language.RUST:
        require_rust(tree)
    builder = _Builder(ctx, tree, lane, toolchain, reproducer, seed)
    return builder.from_cache() if tree.identity else builder.in_workspace()


def built_before(ctx: Context, tree: KernelTree, lane: Lane, toolchain: Toolchain) -> Entry | None:
    """The cache's kernel of a package's tree, if it is there."""
    return Store(ctx).find(CACHED_KIND, _key(tree, lane, toolchain))


def built_image(output: Path, arch: Arch) -> KernelImage:
    """The kernel that a green build left in its build directory."""
    return KernelImage(
        arch=arch,
        release=(output / "include/config/kernel.release").read_text().strip(),
        image=output / TRAITS[arch].image,
        vmlinux=output / "vmlinux",
        build=output,
    )


def copy_build(ctx: Context, place: Path, target: Path) -> None:
    """Copy a build directory with its files' times, by which make judges."""
    copy = Command(("cp", "-aT", "--reflink=auto", str(place), str(target)))
    ctx.runner.run(copy, deadline=COPY_DEADLINE)


def _key(tree: KernelTree, lane: Lane, toolchain: Toolchain) -> str:
    return digest("kernel-1", tree.identity, lane.identity, toolchain.identity)


class _Builder:
    def __init__(
        self,
        ctx: Context,
        tree: KernelTree,
        lane: Lane,
        toolchain: Toolchain,
        reproducer: str,
        seed: Path | None,
    ) -> None:
        self.ctx = ctx
        self.tree = tree
        self.lane = lane
        self.toolchain = toolchain
        self.reproducer = reproducer
        self.seed = seed
        self.store = Store(ctx)
        self.began = time.monotonic()

    def from_cache(self) -> KernelBuild:
        key = _key(self.tree, self.lane, self.toolchain)
        made: list[KernelBuild] = []

        def make(data: Path) -> Mapping[str, Any]:
            if not any(data.iterdir()):
                self._seed(data)
            result = self._build(data)
            made.append(result)
            if not result.ok:
                raise _NotGreen(result)
            return {**self._facts(), "objects": result.objects, "seconds": result.seconds}

        try:
            waiting = f"lane {self.lane.name} of Linux {self.tree.version}"
            entry = self.store.get(CACHED_KIND, key, make, resume=True, waiting=waiting)
        except _NotGreen as failed:
            return failed.result
        if made:
            return made[0]
        return replace(self._result(entry.data, ok=True), cached=True)

    def _seed(self, data: Path) -> None:
        """Start from the nearest kernel that is there: make then only does what differs.

        Inside the sandbox both have the same path, and make knows from its .cmd files and from
        fixdep which objects a changed setting concerns (scripts/basic/fixdep.c).
        """
        alike = {"tree": self.tree.origin, **self._kind()}
        near = [
            entry
            for entry in self.store.entries()
            if entry.kind == CACHED_KIND and alike.items() <= entry.facts.items()
        ]
        if not near:
            return
        # The one with the same lane's name differs least; of those the last used.
        best = min(near, key=lambda entry: entry.facts["lane"] != self.lane.name)
        self._copy(best.data, data, f"lane {best.facts['lane']}, built before")

    def _copy(self, place: Path, data: Path, what: str) -> None:
        with self.ctx.events.step(f"starting from {what}"):
            copy_build(self.ctx, place, data)
        for left in (MARKER, LOG):
            (data / left).unlink(missing_ok=True)

    def _kind(self) -> dict[str, Any]:
        """What two kernels must have in common for one to start from the other."""
        return {
            "arch": self.lane.arch.value,
            "llvm": self.lane.llvm,
            "debug": self.lane.debug,
            "toolchain_id": self.toolchain.identity,
        }

    def in_workspace(self) -> KernelBuild:
        key = digest("workspace-1", str(self.tree.path), self.lane.identity, self.toolchain.name)
        label = f"lane {self.lane.name} of {self.tree.path}"
        with self.store.workspace(WORKSPACE_KIND, key, self._facts(), waiting=label) as data:
            if self.seed and not any(data.iterdir()):
                self._copy(self.seed, data, "a lane of the same tree")
            return self._build(data)

    def _facts(self) -> dict[str, Any]:
        return {
            "tree": self.tree.origin,
            "version": str(self.tree.version),
            "lane": self.lane.name,
            "toolchain": self.toolchain.name,
            **self._kind(),
        }

    def _build(self, output: Path) -> KernelBuild:
        make = Make(self.tree, self.lane, self.toolchain, output, self._ccache())
        vet(output)
        with guarded(output):
            configure(self.ctx, make, self.ctx.jobs)
            vet(output)
            missing = explain_lane(self.ctx, make, output / CONFIG)
            if missing:
                return self._result(output, ok=False, missing=missing)
            goals = TRAITS[self.lane.arch].goals
            label = f"building Linux {self.tree.version}, lane {self.lane.name}"
            with self.ctx.events.step(label) as step:
                heard = Heard(step, self._usual_objects(output))
                command = make.command(goals, jobs=self.ctx.jobs)
                done = run(self.ctx, command, heard, output / LOG)
            vet(output)
        return self._result(
            output,
            ok=done.ok,
            diagnostics=parse(done.output.splitlines(), lane=self.lane.name),
            objects=heard.targets,
        )

    def _result(
        self,
        output: Path,
        *,
        ok: bool,
        missing: tuple[Explanation, ...] = (),
        diagnostics: tuple[Diagnostic, ...] = (),
        objects: int = 0,
    ) -> KernelBuild:
        return KernelBuild(
            lane=self.lane.name,
            arch=self.lane.arch,
            tree=self.tree.origin,
            version=str(self.tree.version),
            toolchain=ToolchainRecord(
                self.toolchain.name, self.toolchain.identity, self.toolchain.versions
            ),
            ok=ok,
            cached=False,
            missing=missing,
            diagnostics=diagnostics,
            image=built_image(output, self.lane.arch) if ok else None,
            objects=objects,
            seconds=time.monotonic() - self.began,
            log=output / LOG,
            reproducer=self.reproducer,
        )

    def _ccache(self) -> Path | None:
        """A compiler cache for a tree that changes; its own, so that no other can poison it.

        A package's tree is compiled once, and later lanes start from what that gave.
        """
        if self.tree.identity or "ccache" not in self.toolchain.versions:
            return None
        folder = self.ctx.cache / "ccache" / digest(str(self.tree.path))
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _usual_objects(self, output: Path) -> int:
        """How many targets a whole build of this lane makes, from the last one; 0: unknown.

        Only for a first build: how much of a warm one is to do, make itself finds out on the way.
        """
        if (output / "vmlinux").exists():
            return 0
        same: list[Entry] = [
            entry
            for entry in self.store.entries()
            if entry.kind == CACHED_KIND
            and entry.facts.get("lane") == self.lane.name
            and entry.facts.get("objects")
        ]
        return int(same[0].facts["objects"]) if same else USUAL_OBJECTS.get(self.lane.name, 0)


USUAL_OBJECTS = {"rust": 1850, "c": 1800, "rust-debug": 1900}
"""Targets of a first build of the default lanes on 7.3, for a first estimate."""
