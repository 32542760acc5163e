"""What the gate finds: checks of patches and of the series, breaks, and what they come to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from kdrv.build.diagnostics import Diagnostic
from kdrv.build.result import ToolchainRecord
from kdrv.gate.series import Patch, Series


class Outcome(StrEnum):
    """How a check ended. ``UNKNOWN``: it could not be judged, which is nobody's fault but ours."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Check:
    """One check of one patch, or of the series.

    ``name`` is what its column is called (``build rust``, ``checkpatch``); ``summary`` one
    sentence. ``diagnostics`` are those that are new against the parent. ``policy`` cites the line
    of the policy that it follows from, empty for what always holds. ``reproducer`` shows the
    same again. ``reused`` says that an earlier run had found it.
    """

    name: str
    outcome: Outcome
    summary: str = ""
    diagnostics: tuple[Diagnostic, ...] = ()
    detail: tuple[str, ...] = ()
    policy: str = ""
    reproducer: str = ""
    seconds: float = 0.0
    reused: bool = False


@dataclass(frozen=True)
class Use:
    """A place in a Rust file of the tree that names a C symbol."""

    file: str
    line: int
    text: str


class Changed(StrEnum):
    """What became of a symbol."""

    ADDED = "added"
    GONE = "gone"
    CHANGED = "changed"


@dataclass(frozen=True)
class SymbolChange:
    """A C symbol as Rust sees it (bindings or helpers), before and after a patch.

    ``kind`` is Rust's word (``fn``, ``struct``, ``const``, ``type``, ``static``, ``union``,
    ``enum``) or ``helper``. ``before`` and ``after`` are its text in the generated file, empty
    where there is none. ``uses`` are the Rust files that name it after the patch.
    """

    name: str
    kind: str
    changed: Changed
    before: str = ""
    after: str = ""
    uses: tuple[Use, ...] = ()


@dataclass(frozen=True)
class Blast:
    """What a patch changes of the interface between C and Rust."""

    symbols: tuple[SymbolChange, ...] = ()

    @property
    def used(self) -> tuple[SymbolChange, ...]:
        """Those that some Rust file names."""
        return tuple(symbol for symbol in self.symbols if symbol.uses)


@dataclass(frozen=True)
class Break:
    """A lane that stopped building.

    ``patch`` is the number of the one that broke it, ``mended`` of the first after which it is
    green again, ``None`` for never. ``symbols`` are the changes that the errors are about;
    ``maintainers`` answer for the Rust files that use them.
    """

    lane: str
    patch: int
    mended: int | None
    symbols: tuple[SymbolChange, ...] = ()
    maintainers: tuple[str, ...] = ()


@dataclass(frozen=True)
class PatchResult:
    """A patch and all its checks, in the order of the columns."""

    patch: Patch
    checks: tuple[Check, ...]
    blast: Blast | None = None

    @property
    def outcome(self) -> Outcome:
        """The worst of the checks."""
        return worst(self.checks)


@dataclass(frozen=True)
class GateResult:
    """A judged series.

    ``checks`` are those of the series as a whole (policy, boots). ``policy`` is the policy's name,
    ``kernel`` the version of the base. ``reproducer`` is the whole command line.
    """

    series: Series
    patches: tuple[PatchResult, ...]
    checks: tuple[Check, ...]
    breaks: tuple[Break, ...]
    policy: str
    kernel: str
    toolchain: ToolchainRecord
    seconds: float
    reproducer: str

    @property
    def outcome(self) -> Outcome:
        """The worst of everything."""
        return worst(tuple(check for _, check in self.all_checks()))

    def all_checks(self) -> Iterator[tuple[PatchResult | None, Check]]:
        """Every check with its patch, ``None`` for the series', in reading order."""
        for result in self.patches:
            for check in result.checks:
                yield result, check
        for check in self.checks:
            yield None, check


_ORDER = (Outcome.SKIP, Outcome.PASS, Outcome.WARN, Outcome.UNKNOWN, Outcome.FAIL)


def worst(checks: tuple[Check, ...]) -> Outcome:
    """The worst outcome; an unknown one is worse than a warning and less than a failure."""
    return max((check.outcome for check in checks), key=_ORDER.index, default=Outcome.PASS)
