"""Who the author is, as git knows it."""

from __future__ import annotations

import contextlib

from kdrv.core.errors import SetupError, UsageError
from kdrv.core.process import Command, Runner
from kdrv.scaffold.names import Author

DEADLINE = 10.0
"""Seconds for one ``git config``."""


def git_author(runner: Runner) -> Author | None:
    """The author that git is configured with, or ``None`` when there is none that can be used."""
    with contextlib.suppress(SetupError, UsageError):
        answers = [
            runner.run(
                Command(("git", "config", "--get", f"user.{key}")), deadline=DEADLINE, check=False
            )
            for key in ("name", "email")
        ]
        if all(answer.ok for answer in answers):
            return Author.parse(answers[0].output, answers[1].output)
    return None
