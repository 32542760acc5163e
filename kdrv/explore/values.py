"""What goes into operations and comes out of them, as plain data."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kdrv.machine.reports.frames import DEEPEST, stack_entry

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


def minimal(strategy: SearchStrategy[Any]) -> Any:
    """The simplest value of a strategy: what it shrinks to."""
    # Slow to import, and not needed to replay.
    from hypothesis import HealthCheck, Phase, find, settings

    return find(
        strategy,
        lambda _: True,
        settings=settings(
            database=None,
            max_examples=1,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )


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


def waiting(stack: Sequence[str]) -> str:
    """Where a call waits, in words: its innermost functions that do not only wait for others."""
    found = filter(None, map(stack_entry, (f" {line}" for line in stack)))
    frames = [frame for frame, sure in found if sure and not frame.machinery and not frame.root]
    return "in " + ", from ".join(map(str, frames[:DEEPEST])) if frames else ""
