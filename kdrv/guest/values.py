"""What goes into calls of a guest and what comes out of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Protocol

GuestPath = str | bytes
"""A path in the guest; ``str`` is encoded as file names are (``os.fsencode``)."""


class HasFileno(Protocol):
    """An open file, as everywhere in Python."""

    def fileno(self) -> int: ...  # noqa: D102


FileLike = int | HasFileno


@dataclass(frozen=True)
class GuestProgram:
    """How a program in the guest ended.

    ``status`` is its exit status, or minus the signal that killed it. ``output`` is stdout and
    stderr together; ``truncated`` when there was more. ``timed_out`` when it was killed because
    its time was over.
    """

    argv: tuple[str, ...]
    status: int
    output: str
    truncated: bool = False
    timed_out: bool = False

    @property
    def ok(self) -> bool:
        """Whether the status is 0."""
        return self.status == 0


def encode_path(path: GuestPath) -> bytes:
    """A path as the kernel takes it, without the NUL. Raises ``ValueError`` for a NUL inside."""
    data = os.fsencode(path)
    if b"\0" in data:
        raise ValueError(f"embedded null byte in {path!r}")
    return data
