"""Leaks in ``/sys/kernel/debug/kmemleak``, the file that the console's one line points to.

Format: ``mm/kmemleak.c`` print_unreferenced(), ``Documentation/dev-tools/kmemleak.rst``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from kdrv.machine.reports.frames import Frame, culprits, stack_entry
from kdrv.machine.reports.kinds import Kind
from kdrv.machine.reports.record import Report, fingerprint_of

_OBJECT = re.compile(r"^unreferenced (?:percpu )?object 0x[0-9a-f]+ \(size (?P<size>\d+)\):")
_TASK = re.compile(r'^\s+comm "(?P<task>.*)", pid \d+')


@dataclass
class _Block:
    size: int
    task: str = ""
    frames: list[Frame] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


def parse_kmemleak(text: str) -> tuple[Report, ...]:
    """One report for every place that leaked, however many objects it lost. Never raises."""
    places: dict[str, list[_Block]] = {}
    for block in _blocks(text):
        places.setdefault(fingerprint_of(Kind.LEAK, "", block.frames), []).append(block)
    return tuple(_report(name, blocks) for name, blocks in places.items())


def _blocks(text: str) -> Iterator[_Block]:
    block: _Block | None = None
    for line in text.splitlines():
        begins = _OBJECT.match(line)
        if begins:
            if block:
                yield block
            block = _Block(int(begins["size"]))
        if block is None:
            continue
        block.lines.append(line)
        task = _TASK.match(line)
        entry = stack_entry(line)
        if task:
            block.task = task["task"]
        elif entry:
            block.frames.append(entry[0])
    if block:
        yield block


def _report(fingerprint: str, blocks: list[_Block]) -> Report:
    first = blocks[0]
    total = sum(block.size for block in blocks)
    count = f"{len(blocks)} objects" if len(blocks) > 1 else "1 object"
    named = culprits(first.frames)
    place = f", allocated in {named[0]}" if named else ""
    return Report(
        kind=Kind.LEAK,
        title=f"{count}, {total} bytes, never freed{place}",
        frames=tuple(first.frames),
        task=first.task,
        lines=tuple(line for block in blocks for line in block.lines),
        fingerprint=fingerprint,
    )
