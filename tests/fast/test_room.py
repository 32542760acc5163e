"""What becomes of a machine in which a call died."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from kdrv.guest.errors import GuestCallDied
from kdrv.machine.console import Console
from kdrv.machine.reports import Kind
from kdrv.testing.room import Condemned, Room, _Running

RECORDINGS = Path(__file__).parent / "recordings" / "console"


class SlowMachine:
    """Its console lags behind its agent by some pauses."""

    alive = True

    def __init__(self, text: bytes, pauses: int) -> None:
        self.console = Console()
        self._text = text
        self._pauses = pauses

    def pause(self, _seconds: float) -> None:
        self._pauses -= 1
        if not self._pauses:
            self.console.feed(self._text)


def test_a_report_that_comes_after_the_call_died_is_the_cause() -> None:
    machine: Any = SlowMachine((RECORDINGS / "x86_64-plain-rust1.log").read_bytes(), pauses=9)
    room = Room(None, None)  # type: ignore[arg-type]
    room._running = _Running(machine, None, contextlib.ExitStack(), 0, ())  # type: ignore[arg-type]
    with pytest.raises(Condemned) as raised, room.watched():
        raise GuestCallDied("init_module", 11, ())
    assert raised.value.verdict.outcome == Kind.RUST_PANIC
    assert not room.running


def test_one_that_never_comes_is_not_waited_for_for_ever() -> None:
    machine: Any = SlowMachine(b"", pauses=0)
    room = Room(None, None)  # type: ignore[arg-type]
    room._running = _Running(machine, None, contextlib.ExitStack(), 0, ())  # type: ignore[arg-type]
    with pytest.raises(Condemned, match="was ended by"), room.watched():
        raise GuestCallDied("init_module", 9, ())
