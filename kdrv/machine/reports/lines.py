"""The kernel's lines of a console: time stamps and caller ids off, user space's lines out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_STAMP = re.compile(r"\[ *\d+\.\d{6}\](?:\[ *(?P<caller>[TC]\d+)\])? ?")
_LONGEST = 2048
"""The kernel prints at most 1 KiB a line (LOG_LINE_MAX); what is longer is somebody else's."""


@dataclass(frozen=True)
class Line:
    """A line as it came (``raw``), what the kernel said in it, and the caller id, if any."""

    raw: str
    text: str
    caller: str


def kernel_lines(lines: Iterable[str]) -> Iterator[Line]:
    """The kernel's lines; user output may stand before a stamp, or be lines without one.

    A console without any stamp (printk.time=0) is taken as the kernel's altogether.
    """
    found = [(raw, _STAMP.search(raw, 0, _LONGEST)) for raw in lines]
    stamped = any(stamp for _, stamp in found)
    for raw, stamp in found:
        if stamp:
            yield Line(raw, raw[stamp.end() :][:_LONGEST].rstrip(), stamp["caller"] or "")
        elif not stamped:
            yield Line(raw, raw[:_LONGEST].rstrip(), "")
