"""Text from drivers and devices made fit to be shown: they may print anything."""

from __future__ import annotations

import re

from kdrv.explore.plan import brief

# Controls that no XML holds, and those that turn the direction of text: with them a line can look
# like another one.
_UNFIT = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def clean(text: str) -> str:
    """A text with a replacement character for what must not be shown."""
    return _UNFIT.sub("\N{REPLACEMENT CHARACTER}", text)


def cut(text: str, most: int) -> str:
    """At most so many characters, an ellipsis among them; nothing where not even that fits."""
    if most < 2:
        return ""
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def count(number: int) -> str:
    """A number with its digits in groups of three."""
    return f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def plural(number: int, one: str, many: str = "") -> str:
    """``1 bug``, ``2 bugs``."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def percent(share: float) -> str:
    """A share as whole per cent; 100 % is said of all alone, and 0 % of none."""
    rounded = round(share * 100)
    if 0 < share < 1:
        rounded = min(max(rounded, 1), 99)
    return f"{rounded}\N{NARROW NO-BREAK SPACE}%"


def span(nanoseconds: int) -> str:
    """A span of virtual time in the unit that fits it."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if nanoseconds >= size * 0.9995:
            return f"{nanoseconds / size:.3g}\N{NARROW NO-BREAK SPACE}{unit}"
    return f"{nanoseconds}\N{NARROW NO-BREAK SPACE}ns"


def call(does: str, arguments: dict[str, object]) -> str:
    """An operation as a caller writes it."""
    return f"{does}({', '.join(f'{name}={brief(value)}' for name, value in arguments.items())})"
