"""Fakes for tests that need neither kernel nor root."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kdrv.core.context import Context
from kdrv.core.errors import CommandFailed
from kdrv.core.process import Command, Completed

Answer = str | tuple[int, str] | Callable[[Command], str | tuple[int, str]]


@dataclass
class FakeRunner:
    """Answers commands from a list of (words that the line contains, answer); keeps them all."""

    answers: list[tuple[str, Answer]] = field(default_factory=list)
    ran: list[Command] = field(default_factory=list)

    def run(
        self, command: Command, *, check: bool = True, on_line: Any = None, **_: Any
    ) -> Completed:
        self.ran.append(command)
        line = command.shell()
        for words, answer in self.answers:
            if words in line:
                said = answer(command) if callable(answer) else answer
                status, output = said if isinstance(said, tuple) else (0, said)
                for text in output.splitlines() if on_line else ():
                    on_line(text)
                done = Completed(command, status, output, 0.0)
                if check and status:
                    raise CommandFailed("failed", detail=done.tail(), reproducer=line)
                return done
        raise AssertionError(f"nobody expected: {line}")

    @contextlib.contextmanager
    def start(self, command: Command, **_: Any) -> Iterator[Any]:
        raise AssertionError(f"nobody expected: {command.shell()}")
        yield


@pytest.fixture
def runner() -> FakeRunner:
    return FakeRunner()


@pytest.fixture
def ctx(tmp_path: Path, runner: FakeRunner) -> Context:
    return Context(cache=tmp_path / "cache", runner=runner, jobs=2)


@pytest.fixture
def fake_tree(tmp_path: Path) -> Path:
    """The outline of a kernel tree, 7.3.4."""
    tree = tmp_path / "linux"
    for folder in ("scripts", "include/linux", "rust/kernel"):
        (tree / folder).mkdir(parents=True)
    (tree / "rust/kernel/lib.rs").touch()
    (tree / "Kconfig").touch()
    (tree / "Makefile").write_text("VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\nEXTRAVERSION =\n")
    return tree
