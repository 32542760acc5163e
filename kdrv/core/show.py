"""Small helpers to put sizes, numbers and times into words."""

from __future__ import annotations

import re

# What a terminal obeys (ECMA-48): control sequences; strings, which end with ST or BEL, and here
# with the line too, so that one that never ends hides no more than its line; other escapes.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[PX\]^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]+[0-~]|\x1b[0-~]"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)
# What turns the direction of text or ends a line unseen, and what no UTF-8 or XML holds.
_DECEIVING = re.compile(
    "[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)


def clean(text: str) -> str:
    """Text of others made fit to be printed.

    Terminal escapes and control characters are gone, except for ends of lines and tabs. What
    turns the direction of text is written out (``\\u202e``), as is what cannot be encoded.
    """
    return _DECEIVING.sub(lambda found: f"\\u{ord(found[0]):04x}", _ESCAPES.sub("", text))


def size(count: int) -> str:
    """``1.4 GB`` of a number of bytes."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def plural(number: int, one: str, many: str = "") -> str:
    """``1 patch``, ``2 patches``."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    """``0.84 s``, ``12.3 s``, ``4 min 20 s``."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"
