"""What one run showed: the operations' moments, the bus, the console, what was left."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from kdrv.machine.reports import Report
from kdrv.sim.faults import Fired
from kdrv.sim.trace import Record

PROBING = frozenset({"load", "bind", "unload_and_load"})
"""Operations in which a driver may be bound to its device."""

EDGE = "edge"
"""The phase in which a driver is given memory that ends too early."""


class Outcome(StrEnum):
    """How an operation went."""

    OK = "ok"
    ERROR = "error"
    BLOCKED = "blocked"
    """It waited for something that did not come, and could be interrupted."""
    HUNG = "hung"
    """It did not come back, and could not be interrupted."""
    DIED = "died"
    """The kernel killed the calling process, or ended."""
    WRONG = "wrong"
    """Its own assertion failed."""


@dataclass(frozen=True)
class Entry:
    """A call into the kernel. Times are nanoseconds of virtual time."""

    what: str
    began: int
    ended: int


@dataclass(frozen=True)
class Moment:
    """One operation of a run. Times are nanoseconds of virtual time.

    ``value`` is what it gave, as plain data; ``errno`` the name of its error, such as ``EIO``.
    ``phase`` is where in the run it was done: ``load``, ``plan``, ``serve``, ``edge``,
    ``part``, ``unload``. ``entries`` are the calls of which it was made.
    """

    index: int
    does: str
    arguments: Mapping[str, Any]
    actor: int
    began: int
    ended: int
    outcome: Outcome
    phase: str = "plan"
    value: Any = None
    errno: str = ""
    words: str = ""
    entries: tuple[Entry, ...] = ()

    def story(self) -> str:
        """The moment in a line."""
        from kdrv.explore.plan import brief

        shown = ", ".join(f"{name}={brief(value)}" for name, value in self.arguments.items())
        what = self.errno or ("" if self.outcome is Outcome.OK else self.outcome.value)
        gave = what or brief(self.value)
        told = f": {self.words.splitlines()[0]}" if self.words else ""
        took = (self.ended - self.began) / 1e6
        return f"{self.does}({shown}) -> {gave}{told}   [{took:.3f} ms]"


@dataclass(frozen=True)
class Violation:
    """A property, by ``name``, that did not hold.

    ``place`` is what tells this bug from others of the same property: crash frames, an operation,
    the first bad event. ``at`` is when, in nanoseconds of virtual
    time.
    """

    name: str
    words: str
    place: str
    detail: tuple[str, ...] = ()
    at: int = 0

    @property
    def fingerprint(self) -> str:
        """A digest of the property and the place."""
        return hashlib.sha256(f"{self.name}|{self.place}".encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Line:
    """A line of the console and the virtual time, in nanoseconds, at which it was seen."""

    at: int
    text: str


@dataclass(frozen=True)
class Unrest:
    """What a device still did, or may do, when its driver had let go of it."""

    at: int
    device: str
    words: str


@dataclass(frozen=True)
class History:
    """Everything one run showed.

    ``hash`` is over console and device trace: the same plan gives the same one. ``states`` are the
    devices' states at the end. ``left`` is what the driver left behind, ``stray`` are accesses of
    devices to memory that was not mapped for them, in words. ``covered`` are
    offsets into the driver's code that were reached. ``fault`` tells of a device model that ended
    the run. ``unrest`` was seen after unbinding, ``unanswered`` are interrupts not acknowledged
    once all was quiet. ``loaded`` is whether the driver could be loaded, ``lasted`` nanoseconds of
    virtual time.
    """

    moments: tuple[Moment, ...]
    trace: tuple[Record, ...]
    console: tuple[Line, ...]
    reports: tuple[Report, ...]
    fired: tuple[Fired, ...]
    silent: tuple[str, ...]
    left: tuple[str, ...]
    stray: tuple[str, ...]
    hash: str
    lasted: int
    loaded: bool
    ended: str = ""
    fault: tuple[str, str, tuple[str, ...]] | None = None
    serves: bool | None = None
    unrest: tuple[Unrest, ...] = ()
    unanswered: tuple[str, ...] = ()
    telling: frozenset[str] = frozenset()
    """Faults that a driver of these devices can notice although in general none can."""
    serving: frozenset[str] = frozenset()
    """Operations that must succeed where nothing is wrong."""
    prompt: bool = False
    """Whether devices took no longer for anything than they usually do."""
    covered: frozenset[int] = frozenset()
    states: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
