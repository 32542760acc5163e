"""What every feature is handed first: where to work, how to run, whom to tell."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from kdrv.core.events import Events
from kdrv.core.process import LocalRunner, Runner


def default_cache() -> Path:
    """``$XDG_CACHE_HOME/kdrv``, or ``~/.cache/kdrv`` (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "kdrv"


@dataclass(frozen=True)
class Context:
    """The surroundings of a piece of work; made once at the edge, passed down unchanged.

    ``cache`` is the root of everything kdrv keeps between runs, ``beneath`` another one whose
    finished entries are used and never written; ``jobs`` is how many processes a build may use at
    once; ``mirror`` is a Debian archive to use in place of the one apt names.
    """

    cache: Path = field(default_factory=default_cache)
    beneath: Path | None = None
    runner: Runner = field(default_factory=LocalRunner)
    events: Events = field(default_factory=Events)
    jobs: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    mirror: str = ""
