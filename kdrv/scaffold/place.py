"""Putting a project on the disk: all of it, or nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath

from kdrv.core.errors import SetupError, UsageError
from kdrv.scaffold.render import Rendered


def place(
    target: Path, files: Mapping[PurePosixPath, Rendered], edits: Mapping[Path, bytes]
) -> None:
    """Make the directory ``target`` with ``files``, and give existing files new contents.

    Whatever ends it early, Ctrl-C included, the disk is as it was before. Raises
    :class:`UsageError` when ``target`` exists or its parent does not, :class:`SetupError` when the
    disk refuses.
    """
    if os.path.lexists(target):
        raise UsageError(
            f"{target} exists already, and kdrv overwrites nothing",
            expected="a name that is free",
            remedy=f"kdrv new {target.name}-2, or move {target} away",
        )
    if not target.parent.is_dir():
        raise UsageError(
            f"{target.parent} is not a directory",
            expected="an existing directory to make the project in",
            remedy=f"mkdir -p {target.parent}",
        )
    try:
        with _staged(target, files) as staged, ExitStack() as drafts, ExitStack() as undo:
            new = {path: drafts.enter_context(_draft(path, text)) for path, text in edits.items()}
            undo.callback(_take_back, target, staged.stat().st_ino)
            staged.rename(target)
            for path, draft in new.items():
                undo.callback(_restore, path, path.read_bytes())
                draft.replace(path)
            undo.pop_all()
    except OSError as error:
        raise SetupError(
            f"cannot write {error.filename or target}: {error.strerror}",
            expected=f"space and permission to write in {target.parent}",
            remedy="make room or get permission there, or choose another directory",
        ) from error


@contextmanager
def _staged(target: Path, files: Mapping[PurePosixPath, Rendered]) -> Iterator[Path]:
    """The whole project under a temporary name beside its place, until it is renamed or over."""
    staged = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        for name, file in files.items():
            path = staged / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.content)
            if file.executable:
                path.chmod(_permitted(0o777))
        staged.chmod(_permitted(0o777))
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)


@contextmanager
def _draft(path: Path, content: bytes) -> Iterator[Path]:
    """A new version of ``path`` under a temporary name beside it, with its permissions."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        shutil.copymode(path, name)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _restore(path: Path, content: bytes) -> None:
    if path.read_bytes() != content:
        with _draft(path, content) as draft:
            draft.replace(path)


def _take_back(target: Path, inode: int) -> None:
    """Remove the project, when it is the one that was staged."""
    if target.is_dir() and target.stat().st_ino == inode:
        shutil.rmtree(target, ignore_errors=True)


def _permitted(mode: int) -> int:
    """``mode`` less the process's umask."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mode & ~mask
