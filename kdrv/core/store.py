"""The cache on disk: content-addressed entries, safe against two runs and against being killed.

An entry is a directory ``<cache>/<kind>/<key>/`` with the content in ``data/`` and, written last
and atomically, ``entry.json``. Who makes an entry holds its lock; an entry without ``entry.json``
was interrupted, and the next maker decides whether to go on from ``data/`` or to start afresh.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kdrv.core.context import Context
from kdrv.core.errors import DeadlineExceeded, SetupError

MANIFEST = "entry.json"
LOCK_DEADLINE = 3600.0


def digest(*parts: object) -> str:
    """A short stable key of anything JSON can say; equal parts give equal keys."""
    text = json.dumps(parts, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def write_atomic(path: Path, text: str) -> None:
    """Replace ``path`` by a file with ``text``: readers see the old or the new, never a half."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@dataclass(frozen=True)
class Entry:
    """A finished entry: its place and what its maker recorded of it."""

    kind: str
    key: str
    path: Path
    facts: Mapping[str, Any]

    @property
    def data(self) -> Path:
        """The directory with the content."""
        return self.path / "data"

    @property
    def used_at(self) -> float:
        """When the entry was last asked for, seconds since the epoch."""
        return (self.path / MANIFEST).stat().st_mtime


class Store:
    """The entries below ``ctx.cache``."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self.root = ctx.cache

    def find(self, kind: str, key: str) -> Entry | None:
        """The finished entry, marked as used now, or ``None``."""
        if entry := _read(self.root / kind / key):
            # A cache owned by someone else may be read without being marked.
            with contextlib.suppress(PermissionError):
                os.utime(entry.path / MANIFEST)
            return entry
        beneath = self._ctx.beneath
        return _read(beneath / kind / key) if beneath else None

    def get(
        self,
        kind: str,
        key: str,
        make: Callable[[Path], Mapping[str, Any]],
        *,
        resume: bool = False,
        waiting: str = "",
    ) -> Entry:
        """The finished entry, made now by ``make(data)`` if it is missing.

        ``make`` fills the directory and returns facts for the manifest. With ``resume`` it is
        handed what an interrupted maker left; otherwise the directory is empty. Raises
        :class:`SetupError` when the cache cannot be written.
        """
        if entry := self.find(kind, key):
            return entry
        with self.lock(kind, key, waiting=waiting or f"{kind} {key}"):
            if entry := self.find(kind, key):
                return entry
            path = self.root / kind / key
            data = path / "data"
            if not resume and path.exists():
                remove_tree(path)
            data.mkdir(parents=True, exist_ok=True)
            facts = make(data)
            record = {"facts": facts, "made": time.time()}
            write_atomic(path / MANIFEST, json.dumps(record, indent=1, default=str))
        entry = self.find(kind, key)
        assert entry is not None
        return entry

    @contextmanager
    def workspace(
        self, kind: str, key: str, facts: Mapping[str, Any], *, waiting: str
    ) -> Iterator[Path]:
        """A directory that lives on between runs, locked while in use; its maker keeps it true."""
        with self.lock(kind, key, waiting=waiting):
            path = self.root / kind / key
            (path / "data").mkdir(parents=True, exist_ok=True)
            record = {"facts": facts, "made": time.time()}
            write_atomic(path / MANIFEST, json.dumps(record, indent=1, default=str))
            yield path / "data"

    @contextmanager
    def lock(self, kind: str, key: str, *, waiting: str) -> Iterator[None]:
        """Hold an entry for ourselves; another kdrv that wants it waits and says so."""
        folder = self.root / kind
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / f".{key}.lock")
            try:
                lock.acquire(timeout=0.1)
            except Timeout:
                self._ctx.events.note(f"waiting for another kdrv that is making {waiting}")
                lock.acquire(timeout=LOCK_DEADLINE)
        except Timeout:
            raise DeadlineExceeded(
                f"another kdrv has been making {waiting} for {LOCK_DEADLINE / 60:.0f} minutes",
                remedy="look at it with: pgrep -af kdrv",
            ) from None
        except OSError as error:
            raise SetupError(
                f"cannot write the cache {self.root}: {error.strerror}",
                expected="a directory of your own, on a disk with free space",
                remedy="set XDG_CACHE_HOME to such a directory, or free space: kdrv cache prune",
            ) from error
        try:
            yield
        finally:
            lock.release()

    def entries(self) -> list[Entry]:
        """All finished entries, the most recently used first."""
        found = [_read(path) for path in self.root.glob("*/*") if path.is_dir()]
        return sorted((e for e in found if e), key=lambda e: e.used_at, reverse=True)

    def unfinished(self) -> list[Path]:
        """Entries that an interrupted run left and nobody is making now."""
        left = []
        for path in sorted(self.root.glob("*/*")):
            if (path / "data").is_dir() and not (path / MANIFEST).exists():
                lock = FileLock(path.parent / f".{path.name}.lock")
                try:
                    with lock.acquire(timeout=0):
                        left.append(path)
                except Timeout:
                    continue
        return left

    def remove(self, path: Path) -> None:
        """Delete an entry; first its manifest, so that a kill on the way leaves no lie behind."""
        with self.lock(path.parent.name, path.name, waiting=f"{path.parent.name} {path.name}"):
            remove_tree(path)


def remove_tree(path: Path) -> None:
    """Delete a directory that may hold closed directories, and deep ones, its manifest first."""
    if path.is_dir() and not path.is_symlink():
        path.chmod(0o700)
    with contextlib.suppress(IsADirectoryError, NotADirectoryError):
        (path / MANIFEST).unlink(missing_ok=True)
    if not path.exists():
        return

    def unlock(function: Callable[..., Any], name: str, error: Any) -> None:
        entry = Path(name)
        entry.parent.chmod(0o700)
        if entry.is_symlink() or not entry.is_dir():
            function(name)
        elif entry.stat().st_mode & 0o700 == 0o700 and function is not os.rmdir:
            raise error[1]
        else:
            entry.chmod(0o700)
            shutil.rmtree(entry, onerror=unlock)

    try:
        shutil.rmtree(path, onerror=unlock)
    except (RecursionError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.ENAMETOOLONG, errno.EMFILE):
            raise
        _flatten(path)
        shutil.rmtree(path, onerror=unlock)


def _flatten(path: Path) -> None:
    """Bring every folder below ``path`` up to it: a build may nest them too deep to be reached."""
    numbers = itertools.count()
    waiting = [Path(entry) for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]
    while waiting:
        folder = waiting.pop()
        folder.chmod(0o700)
        for entry in tuple(os.scandir(folder)):
            if entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry).rename(path / f".kdrv-{next(numbers)}"))


def _read(path: Path) -> Entry | None:
    try:
        record = json.loads((path / MANIFEST).read_text())
        return Entry(path.parent.name, path.name, path, record["facts"])
    except (OSError, ValueError, KeyError):
        return None
