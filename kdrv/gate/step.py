"""What is known of one lane at one commit."""

from __future__ import annotations

from dataclasses import dataclass

from kdrv.build.diagnostics import Diagnostic


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
    ``bindings`` is the key of what Rust sees of C, ``inputs`` that of what a build that went well
    has read. ``untouched`` says in words that the lane reads
    nothing of what changed since a commit that was built. ``stopped`` says why the build could not
    be made, or not to its end: a limit, or a tree without a configuration. ``reused`` is true for
    what an earlier run had found; ``log`` is make's output.
    """

    ok: bool
    diagnostics: tuple[Diagnostic, ...]
    lost: tuple[Lost, ...]
    config: frozenset[str]
    targets: int
    seconds: float
    bindings: str = ""
    inputs: str = ""
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
