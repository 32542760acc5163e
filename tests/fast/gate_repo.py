"""A small git repository, and patches of it as the gate reads them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kdrv.core.context import Context
from kdrv.gate.git import Repo
from kdrv.gate.history import read_series
from kdrv.gate.series import Patch, Series

AUTHOR = ("A Developer", "dev@example.org")
SIGNED = f"Signed-off-by: {AUTHOR[0]} <{AUTHOR[1]}>"
ENV = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
    "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
}
FOR = {"GIT_AUTHOR": AUTHOR, "GIT_COMMITTER": AUTHOR}


@dataclass
class History:
    """Commits on top of one another; ``None`` as a file's content deletes it, a path as content
    makes it a symbolic link."""

    path: Path
    commits: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *words: str, env: Mapping[str, str] | None = None, input: str = "") -> str:
        people = {f"{who}_NAME": name for who, (name, _) in FOR.items()}
        people |= {f"{who}_EMAIL": mail for who, (_, mail) in FOR.items()}
        done = subprocess.run(
            ("git", *words),
            cwd=self.path,
            env={**os.environ, **ENV, **people, **(env or {})},
            input=input,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def commit(
        self,
        files: Mapping[str, str | Path | None],
        message: str = f"driver: do it\n\nIt has to be done.\n\n{SIGNED}\n",
        **env: str,
    ) -> str:
        for name, content in files.items():
            file = self.path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                file.unlink()
            elif isinstance(content, Path):
                file.symlink_to(content)
            else:
                file.write_text(content)
        self.git("add", "--all", "--force")
        self.git("commit", "--quiet", "--allow-empty", "--file=-", env=env, input=message)
        self.commits.append(self.git("rev-parse", "HEAD"))
        return self.commits[-1]

    @property
    def repo(self) -> Repo:
        return Repo(Context(cache=self.path / ".git/cache"), self.path / ".git")

    def series(self, base: int = 0) -> Series:
        """The commits after the one with that index."""
        return read_series(self.repo, "base..tip", self.commits[base], self.commits[-1])

    @property
    def last(self) -> Patch:
        return self.series(len(self.commits) - 2).patches[-1]
