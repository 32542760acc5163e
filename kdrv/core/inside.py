"""Reading what an untrusted build left behind, and writing beside it.

A build can leave a symbolic link to the user's keys where a log should be, a FIFO whose opening
never returns, or a file larger than the memory.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from kdrv.core.errors import KdrvError, WorkFailed
from kdrv.core.show import size

_NOT_AS_EXPECTED = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG)
}


class UntrustedFile(WorkFailed):
    """A file of a build is not what it must be: it leads outside, is no file, or is too large."""


@contextmanager
def understood(what: str) -> Iterator[None]:
    """Around reading what strangers made: what cannot be made sense of is their doing.

    Raises :class:`UntrustedFile` in place of whatever a parser does; kdrv's own errors, and what
    the machine lacks, pass.
    """
    try:
        yield
    except KdrvError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in _NOT_AS_EXPECTED:
            raise
        raise UntrustedFile(
            f"{what} cannot be made sense of: {type(error).__name__}: {error}",
            expected="what the kernel's own build makes",
        ) from error


def inside(root: Path, path: Path) -> Path:
    """Where ``path`` (relative to ``root``, or below it) really lies: always below ``root``.

    Raises :class:`UntrustedFile` when it leads outside, and FileNotFoundError when it is not there.
    """
    top = Path(os.path.realpath(root, strict=True))
    try:
        real = Path(os.path.realpath(root / path, strict=True))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UntrustedFile(f"{path} cannot be read: {error.strerror}") from error
    if not real.is_relative_to(top):
        raise UntrustedFile(f"{path} leads out of {root}", expected="a file of the build's own")
    return real


def open_inside(root: Path, path: Path, limit: int) -> BufferedReader:
    """A regular file of at most ``limit`` bytes below ``root``, open for reading.

    Raises like :func:`inside`, and :class:`UntrustedFile` for anything else than such a file.
    """
    real = inside(root, path)
    # Before it is opened: to open a device can have effects.
    _require_file(path, real.lstat())
    try:
        opened = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UntrustedFile(f"{path} cannot be read: {error.strerror}") from error
    file = os.fdopen(opened, "rb")
    try:
        # Again, of the file that is open now: a build that still runs may have changed the path.
        facts = os.fstat(opened)
        _require_file(path, facts)
        if Path(f"/proc/self/fd/{opened}").readlink() != real:
            raise UntrustedFile(f"{path} changed while it was opened")
        if facts.st_size > limit:
            raise UntrustedFile(
                f"{path} has {size(facts.st_size)}", expected=f"at most {size(limit)}"
            )
    except BaseException:
        file.close()
        raise
    return file


def read_text_inside(root: Path, path: Path, limit: int) -> str:
    """The text of such a file; what is no UTF-8 appears as U+FFFD. Raises like the above."""
    with open_inside(root, path, limit) as file:
        # Not more than that even if it grows right now.
        return file.read(limit).decode(errors="replace")


def write_text_inside(root: Path, path: Path, text: str) -> None:
    """Put a file at ``path``, in place of any file or link that lies there. Raises like the above.

    The folder must exist; another process sees the old file or the whole new one.
    """
    folder = inside(root, path.parent)
    opened, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=folder)
    try:
        with os.fdopen(opened, "w") as file:
            os.fchmod(opened, 0o644)
            file.write(text)
        Path(temporary).replace(folder / path.name)
    except IsADirectoryError as error:
        raise UntrustedFile(f"{path} is a folder", expected="a file of the build's own") from error
    finally:
        Path(temporary).unlink(missing_ok=True)


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO | None]:
    """The file at a path that was found without following links, open to be read.

    ``None`` if it is no regular file (any more); nothing waits for a pipe's other end.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    with os.fdopen(handle, "rb") as stream:
        yield stream if stat.S_ISREG(os.fstat(handle).st_mode) else None


def _require_file(path: Path, facts: os.stat_result) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise UntrustedFile(f"{path} is no regular file", expected="a file of the build's own")
