"""What clippy and rustdoc say of the Rust files that patches touch, at each commit that matters."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from kdrv.build.diagnostics import Diagnostic, Level
from kdrv.build.make import Make
from kdrv.core.context import Context
from kdrv.core.release import release
from kdrv.core.stopping import answer, answering
from kdrv.core.store import digest
from kdrv.gate.crates import Compiled, Lints, Tool, content, reading
from kdrv.gate.results import Results
from kdrv.gate.step import Place
from kdrv.gate.walk import LaneWalk
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
        "lint", release(), place.tree, walk.lane.identity, toolchain.identity, sorted(files)
    )
    if known := walk.results.get(key, Lint):
        return known
    walk.have(place)
    make = Make(walk.tree(place.commit), walk.lane, toolchain, walk.build)
    crates = [(one, content(make, one)) for one in reading(make, files)]
    label = f"linting at {place.label}"
    with (
        tempfile.TemporaryDirectory(prefix="kdrv-") as scratch,
        ctx.events.step(label),
        # Each is one process that cannot use a second processor.
        ThreadPoolExecutor(len(Tool), initializer=answer, initargs=(answering(),)) as pool,
    ):

        def told(tool: Tool) -> tuple[Diagnostic, ...] | None:
            lints = Lints(ctx, make, Path(scratch, tool), tool)
            if not lints.available:
                return None
            said = (_said(walk.results, lints, tool, *crate) for crate in crates)
            return tuple(one for of_crate in said for one in of_crate)

        by_tool = dict(zip(Tool, pool.map(told, Tool), strict=True))
    missing = tuple(tool.program for tool, said in by_tool.items() if said is None)
    found = Lint(by_tool[Tool.CLIPPY] or (), by_tool[Tool.RUSTDOC] or (), missing)
    if _lasting((*found.clippy, *found.rustdoc)):
        walk.results.put(key, found)
    return found


def _said(
    results: Results, lints: Lints, tool: Tool, crate: Compiled, read: str
) -> tuple[Diagnostic, ...]:
    """What a tool says of a crate. ``read`` is a digest of all that the crate is made from: in
    whatever series it was the same, the tool said the same.
    """
    key = digest("lint-crate", release(), tool, read)
    known = results.get(key, tuple[Diagnostic, ...]) if read else None
    if known is None:
        known = lints.look(crate)
        if read and _lasting(known):
            results.put(key, known)
    return known


def _lasting(said: Iterable[Diagnostic]) -> bool:
    """Whether it would be said again: an error, of a crate that compiles, may be the machine's."""
    return not any(one.level is Level.ERROR for one in said)
