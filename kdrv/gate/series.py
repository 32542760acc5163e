"""A patch series as data: commits in order, each with what it changes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

SYMLINK = "120000"
"""The mode of a symbolic link in a git tree (gitformat-index(5))."""


class Status(StrEnum):
    """How a patch changes a file; the letters of ``git diff --raw``."""

    ADDED = "A"
    MODIFIED = "M"
    DELETED = "D"
    RENAMED = "R"


@dataclass(frozen=True)
class Change:
    """One file of a patch. ``old`` is where it was before, for a renamed one its former name.

    ``mode`` is the file's after the patch, in git's octal digits. ``added`` and ``removed`` count
    lines; both are 0 for a binary file.
    """

    path: str
    status: Status
    added: int = 0
    removed: int = 0
    old: str = ""
    mode: str = "100644"

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path the change touches."""
        return (self.path, self.old) if self.old and self.old != self.path else (self.path,)


@dataclass(frozen=True)
class Patch:
    """One commit of a series. ``number`` counts from 1; ``tree`` is git's id of the content.

    ``message`` is the whole commit message; ``message_id`` that of the mail it came in.
    """

    number: int
    commit: str
    parent: str
    tree: str
    subject: str
    author: str
    message: str
    changes: tuple[Change, ...]
    message_id: str = ""

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path the patch touches, in order."""
        return tuple(path for change in self.changes for path in change.paths)

    @property
    def short(self) -> str:
        """The commit's first twelve digits, as the kernel's tags write it."""
        return self.commit[:12]


@dataclass(frozen=True)
class Series:
    """Patches on a base. ``base`` and ``tip`` are full commit ids; ``source`` is what was typed."""

    source: str
    base: str
    tip: str
    patches: tuple[Patch, ...]
