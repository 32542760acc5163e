"""Walking one lane along a series: a warm build directory, and each commit built once.

The build directory stays from commit to commit and from run to run. make does what changed; what
it said of the targets it left alone is remembered (:class:`kdrv.gate.results.Said`). A commit whose
changes the lane does not read is not built at all, and one that any earlier run has built, in
whatever series, is taken from the results.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, replace
from functools import cached_property
from pathlib import Path

from kdrv.build.configure import CONFIG, STAMP, Unconfigurable, configure
from kdrv.build.diagnostics import Diagnostic, Level, parse
from kdrv.build.explain import explain_lane
from kdrv.build.interrupted import guarded, undo
from kdrv.build.lane import Lane, Language
from kdrv.build.make import BUILD_DEADLINE, Heard, Make, install, run
from kdrv.build.vetting import start_afresh, vet
from kdrv.core.context import Context
from kdrv.core.errors import (
    CommandFailed,
    DeadlineExceeded,
    KdrvError,
    SetupError,
    UsageError,
    WorkFailed,
)
from kdrv.core.inside import UntrustedFile, read_text_inside, understood
from kdrv.core.limits import LimitExceeded, unless_machine_short
from kdrv.core.store import Store, digest, write_atomic
from kdrv.gate import rustc_memo
from kdrv.gate.bindings import Symbol, digest_of, pack, read_symbols, unpack
from kdrv.gate.git import Repo
from kdrv.gate.history import changes
from kdrv.gate.inputs import Inputs, Reader
from kdrv.gate.results import Results, Said
from kdrv.gate.step import Lost, Place, Step
from kdrv.gate.warm import warm
from kdrv.gate.worktree import WorkTree
from kdrv.kernel.arch import TRAITS
from kdrv.kernel.kconfig import read_settings
from kdrv.kernel.tree import KernelTree, version_in
from kdrv.toolchain.base import Toolchain

CHECKED = ("C=1", "CF=-fdiagnostic-prefix")
"""sparse looks at each file that is compiled; what kbuild saves of the command stays the same."""
KIND = "gate-lane"
FORMAT = "gate-step-4"
LOG = "make.log"
PYTHON_DEADLINE = 60.0
MAKEFILE_LIMIT = 1 << 20
_TARGET = re.compile(r"^  (?P<target>[A-Z][A-Z0-9_+]*(?: \[M\]| [LPT])? +\S.*)$")

# A compiler that could not run says nothing of the patch; a line of source that it shows can say
# anything (``12 | pr_err("No space left on device");``), as can an #error.
TROUBLE = re.compile(
    r"^(?!\s*\d*\s*\|)(?!.*#(?:error|warning)\b).*(?:Resource temporarily unavailable"
    r"|No space left on device|Cannot allocate memory|virtual memory exhausted"
    r"|out of memory allocating|Killed signal terminated program|signal: 9, SIGKILL"
    r"|\] (?:Killed|Error 137)$).*$",
    re.M,
)


class Unbuildable(WorkFailed):
    """A commit that make cannot even be asked to build."""


_VERDICTS = (
    LimitExceeded,
    DeadlineExceeded,
    UntrustedFile,
    Unbuildable,
    Unconfigurable,
    UsageError,
)
"""What a commit can do to its own build; everything else is the machine's or the caller's."""


class LaneWalk:
    """One lane's build directory and work tree, held for the length of a ``with`` block."""

    def __init__(
        self,
        ctx: Context,
        git: Repo,
        lane: Lane,
        toolchain: Toolchain,
        folder: Path,
        deadline: float,
    ) -> None:
        self.ctx = ctx
        self.lane = lane
        self.deadline = deadline
        self._git = git
        self._toolchain = toolchain
        self.folder = folder
        self._checkout = WorkTree(git, folder)
        self.build = folder / "out"
        self.build.mkdir(exist_ok=True)
        self._vet()
        self._at = folder / "built"
        self._configured = folder / "configured"
        self._log = folder / LOG
        self._said = Said(folder / "said.sqlite")
        self.results = Results.of(ctx)
        self._reader = Reader(self.build)
        self._before: tuple[str, Step] | None = None

    @cached_property
    def _programs(self) -> Path | None:
        """What comes before rustc, if there is a Python for it among the toolchain's programs.

        Not asked before something is built: most lanes of most runs are known.
        """
        if self.lane.language is not Language.RUST:
            return None
        tried = f"import sys; sys.exit(sys.version_info < {rustc_memo.PYTHON})"
        command = self._toolchain.command(("python3", "-I", "-c", tried))
        if not self.ctx.runner.run(command, deadline=PYTHON_DEADLINE, check=False).ok:
            return None
        install(self.folder / "bin", "rustc", rustc_memo)
        return self.folder / "bin"

    def step(self, place: Place) -> Step:
        """The lane at a commit: known from before, proven untouched, or built now."""
        key = self._key(place)
        if known := self.results.get(key, Step):
            step = replace(known, reused=True)
        else:
            references = (self._before, self._last_built())
            found = (self._unconcerned(place.commit, one) for one in references if one)
            step = next(filter(None, found), None) or self._built(place)
            if not step.stopped:
                self.results.put(key, step)
        self._before = place.commit, step
        return step

    def have(self, place: Place) -> None:
        """Have the kernel of a commit that is green in the build directory, not only its result.

        Raises :class:`SetupError` when it does not build this time.
        """
        built = self._last_built()
        if built and self._unconcerned(place.commit, built):
            return
        step = self._built(place)
        if not step.ok:
            raise SetupError(
                f"{place.label} was green in lane {self.lane.name} and does not build now: "
                f"{step.stopped or step.diagnostics[0].message}",
                expected="the same commit to build as it did",
                remedy="kdrv gate once more: it goes on where it stopped",
            )

    def _key(self, place: Place) -> str:
        """Under which the step at a commit is kept: all that it follows from."""
        lane = (self.lane.identity, self.variables, self._toolchain.identity)
        return digest(FORMAT, place.tree, *lane)

    @property
    def variables(self) -> tuple[str, ...]:
        """What the gate adds to make's command line: the C lane is built with extra warnings."""
        return ("W=1", *CHECKED) if self.lane.language is Language.C else ()

    @property
    def goals(self) -> tuple[str, ...]:
        """What is made."""
        return TRAITS[self.lane.arch].goals

    def _unconcerned(self, commit: str, reference: tuple[str, Step]) -> Step | None:
        """The step of another commit, if nothing that its build has read differs from it."""
        at, known = reference
        inputs = self.results.get(known.inputs, Inputs)
        if inputs is None:
            return None  # what a failed build would have read is not known
        if self._git.resolve(at) is None:
            return None  # amended since, and collected
        began = time.monotonic()
        if inputs.concerned(changes(self._git, at, commit)):
            return None
        words = f"reads nothing of what differs from {at[:12]}"
        seconds = time.monotonic() - began
        return replace(known, untouched=words, targets=0, seconds=seconds, reused=False)

    def _last_built(self) -> tuple[str, Step] | None:
        """The commit that stands in the build directory, and its step."""
        commit, _, key = (self._at.read_text() if self._at.exists() else "").partition(" ")
        step = self.results.get(key, Step)
        return (commit, step) if step else None

    def _built(self, place: Place) -> Step:
        began, started = time.monotonic(), time.time()
        before = self._last_built()
        self._at.unlink(missing_ok=True)
        try:
            make = Make(
                self.tree(place.commit),
                self.lane,
                self._toolchain,
                self.build,
                programs=self._programs,
            )
            if not self.variables and warm(self.ctx, make):
                self._checkout.refresh()
            left = f"what {place.label} left in lane {self.lane.name}"
            with guarded(self.build):
                with understood(left):
                    self._configure(make, place.commit)
                    vet(self.build)
                    lost = self._lost(make)
                targets, ok = (0, False) if lost else self._made(make, place)
                vet(self.build)
            with understood(left):
                step = self._read(targets, lost, before, ok=ok)
        except _VERDICTS as error:
            unless_machine_short(error)
            undo(self.build, started)
            self._vet()
            return self._stopped(error, time.monotonic() - began)
        step = replace(step, seconds=time.monotonic() - began)
        if not lost:
            write_atomic(self._at, f"{place.commit} {self._key(place)}")
        return step

    def _read(
        self, targets: int, lost: tuple[Lost, ...], before: tuple[str, Step] | None, *, ok: bool
    ) -> Step:
        """What a build left; ``before`` is what stood there earlier."""
        config = _on(self.build / CONFIG)
        if lost:
            return Step(ok, (), lost, config, targets, 0.0)
        return Step(
            ok,
            self._diagnostics(),
            lost,
            config,
            targets,
            0.0,
            bindings=self._bindings(before[1].bindings if before else ""),
            inputs=self._inputs() if ok else "",
            log=str(self._log),
        )

    def _vet(self) -> None:
        """Begin anew if the build directory is not to be trusted."""
        try:
            vet(self.build)
        except UntrustedFile as error:
            self.ctx.events.note(f"lane {self.lane.name} is built anew: {error.message}")
            start_afresh(self.build)

    def _stopped(self, error: KdrvError, seconds: float) -> Step:
        """A build that had to be stopped: that is a verdict, and not kept."""
        detail = "\n".join(error.detail)
        told = Diagnostic("kdrv", Level.ERROR, error.message, lane=self.lane.name, detail=detail)
        return Step(False, (told,), (), frozenset(), 0, seconds, stopped=error.message)

    def tree(self, commit: str) -> KernelTree:
        """The work tree, as it is at a commit.

        Raises :class:`Unbuildable` for one that no file system takes, or whose top Makefile is no
        kernel's.
        """
        path = self._checkout.path
        try:
            self._checkout.checkout(commit)
        except CommandFailed as error:
            said = "\n".join(error.detail)
            if TROUBLE.search(said):
                raise
            raise Unbuildable("git cannot check the commit out", detail=error.detail) from error
        try:
            text = read_text_inside(path, Path("Makefile"), MAKEFILE_LIMIT)
            return KernelTree(path, version_in(text, path), origin=f"commit {commit[:12]}")
        except (OSError, UntrustedFile, UsageError) as error:
            raise Unbuildable(f"the tree has no Makefile of a kernel: {error}") from error

    def _configure(self, make: Make, commit: str) -> None:
        """Make .config anew where it may come out otherwise than it did last time."""
        last = self._configured.read_text() if self._configured.exists() else ""
        if not last or self._kconfig_differs(last, commit):
            self._configured.unlink(missing_ok=True)
            (self.build / STAMP).unlink(missing_ok=True)
        configure(self.ctx, make, self.ctx.jobs)
        write_atomic(self._configured, commit)

    def _kconfig_differs(self, at: str, commit: str) -> bool:
        if self._git.resolve(at) is None:
            return True
        known = self._reader.kconfig()
        paths = {path for change in changes(self._git, at, commit) for path in change.paths}
        return any(path in known or "Kconfig" in path for path in paths)

    def _lost(self, make: Make) -> tuple[Lost, ...]:
        found = explain_lane(self.ctx, make, self.build / CONFIG)
        return tuple(Lost(one.symbol, one.summary, one.change, bool(one.follows)) for one in found)

    def _made(self, make: Make, place: Place) -> tuple[int, bool]:
        """Run make, going on after errors: all that a patch breaks is to be told."""
        label = f"building {place.label}, lane {self.lane.name}"
        with self.ctx.events.step(label) as step, self._said.listening() as listener:
            heard = Heard(step)

            def line(text: str) -> None:
                heard.line(text)
                target = _TARGET.match(text)
                listener.line(text, target["target"] if target else None)

            command = make.command(["-k", *self.variables, *self.goals], jobs=self.ctx.jobs)
            done = run(self.ctx, command, heard, self._log, on_line=line, deadline=self.deadline)
        if not done.ok and (trouble := TROUBLE.search(done.output)):
            raise SetupError(
                f"the machine could not go on building {place.label}, lane {self.lane.name}: "
                f"{trouble.group().strip()}",
                expected="enough processes, memory and disk for a kernel build",
                remedy="kdrv gate once more: it goes on where it stopped",
                detail=done.tail(5),
            )
        return heard.targets, done.ok

    def _bindings(self, earlier: str) -> str:
        """Keep what Rust sees of C now; ``earlier`` is the key of what it saw before."""
        if self.lane.language is not Language.RUST:
            return ""
        key = digest("bindings-2", digest_of(self.build, earlier))
        if self.results.get(key, bytes) is None:
            self.results.put(key, pack(read_symbols(self.build, self.symbols(earlier))))
        return key

    def _inputs(self) -> str:
        """Keep what the build has read."""
        inputs = self._reader.read()
        key = digest("inputs-1", *(sorted(names) for names in astuple(inputs)))
        if self.results.get(key, Inputs) is None:
            self.results.put(key, inputs)
        return key

    def symbols(self, key: str) -> dict[str, Symbol]:
        """The symbols under a key of :attr:`Step.bindings`."""
        packed = self.results.get(key, bytes)
        return unpack(packed) if packed else {}

    def _diagnostics(self) -> tuple[Diagnostic, ...]:
        lines: Iterator[str] = (
            line for text in self._said.all().values() for line in text.splitlines()
        )
        return parse(lines, lane=self.lane.name)


@contextmanager
def open_lane(
    ctx: Context,
    git: Repo,
    repository: str,
    lane: Lane,
    toolchain: Toolchain,
    *,
    deadline: float = BUILD_DEADLINE,
) -> Iterator[LaneWalk]:
    """The lane's place in the cache, locked while in use; one for each repository.

    ``deadline`` is how many seconds one build may take.
    """
    key = digest("gate-lane-1", repository, lane.identity, toolchain.identity)
    facts = {"repository": repository, "lane": lane.name, "toolchain": toolchain.name}
    waiting = f"lane {lane.name} of {repository}"
    with Store(ctx).workspace(KIND, key, facts, waiting=waiting) as folder:
        yield LaneWalk(ctx, git, lane, toolchain, folder, deadline)


def _on(config: Path) -> frozenset[str]:
    settings: Sequence[str] = [
        f"{one.symbol}={one.value}" for one in read_settings(config).values() if one.value != "n"
    ]
    return frozenset(settings)
