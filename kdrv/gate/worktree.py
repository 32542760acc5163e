"""A work tree of our own that walks from commit to commit, changing only the files that differ.

make then sees exactly those as changed, and its build directory stays warm.
"""

from __future__ import annotations

from pathlib import Path

from kdrv.gate.git import Repo

BUSY = "busy"


class WorkTree:
    """A checkout in ``folder/tree``, its index beside it; the caller holds the folder's lock."""

    def __init__(self, store: Repo, folder: Path) -> None:
        self.path = folder / "tree"
        self._busy = folder / BUSY
        self._at = folder / "commit"
        self._index = folder / "index"
        self.git = Repo(store.ctx, store.directory, self.path, self._index)

    @property
    def commit(self) -> str | None:
        """The commit that is checked out, ``None`` when none is, or a checkout was interrupted."""
        if self._busy.exists() or not self._at.exists():
            return None
        return self._at.read_text()

    def checkout(self, commit: str) -> None:
        """Have the files as they are at ``commit``."""
        if self.commit == commit:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        interrupted = self._busy.exists()
        self._busy.touch()
        if interrupted:
            # What a killed checkout had already written stands in no index.
            self._index.with_name("index.lock").unlink(missing_ok=True)
        self.git.run("read-tree", "--reset", "-u", commit)
        if interrupted:
            self.git.run("clean", "-ffdxq")
        self._at.write_text(commit)
        self._busy.unlink()

    def refresh(self) -> None:
        """Tell git that files whose times were changed are the same files."""
        self.git.run("update-index", "-q", "--refresh", check=False)
