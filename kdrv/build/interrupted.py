"""Repairing a build directory after make was killed.

make deletes the target it works on when it is interrupted, but not when it is killed; the half
written file is then newer than its sources and would pass for finished.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MARKER = ".kdrv-building"
SUSPECT_SECONDS = 15.0
KCONFIGS = ("include/generated/autoconf.h", "include/generated/rustc_cfg")


@contextmanager
def guarded(output: Path) -> Iterator[None]:
    """Mark the directory while make runs in it; repair it first if the last run was killed."""
    marker = output / MARKER
    if marker.is_file():
        repair(output, marker.lstat().st_mtime)
    if marker.is_symlink():
        marker.unlink()  # a makefile's, and who knows where it leads
    marker.touch()
    yield
    # Not in a finally: after an exception (deadline, Ctrl-C) make was killed, and the marker stays.
    marker.unlink(missing_ok=True)


def repair(output: Path, began: float) -> None:
    """Delete what a make that began at ``began`` may have left half-written.

    Two kinds of file: a target younger than the ``.cmd`` file that kbuild writes after it
    (scripts/Kbuild.include: if_changed), and anything written in the last seconds before the kill.
    """
    young = {path: path.stat().st_mtime for path in _files(output) if not _whole(output, path)}
    young = {path: mtime for path, mtime in young.items() if mtime >= began}
    if not young:
        return
    suspect = max(young.values()) - SUSPECT_SECONDS
    for path, mtime in young.items():
        record = path.with_name(f".{path.name}.cmd")
        unfinished = record.exists() and record.stat().st_mtime < mtime
        if mtime >= suspect or unfinished:
            path.unlink(missing_ok=True)


def undo(output: Path, began: float) -> None:
    """Delete whatever was written since ``began`` (seconds since the epoch).

    By the time of the inode's change, which no program can set: for builds that nobody trusts.
    """
    for place, _, names in os.walk(output):
        for path in (Path(place, name) for name in names):
            if path.lstat().st_ctime >= began and not _whole(output, path):
                path.parent.chmod(0o755)  # or nothing can be taken out of it
                path.unlink()


def _whole(output: Path, path: Path) -> bool:
    """Whether it is Kconfig's: those files are renamed into place (scripts/kconfig/confdata.c).

    Without them everything would be made again, as if every symbol had changed.
    """
    name = str(path.relative_to(output))
    return name.startswith((".config", "include/config/")) or name in KCONFIGS


def _files(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            if not path.is_symlink() and name != MARKER:
                yield path
