"""What clippy and rustdoc say of the Rust files that patches touch, at each commit that matters."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from kdrv.build.diagnostics import Diagnostic
from kdrv.build.make import Make
from kdrv.core.context import Context
from kdrv.core.store import digest
from kdrv.gate.crates import Lints, Tool
from kdrv.gate.results import this_code
from kdrv.gate.walk import LaneWalk, Place
from kdrv.toolchain.base import Toolchain


@dataclass(frozen=True)
class Lint:
    """What was said at one commit of the crates that read some files.

    ``missing`` are the tools that the toolchain does not have.
    """

    clippy: tuple[Diagnostic, ...] = ()
    rustdoc: tuple[Diagnostic, ...] = ()
    missing: tuple[str, ...] = field(default=())

    def of(self, tool: Tool) -> tuple[Diagnostic, ...]:
        """What one tool said."""
        return self.clippy if tool is Tool.CLIPPY else self.rustdoc


def lint(
    ctx: Context, walk: LaneWalk, place: Place, toolchain: Toolchain, files: Collection[str]
) -> Lint:
    """Look at the crates of a commit at which the lane is green."""
    key = digest(
        "lint", this_code(), place.tree, walk.lane.identity, toolchain.identity, sorted(files)
    )
    if known := walk.results.get(key, Lint):
        return known
    walk.have(place)
    make = Make(walk.tree(place.commit), walk.lane, toolchain, walk.build)
    said: dict[Tool, tuple[Diagnostic, ...]] = {}
    missing = []
    label = f"linting at {place.label}"
    with tempfile.TemporaryDirectory(prefix="kdrv-") as scratch, ctx.events.step(label):
        for tool in Tool:
            lints = Lints(ctx, make, Path(scratch, "out"), tool)
            if not lints.available:
                missing.append(tool.program)
                continue
            told = lints.lint(files)
            said[tool] = tuple(one for crate in sorted(told) for one in told[crate])
    found = Lint(said.get(Tool.CLIPPY, ()), said.get(Tool.RUSTDOC, ()), tuple(missing))
    walk.results.put(key, found)
    return found
