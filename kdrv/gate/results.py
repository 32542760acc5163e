"""What the gate has found, kept between runs: a table in SQLite, keyed by content.

Every write is a transaction of its own, so a run that is killed has kept all it had found.
"""

from __future__ import annotations

import re
import shlex
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from kdrv.core.context import Context
from kdrv.core.errors import SetupError

T = TypeVar("T")
BUSY_SECONDS = 60.0


@contextmanager
def open_database(path: Path, schema: str) -> Iterator[sqlite3.Connection]:
    """A database of the gate's; another process may have it open at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)) as database:
            _share(database)
            database.execute("PRAGMA synchronous=NORMAL")
            database.execute(schema)
            yield database
    except sqlite3.Error as error:
        raise SetupError(
            f"the database {path} cannot be used: {error}",
            expected="a file that only kdrv has written, on a disk with room",
            remedy=f"rm {shlex.quote(str(path))}: what it remembers is found again",
        ) from error


def _share(database: sqlite3.Connection) -> None:
    """Let readers and a writer work side by side. For this change alone SQLite does not wait."""
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            database.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


class Results:
    """Typed values by key. What an older kdrv wrote in another shape counts as missing."""

    _SCHEMA = "CREATE TABLE IF NOT EXISTS result (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID"

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def of(cls, ctx: Context) -> Results:
        """Those of the cache, which all judgements share."""
        return cls(ctx.cache / "gate" / "results.sqlite")

    def get(self, key: str, kind: type[T]) -> T | None:
        """The value under ``key``, or ``None``."""
        with open_database(self._path, self._SCHEMA) as database:
            row = database.execute("SELECT value FROM result WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        try:
            return msgspec.msgpack.decode(row[0], type=kind)
        except msgspec.DecodeError:
            return None

    def put(self, key: str, value: object) -> None:
        """Keep a value; a later one under the same key replaces it."""
        with open_database(self._path, self._SCHEMA) as database:
            row = (key, msgspec.msgpack.encode(value))
            database.execute("INSERT OR REPLACE INTO result VALUES (?, ?)", row)


class Said:
    """What make said of each target when it last made it, in one build directory.

    make says nothing of a target that it leaves alone; the union of this table is what building
    everything anew would say. A target's text is written as soon as the next one begins.
    """

    _SCHEMA = "CREATE TABLE IF NOT EXISTS said (target TEXT PRIMARY KEY, text TEXT) WITHOUT ROWID"

    def __init__(self, path: Path) -> None:
        self._path = path

    def all(self) -> Mapping[str, str]:
        """The text by target, in the order of their names."""
        with open_database(self._path, self._SCHEMA) as database:
            return dict(database.execute("SELECT target, text FROM said ORDER BY target"))

    @contextmanager
    def listening(self) -> Iterator[Listener]:
        """A listener for one run of make."""
        with open_database(self._path, self._SCHEMA) as database:
            noisy = {row[0] for row in database.execute("SELECT target FROM said")}
            listener = Listener(database, noisy)
            listener.forget(MAKE_ITSELF)
            yield listener
            listener.flush()


MAKE_ITSELF = "make"
"""The name under which make's own messages stand: they are about a run, not about a target."""

_RUST = "RUSTC "
_RUST_HEAD = re.compile(r"^(error|warning)(\[[A-Z]\d+\])?: ")
_RUST_PLACE = re.compile(r"^ *--> (?:\S*?/run/kdrv/src/)?(?P<file>\S+?):\d+")


class Listener:
    """Takes in the lines of a make with ``--output-sync=target``.

    rustc shares make's jobs, and make does not hold back the output of such a recipe: its messages
    may come in the midst of other targets. They are known by how they begin, and belong to the
    crate that the file they are about lies in.
    """

    def __init__(self, database: sqlite3.Connection, noisy: set[str]) -> None:
        self._database = database
        self._noisy = noisy
        self._target = MAKE_ITSELF
        self._lines: list[str] = []
        self._own: list[str] = []
        self._crates: dict[str, list[str]] = {}
        self._block: list[str] | None = None

    def line(self, text: str, target: str | None) -> None:
        """The next line; ``target`` is what it announces, if it announces one."""
        if target is not None:
            self.flush()
            if target.startswith(_RUST):
                self.forget(target)
                self._crates[target] = [text]
            else:
                self._target, self._lines = target, [text]
        elif text.startswith("make"):
            self._end_block()
            self._own.append(text)
        elif self._crates and _RUST_HEAD.match(text):
            self._end_block()
            self._block = [text]
        elif self._block is not None:
            self._block.append(text)
        else:
            self._lines.append(text)

    def flush(self) -> None:
        """Write what was heard of the present target, of crates, and of make itself."""
        self._end_block()
        self._write(self._target, self._lines, silent=1)
        self._write(MAKE_ITSELF, self._own, silent=0)

    def forget(self, target: str) -> None:
        """Drop what was said of a target."""
        if target in self._noisy:
            self._database.execute("DELETE FROM said WHERE target = ?", (target,))
            self._noisy.discard(target)

    def _end_block(self) -> None:
        if self._block is None:
            return
        places = (match["file"] for line in self._block if (match := _RUST_PLACE.match(line)))
        crate = self._crate(next(places, ""))
        self._crates[crate] += self._block
        self._block = None
        self._write(crate, self._crates[crate], silent=1)

    def _crate(self, file: str) -> str:
        """The crate that a file belongs to, of those that are being compiled: the one whose
        object's name the path begins with, else the last."""
        fit = [one for one in self._crates if file.startswith(_stem(one))]
        return max(fit, key=lambda one: len(_stem(one)), default=list(self._crates)[-1])

    def _write(self, target: str, lines: list[str], silent: int) -> None:
        # The line that announces the target is no news of it.
        if len(lines) <= silent:
            self.forget(target)
            return
        row = (target, "\n".join(lines))
        self._database.execute("INSERT OR REPLACE INTO said VALUES (?, ?)", row)
        self._noisy.add(target)


def _stem(target: str) -> str:
    """``rust/kernel`` of ``RUSTC L rust/kernel.o``."""
    return target.split()[-1].rpartition(".")[0]
