"""One report being read, line by line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from kdrv.machine.reports.frames import Frame, Trace, instruction, named, stable_name, stack_entry
from kdrv.machine.reports.kinds import CUT_HERE, MAPPED_AT, REFINEMENTS, Kind, Opening
from kdrv.machine.reports.lines import Line
from kdrv.machine.reports.record import Report, fingerprint_of
from kdrv.toolchain.base import MODULE, SOURCE

_CONTEXT = re.compile(
    r"^CPU: (?P<cpu>\d+) (?:UID: \d+ )?PID: \d+ Comm: (?P<task>.+?) +"
    r"(?:Not tainted|Tainted: (?P<taint>[A-Z ]+?))(?: +\S*\d\S*.*)?$"
)
_OFFSET = re.compile(r"\+0x[0-9a-f]+/0x[0-9a-f]+")
_OOPS_CODE = re.compile(r":? [0-9a-f]{4,16} \[#\d+\].*$")
_BRACKETED = re.compile(r"\[(\D+)\]")
_PENDING = re.compile(r"pending DMA allocations while released from device")
_RUST_NAME = re.compile(r"\b_(?:R|ZN)\w{8,}")
_TAINT_WORDS = re.compile(r" \((?:Not tainted|Tainted: [A-Z ]+)\)")

_PATIENCE = {Kind.LOCKDEP: 500, Kind.OUT_OF_MEMORY: 400}
_PATIENCE_ELSE = 80
"""Lines that may pass between the first line of a report and its stack, or stack and end."""


@dataclass
class Draft:
    """A report being read. Without an ``opening`` it is a "cut here" that waits for its kind."""

    order: int
    opening: Opening | None = None
    match: re.Match[str] | None = None
    lines: list[str] = field(default_factory=list)
    message: list[str] = field(default_factory=list)
    trace: Trace = field(default_factory=Trace)
    mentioned: list[Frame] = field(default_factory=list)
    at: Frame | None = None
    context: re.Match[str] | None = None
    muted: bool = False
    traced: int = 0
    """How many lines the report had when its stack ended; 0 before."""
    closed: bool = False
    mapping: bool = False

    @property
    def kind(self) -> Kind | None:
        """The kind so far, None while it is open."""
        return self.opening.kind if self.opening else None

    def begin(self, opening: Opening | None, match: re.Match[str] | None) -> None:
        """Say what kind it is; what was collected stays a message only where one stands above."""
        self.opening, self.match = opening, match
        if opening and opening.kind not in (Kind.WARN, Kind.BUG, Kind.UBSAN, Kind.SLAB):
            self.message.clear()

    def reopen(self) -> None:
        """Go on behind the end: a stack that names who mapped the memory follows."""
        self.closed, self.mapping = False, True
        self.mentioned.clear()

    def absorbs(self, kind: Kind | None) -> bool:
        """Whether a report of ``kind`` (None: a "cut here") is a part of this one."""
        if self.opening is None:
            return kind is not None
        parts = self.opening.absorbs
        return bool(parts & {Kind.BUG, Kind.WARN}) if kind is None else kind in parts

    def take(self, line: Line) -> bool:
        """Add a line; false when the report had ended before it."""
        text = line.text
        opening = self.opening
        if self.mapping:
            entry = stack_entry(text)
            if entry:
                self.mentioned.append(entry[0])
            elif text != MAPPED_AT:
                return False
            self.lines.append(line.raw)
            return True
        if opening and opening.close and opening.close.match(text):
            self.closed = True
        elif self.traced and opening and not opening.close:
            if not (opening.tail and opening.tail.match(text)):
                return False
        elif self._astray():
            del self.lines[self.traced or 2 :]
            return False
        self.lines.append(line.raw)
        self._learn(text)
        return not (opening is not None and opening.single)

    def _astray(self) -> bool:
        """Whether the stack, or the end after it, is so late that it will not come."""
        patience = _PATIENCE.get(self.kind or Kind.WARN, _PATIENCE_ELSE)
        return not self.trace.open and len(self.lines) - self.traced > patience

    def _learn(self, text: str) -> None:
        if not self.context:
            self.context = _CONTEXT.match(text)
        if self.trace.take(text):
            self.traced = 0 if self.trace.open else len(self.lines)
        elif mentioned := named(text):
            self.mentioned.append(mentioned)
        elif not self.at and not self.traced:
            self.at = instruction(text)
        self._listen(text)

    def _listen(self, text: str) -> None:
        """Collect the message: between "cut here" and the registers, less what says the kind.

        A Rust panic has it above "cut here", and UBSAN explains itself in one line.
        """
        if text == CUT_HERE:
            self.muted = self.kind is Kind.RUST_PANIC
        elif self.context or text.startswith("Modules linked in:"):
            self.muted = True
        elif text and not self.muted and not (self.match and text == self.match.string):
            explained = self.kind is Kind.UBSAN and not self.message
            kasan = self.kind is Kind.OOPS and text.startswith("KASAN: ")
            if explained or kasan or self.kind in (None, Kind.RUST_PANIC, Kind.WARN):
                self.message.append(text)

    def report(self) -> Report | None:
        """The finished record; None when it was no report after all."""
        if self.opening is None or self.match is None:
            return None
        kind = self.opening.kind
        if kind in (Kind.WARN, Kind.BUG):
            kind = refined(self.message) or kind
        frames = self._stack(kind)
        said = self.match.groupdict()
        title = _title(kind, self.match, self.message)
        context = self.context.groupdict() if self.context else {}
        return Report(
            kind=kind,
            title=title,
            frames=frames,
            where=_relative(said.get("where") or ""),
            cpu=int(said.get("cpu") or context.get("cpu") or -1),
            task=said.get("task") or context.get("task") or "",
            taint=(context.get("taint") or "").replace(" ", ""),
            lines=tuple(self.lines),
            complete=self.closed or self.mapping or self.opening.single or bool(self.traced),
            fingerprint=fingerprint_of(kind, title, frames),
        )

    def _stack(self, kind: Kind) -> tuple[Frame, ...]:
        """The stack, or what the report mentions where that tells more."""
        stack = self.trace.frames
        if self.mapping and _PENDING.search(" ".join(self.message)):
            # whoever released the device did nothing wrong; who mapped and did not unmap, did
            return tuple(self.mentioned)
        if self.mentioned and (kind is Kind.IRQ or not any(entry.own for entry in stack)):
            return tuple(entry for entry in self.mentioned if entry.own) or tuple(self.mentioned)
        if self.at and (not stack or stack[0].symbol != self.at.symbol):
            return (self.at, *stack)
        return stack


def refined(message: Sequence[str]) -> Kind | None:
    """What a WARN or BUG with this message is really about."""
    for pattern, kind in REFINEMENTS:
        if any(pattern.match(text) for text in message):
            return kind
    return None


def _title(kind: Kind, match: re.Match[str], message: Sequence[str]) -> str:
    """The complaint in words: the message where there is one, else what the opening said."""
    named = match.groupdict()
    said = _OOPS_CODE.sub("", _TAINT_WORDS.sub("", named.get("title") or match[0]))
    if kind is Kind.UBSAN:
        said = ": ".join((said, *message[:1]))
    elif kind is Kind.SLAB and "cond" not in named:
        said = ": ".join((said, *_BRACKETED.findall(" ".join(message))))
    elif message:
        said = " ".join(message)
    elif "cond" in named:
        said = f"WARN_ON({named['cond']}) in {said}" if named["cond"] else f"WARN_ON in {said}"
    return _RUST_NAME.sub(lambda found: stable_name(found[0]), _OFFSET.sub("", said)).rstrip(":")


def _relative(where: str) -> str:
    """A file below the kernel's or the driver's source, without the path inside the sandbox."""
    for root in (MODULE, SOURCE):
        where = where.removeprefix(f"{root}/")
    return where
