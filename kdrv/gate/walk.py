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
from dataclasses import dataclass, replace
from pathlib import Path

from kdrv.build.configure import CONFIG, STAMP, configure
from kdrv.build.diagnostics import Diagnostic, Level, parse
from kdrv.build.explain import explain_lane
from kdrv.build.interrupted import guarded, undo
from kdrv.build.lane import Lane, Language
from kdrv.build.make import BUILD_DEADLINE, Heard, Make, run
from kdrv.build.vetting import start_afresh, vet
from kdrv.core.context import Context
from kdrv.core.errors import DeadlineExceeded, KdrvError, SetupError
from kdrv.core.inside import UntrustedFile
from kdrv.core.limits import LimitExceeded
from kdrv.core.store import Store, digest
from kdrv.gate.bindings import Symbol, digest_of, pack, read_symbols, unpack
from kdrv.gate.git import Repo
from kdrv.gate.history import changes
from kdrv.gate.inputs import Inputs
from kdrv.gate.results import Results, Said
from kdrv.gate.warm import warm
from kdrv.gate.worktree import WorkTree
from kdrv.kernel.arch import TRAITS
from kdrv.kernel.kconfig import read_settings
from kdrv.kernel.tree import KernelTree, read_version
from kdrv.toolchain.base import Toolchain

CHECKED = ("C=1", "CF=-fdiagnostic-prefix")
"""sparse looks at each file that is compiled; what kbuild saves of the command stays the same."""
KIND = "gate-lane"
FORMAT = "gate-step-3"
LOG = "make.log"
_TARGET = re.compile(r"^  (?P<target>[A-Z][A-Z0-9_+]*(?: \[M\]| [LPT])? +\S.*)$")

# A compiler that could not run says nothing of the patch.
_TROUBLE = re.compile(
    r"^.*(?:Resource temporarily unavailable|No space left on device|Cannot allocate memory"
    r"|virtual memory exhausted|out of memory allocating|Killed signal terminated program"
    r"|signal: 9, SIGKILL).*$",
    re.M,
)


@dataclass(frozen=True)
class Lost:
    """A symbol that the lane asks for and the configuration does not have; see Explanation."""

    symbol: str
    summary: str
    change: str
    follows: bool


@dataclass(frozen=True)
class Step:
    """One lane at one commit.

    ``diagnostics`` is all that a build from nothing would say. ``lost`` are requested symbols that
    Kconfig refused; nothing is compiled then. ``config`` are the symbols that are on (``FOO=y``).
    ``bindings`` is the key of what Rust sees of C. ``untouched`` says in words that the lane reads
    nothing of what changed since a commit that was built. ``stopped`` says which limit the build
    went beyond. ``reused`` is true for what an earlier run had found; ``log`` is make's output.
    """

    ok: bool
    diagnostics: tuple[Diagnostic, ...]
    lost: tuple[Lost, ...]
    config: frozenset[str]
    targets: int
    seconds: float
    bindings: str = ""
    log: str = ""
    untouched: str = ""
    stopped: str = ""
    reused: bool = False


@dataclass(frozen=True)
class Place:
    """A commit on the way: its id, its content's id, what to call it (``patch 3``)."""

    commit: str
    tree: str
    label: str


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
        self._checkout = WorkTree(git, folder)
        self.build = folder / "out"
        self.build.mkdir(exist_ok=True)
        self._vet()
        self._at = folder / "built"
        self._configured = folder / "configured"
        self._log = folder / LOG
        self._said = Said(folder / "said.sqlite")
        self.results = Results.of(ctx)
        self.inputs = Inputs(self.build)

    def step(self, place: Place) -> Step:
        """The lane at a commit: known from before, proven untouched, or built now."""
        key = digest(FORMAT, place.tree, *self._identity())
        if known := self.results.get(key, Step):
            return replace(known, reused=True)
        step = self._unconcerned(place.commit) or self._built(place)
        if not step.stopped:
            self.results.put(key, step)
        return step

    def have(self, place: Place) -> None:
        """Have the kernel of a commit in the build directory, not only its result."""
        if not self._unconcerned(place.commit):
            self._built(place)

    def _identity(self) -> tuple[object, ...]:
        return self.lane.identity, self.variables, self._toolchain.identity

    @property
    def variables(self) -> tuple[str, ...]:
        """What the gate adds to make's command line: the C lane is built with extra warnings."""
        return ("W=1", *CHECKED) if self.lane.language is Language.C else ()

    @property
    def goals(self) -> tuple[str, ...]:
        """What is made."""
        return TRAITS[self.lane.arch].goals

    def _unconcerned(self, commit: str) -> Step | None:
        """The step of the commit that is built, if nothing the lane reads differs from it."""
        if not self._at.exists():
            return None
        at, key = self._at.read_text().split()
        built = self.results.get(key, Step)
        if built is None or not built.ok:
            return None  # what a failed build would have read is not known
        began = time.monotonic()
        self.inputs.read()
        if self.inputs.concerned(changes(self._git, at, commit)):
            return None
        words = f"reads nothing of what differs from {at[:12]}"
        seconds = time.monotonic() - began
        return replace(built, untouched=words, targets=0, seconds=seconds, reused=False)

    def _built(self, place: Place) -> Step:
        began, started = time.monotonic(), time.time()
        key = self._at.read_text().split()[1] if self._at.exists() else ""
        before = self.results.get(key, Step)
        self._at.unlink(missing_ok=True)
        tree = self.tree(place.commit)
        make = Make(tree, self.lane, self._toolchain, self.build)
        if not self.variables and warm(self.ctx, make):
            self._checkout.refresh()
        try:
            with guarded(self.build):
                self._configure(make, place.commit)
                vet(self.build)
                lost = self._lost(make)
                heard, ok = (0, False) if lost else self._made(make, place)
                vet(self.build)
        except (LimitExceeded, DeadlineExceeded, UntrustedFile) as error:
            if isinstance(error, LimitExceeded) and error.what.startswith("spare"):
                raise  # the machine was short of it, whoever took it
            undo(self.build, started)
            self._vet()
            return self._stopped(error, time.monotonic() - began)
        step = Step(
            ok=ok,
            diagnostics=() if lost else self._diagnostics(),
            lost=lost,
            config=_on(self.build / CONFIG),
            targets=heard,
            seconds=time.monotonic() - began,
            bindings=self._bindings(before.bindings if before else "") if not lost else "",
            log="" if lost else str(self._log),
        )
        if not lost:
            key = digest(FORMAT, place.tree, *self._identity())
            self._at.write_text(f"{place.commit} {key}")
        return step

    def _vet(self) -> None:
        """Begin anew if the build directory is not to be trusted."""
        try:
            vet(self.build)
        except UntrustedFile as error:
            self.ctx.events.note(f"lane {self.lane.name} is built anew: {error.message}")
            start_afresh(self.ctx, self.build)

    def _stopped(self, error: KdrvError, seconds: float) -> Step:
        """A build that had to be stopped: that is a verdict, and not kept."""
        detail = "\n".join(error.detail)
        told = Diagnostic("kdrv", Level.ERROR, error.message, lane=self.lane.name, detail=detail)
        return Step(False, (told,), (), frozenset(), 0, seconds, stopped=error.message)

    def tree(self, commit: str) -> KernelTree:
        """The work tree, as it is at a commit."""
        self._checkout.checkout(commit)
        path = self._checkout.path
        return KernelTree(path, read_version(path), origin=f"commit {commit[:12]}")

    def _configure(self, make: Make, commit: str) -> None:
        """Make .config anew where it may come out otherwise than it did last time."""
        last = self._configured.read_text() if self._configured.exists() else ""
        if not last or self._kconfig_differs(last, commit):
            self._configured.unlink(missing_ok=True)
            (self.build / STAMP).unlink(missing_ok=True)
        configure(self.ctx, make, self.ctx.jobs)
        self._configured.write_text(commit)

    def _kconfig_differs(self, at: str, commit: str) -> bool:
        self.inputs.read()
        paths = {path for change in changes(self._git, at, commit) for path in change.paths}
        return any(path in self.inputs.kconfig or "Kconfig" in path for path in paths)

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
        if not done.ok and (trouble := _TROUBLE.search(done.output)):
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
        key = digest("bindings-1", digest_of(self.build), earlier)
        if self.results.get(key, bytes) is None:
            self.results.put(key, pack(read_symbols(self.build, self.symbols(earlier))))
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
