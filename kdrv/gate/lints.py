"""What clippy and rustdoc say of the Rust files that patches touch, at each commit that matters."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import BoundedSemaphore, Event

from kdrv.build.diagnostics import Diagnostic, Level
from kdrv.build.make import Make
from kdrv.core.context import Context
from kdrv.core.inside import UntrustedFile, understood
from kdrv.core.release import release
from kdrv.core.stopping import answer, answering
from kdrv.core.store import digest, remove_tree
from kdrv.gate.crates import Compiled, Lints, Tool, content, freeze, reading
from kdrv.gate.results import Results
from kdrv.gate.step import Place
from kdrv.gate.walk import LaneWalk
from kdrv.toolchain.base import Toolchain

COPIES = "lint"
MOST_COPIES = 4
"""Of how many commits there may be copies at once; one takes some 200 MB."""


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


class Linter:
    """Looks at crates beside the lane, which goes on to its next commits: at copies of all that
    they are made from, in a folder of the lane's place.
    """

    def __init__(self, walk: LaneWalk, toolchain: Toolchain, ctx: Context, pool: Executor) -> None:
        self._ctx = ctx
        self._walk = walk
        self._toolchain = toolchain
        self._pool = pool
        self._copies = BoundedSemaphore(MOST_COPIES)
        self._folder = walk.folder / COPIES

    def lint(self, place: Place, files: Collection[str]) -> Future[Lint]:
        """What is said of the crates of a commit at which the lane is green, once it is known."""
        walk = self._walk
        key = digest(
            *("lint", release(), place.tree, sorted(files)),
            *(walk.lane.identity, self._toolchain.identity),
        )
        if known := walk.results.get(key, Lint):
            return _known(known)
        walk.have(place)
        make = Make(walk.tree(place.commit), walk.lane, self._toolchain, walk.build)
        self._copies.acquire()
        copies = Path(tempfile.mkdtemp(dir=self._folder))
        try:
            with understood(f"what {place.label} left in lane {walk.lane.name}"):
                crates = reading(make, files)
                frozen = freeze(make, crates, copies)
        except BaseException as error:
            self._give_back(copies)
            if not isinstance(error, UntrustedFile):
                raise
            return _known(Lint((Diagnostic(Tool.CLIPPY, Level.ERROR, error.message),)))
        return self._pool.submit(self._look, key, place, frozen, crates, copies)

    def _give_back(self, copies: Path) -> None:
        try:
            remove_tree(copies)
        finally:
            self._copies.release()

    def _look(
        self, key: str, place: Place, make: Make, crates: Sequence[Compiled], copies: Path
    ) -> Lint:
        """Look at crates in a place where they are copied; the copies are removed."""
        try:
            read = [(one, content(make, one)) for one in crates]
            with (
                self._ctx.events.step(f"linting at {place.label}"),
                # Each is one process that cannot use a second processor.
                ThreadPoolExecutor(len(Tool), initializer=answer, initargs=(answering(),)) as pool,
            ):

                def told(tool: Tool) -> tuple[Diagnostic, ...] | None:
                    lints = Lints(self._ctx, make, copies / tool, tool)
                    if not lints.available:
                        return None
                    said = (_said(self._walk.results, lints, tool, *crate) for crate in read)
                    return tuple(one for of_crate in said for one in of_crate)

                by_tool = dict(zip(Tool, pool.map(told, Tool), strict=True))
        finally:
            self._give_back(copies)
        missing = tuple(tool.program for tool, said in by_tool.items() if said is None)
        found = Lint(by_tool[Tool.CLIPPY] or (), by_tool[Tool.RUSTDOC] or (), missing)
        if _lasting((*found.clippy, *found.rustdoc)):
            self._walk.results.put(key, found)
        return found


def _known(lint: Lint) -> Future[Lint]:
    done: Future[Lint] = Future()
    done.set_result(lint)
    return done


@contextmanager
def linting(ctx: Context, walk: LaneWalk, toolchain: Toolchain) -> Iterator[Linter]:
    """A linter for the length of a block; at its end what still runs is ended, and not waited for
    to the end.
    """
    over, asked = Event(), answering()
    pool = ThreadPoolExecutor(
        1, "kdrv-lint", initializer=answer, initargs=(lambda: over.is_set() or asked(),)
    )
    copies = walk.folder / COPIES
    remove_tree(copies)  # of a run that was killed
    copies.mkdir()
    try:
        yield Linter(walk, toolchain, ctx, pool)
    finally:
        over.set()
        pool.shutdown(cancel_futures=True)
        remove_tree(copies)


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
