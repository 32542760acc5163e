"""A report as a record, and the fingerprint that makes two of them the same fault."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from kdrv.machine.reports.frames import Frame, culprits, place
from kdrv.machine.reports.kinds import Kind

_VALUE = re.compile(r"0x[0-9a-fA-F]+|\b[0-9a-f]{8,}\b|\d+")
_TITLE_IS_CLASS = frozenset(
    {
        *(
            Kind.RUST_PANIC,
            Kind.KASAN,
            Kind.KFENCE,
            Kind.KMSAN,
            Kind.KCSAN,
            Kind.UBSAN,
            Kind.LOCKDEP,
            Kind.PANIC,
        ),
        *(Kind.SLAB, Kind.DMA, Kind.REFCOUNT, Kind.LIST, Kind.OBJECTS, Kind.NO_INIT),
    }
)
"""Kinds whose title tells one fault from another at the same place."""


@dataclass(frozen=True)
class Report:
    """One complaint of the kernel.

    ``title`` is the complaint in the kernel's own words, without addresses. ``frames`` is the
    stack, innermost first, without the unwinder's guesses. ``where`` is file and line, if the
    kernel said it. ``cpu`` is -1, ``task`` and ``taint`` are empty, when unknown. ``lines`` is the
    raw excerpt. ``complete`` is false when the console ended before the report's stack did: more
    of it may still come. ``fingerprint`` is the same for the same fault in another run, boot or
    build.
    """

    kind: Kind
    title: str
    frames: tuple[Frame, ...] = ()
    where: str = ""
    cpu: int = -1
    task: str = ""
    taint: str = ""
    lines: tuple[str, ...] = ()
    complete: bool = True
    fingerprint: str = ""

    @property
    def culprit(self) -> Frame | None:
        """The function that most likely holds the fault: the innermost of a module's own."""
        named = culprits(self.frames)
        return next((entry for entry in self.frames if entry.own), named[0] if named else None)


def fingerprint_of(kind: Kind, title: str, frames: Sequence[Frame]) -> str:
    """A short name for a fault: its kind and a digest of what is stable about it."""
    names = [*place(frames)]
    if kind in _TITLE_IS_CLASS or all(entry.root for entry in culprits(frames)):
        names.insert(0, _VALUE.sub("N", title.split(" in ")[0] if kind is Kind.KASAN else title))
    return f"{kind}-{hashlib.sha256('|'.join(names).encode()).hexdigest()[:10]}"
