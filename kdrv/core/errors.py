"""The errors of kdrv, as the person at the terminal meets them.

Every error is one sentence, what was expected, and the command that mends it. Two kinds matter
to a caller: :class:`WorkFailed` (your code failed, exit code 1) and everything else (wrong usage
or environment, exit code 2). Library code raises; only ``kdrv.cli`` turns errors into exit codes.
"""

from __future__ import annotations

from collections.abc import Sequence

EXIT_FAILED = 1
EXIT_ENVIRONMENT = 2


class KdrvError(Exception):
    """Any error kdrv raises on purpose.

    ``message`` is one sentence. ``expected`` says what would have been right. ``remedy`` is a
    command (or an edit) that mends it. ``detail`` holds further lines, such as the last output of
    a program. ``reproducer`` is a shell command that shows the same failure again.
    """

    exit_code = EXIT_ENVIRONMENT

    def __init__(
        self,
        message: str,
        *,
        expected: str = "",
        remedy: str = "",
        detail: Sequence[str] = (),
        reproducer: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.expected = expected
        self.remedy = remedy
        self.detail = tuple(detail)
        self.reproducer = reproducer

    def hints(self) -> tuple[tuple[str, str], ...]:
        """What there is to say beyond the sentence, each with its word, in reading order."""
        words = (
            ("expected", self.expected),
            ("remedy", self.remedy),
            ("reproduce", self.reproducer),
        )
        return tuple((word, text) for word, text in words if text)


class UsageError(KdrvError):
    """The caller asked for something that cannot be: a bad name, path, option or file."""


class SetupError(KdrvError):
    """The machine lacks something: a program, space, a network, a permission."""


class WorkFailed(KdrvError):
    """The user's own code (driver, patch, test, kernel tree) failed; kdrv did not."""

    exit_code = EXIT_FAILED


class CommandFailed(KdrvError):
    """A program kdrv ran ended with an unexpected status; ``detail`` has its last lines."""


class DeadlineExceeded(KdrvError):
    """A wait reached its limit; the message says what was waited for and for how long."""
