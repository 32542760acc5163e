"""What goes into operations and comes out of them, as plain data."""

from __future__ import annotations

import traceback
from typing import Any

from kdrv.explore.declare import Menu
from kdrv.explore.generate import minimal


def simplest(name: str, menu: Menu) -> dict[str, Any]:
    """The simplest arguments of an operation: what its strategies shrink to."""
    return {key: minimal(strategy) for key, strategy in menu[name].arguments.items()}


def plain(value: object) -> Any:
    """A value as plain data; what is none becomes its text."""
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(one) for one in value]
    return repr(value)


def assertion(error: AssertionError) -> str:
    """What did not hold, and the line of the source that says so."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].name}: {frames[-1].line}" if frames else ""
    text = str(error).strip()
    return f"{text} ({place})" if text else place
