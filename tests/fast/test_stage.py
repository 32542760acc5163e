"""Actors that share a thread: who goes on when, and what ends them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kdrv.explore.stage import Stage


class FakeLink:
    """Time passes only while somebody listens; ``answers`` are when answers come."""

    def __init__(self) -> None:
        self.turns: Any = None
        self.now = 0.0
        self.answers: list[float] = []

    def clock(self) -> float:
        return self.now

    def hear(self, timeout: float) -> bool:
        due = [at for at in self.answers if self.now < at <= self.now + timeout]
        self.now = min(due) if due else self.now + timeout
        return bool(due)

    def arrives(self, at: float) -> Callable[[], bool]:
        self.answers.append(at)
        return lambda: self.now >= at


def play(link: FakeLink, actors: Callable[[Stage], list[Callable[[], None]]]) -> None:
    stage = Stage(link)  # type: ignore[arg-type]
    stage.play(actors(stage))


def test_actors_interleave_in_the_order_of_their_answers() -> None:
    link, seen = FakeLink(), list[str]()

    def actor(stage: Stage, name: str, *times: float) -> Callable[[], None]:
        def act() -> None:
            for at in times:
                assert stage.wait(link, link.arrives(at), 10)  # type: ignore[arg-type]
                seen.append(f"{name}{at:g}")

        return act

    play(link, lambda stage: [actor(stage, "a", 1, 4), actor(stage, "b", 2, 3)])
    assert seen == ["a1", "b2", "b3", "a4"]
    assert link.turns is None


def test_a_wait_ends_at_its_deadline() -> None:
    link, seen = FakeLink(), list[object]()

    def actors(stage: Stage) -> list[Callable[[], None]]:
        def act() -> None:
            seen.append(stage.wait(link, lambda: False, 2.5))  # type: ignore[arg-type]
            seen.append(link.now)

        return [act]

    play(link, actors)
    assert seen == [False, 2.5]


def test_what_an_actor_raises_ends_all_of_them() -> None:
    link, cleaned = FakeLink(), list[str]()

    def actors(stage: Stage) -> list[Callable[[], None]]:
        def waits() -> None:
            try:
                stage.pause(100)
            finally:
                cleaned.append("waits")

        def raises() -> None:
            stage.pause(1)
            raise ValueError("no")

        return [waits, raises]

    with pytest.raises(ValueError, match="no"):
        play(link, actors)
    assert cleaned == ["waits"]
    assert link.now < 2


@pytest.mark.parametrize(("ends", "rings"), [(5.0, [1.5]), (1.0, [])])
def test_an_alarm_rings_in_the_middle_of_what_an_actor_does(
    ends: float, rings: list[float]
) -> None:
    link, seen = FakeLink(), list[float]()

    def actors(stage: Stage) -> list[Callable[[], None]]:
        def act() -> None:
            with stage.alarm(1.5, lambda: seen.append(link.now)) as alarm:
                assert stage.wait(link, link.arrives(ends), 10)  # type: ignore[arg-type]
            assert alarm.rang == bool(rings)
            stage.pause(10)

        return [act, lambda: stage.pause(0.5)]

    play(link, actors)
    assert seen == rings
