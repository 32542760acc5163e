"""Git, kept away from the user's repository: a store and work trees of our own.

The store borrows the objects of the user's repository (gitrepository-layout(5): objects/info/
alternates) and writes its own elsewhere. Nothing of the user's is ever written: no ref, no index,
no object, no entry among its work trees.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kdrv.core.context import Context
from kdrv.core.errors import UsageError
from kdrv.core.process import Command, Completed
from kdrv.core.store import Store, digest, write_atomic

KIND = "gate-git"
DEADLINE = 900.0
# Neither a hook nor a filter, neither an editor nor a signing key of the user's has a say here.
QUIET = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.autocrlf=false",
    "core.symlinks=true",
    "commit.gpgSign=false",
    "gc.auto=0",
)


@dataclass(frozen=True)
class Repo:
    """A git directory, and perhaps a work tree and an index to use with it."""

    ctx: Context
    directory: Path
    work_tree: Path | None = None
    index: Path | None = None

    def command(self, *words: str, env: Mapping[str, str] | None = None) -> Command:
        """``git words`` for this repository."""
        argv = ["git", *(part for one in QUIET for part in ("-c", one))]
        argv.append(f"--git-dir={self.directory}")
        if self.work_tree:
            argv.append(f"--work-tree={self.work_tree}")
        clean = {
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_SYSTEM": "/dev/null",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_TERMINAL_PROMPT": "0",
            "LC_ALL": "C.UTF-8",
        }
        if self.index:
            clean["GIT_INDEX_FILE"] = str(self.index)
        return Command((*argv, *words), cwd=self.work_tree, env={**clean, **(env or {})})

    def run(
        self,
        *words: str,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        input: str | None = None,
    ) -> Completed:
        """Run git; raises :class:`CommandFailed` on failure, unless ``check`` is false."""
        command = self.command(*words, env=env)
        return self.ctx.runner.run(command, deadline=DEADLINE, check=check, input=input)

    def text(self, *words: str) -> str:
        """What git says, without the last line's end."""
        return self.run(*words).output.rstrip("\n")

    def blob(self, commit: str, path: str) -> str | None:
        """A file's content at a commit, ``None`` where there is none; read without following
        links, and what is no UTF-8 is replaced."""
        done = self.run("cat-file", "blob", f"{commit}:{path}", check=False)
        return done.output if done.ok else None

    def resolve(self, name: str) -> str | None:
        """The full id of the commit that ``name`` means, ``None`` when it means none."""
        done = self.run("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", check=False)
        return done.output.strip() if done.ok else None


def open_repo(ctx: Context, path: Path) -> Repo:
    """The repository that ``path`` lies in, only ever read.

    Raises :class:`UsageError` when there is none.
    """
    words = ("rev-parse", "--path-format=absolute", "--git-common-dir")
    here = Command(("git", "-C", str(path), *words), env={"LC_ALL": "C.UTF-8"})
    done = ctx.runner.run(here, deadline=DEADLINE, check=False)
    if not done.ok:
        raise UsageError(
            f"{path} is in no git repository that git would read",
            expected="a clone of the kernel's tree",
            detail=done.tail(3),
            remedy="kdrv gate --repo DIR BASE..TIP",
        )
    return Repo(ctx, Path(done.output.strip()))


def borrow(ctx: Context, theirs: Repo) -> Repo:
    """Our own bare repository that sees every object of ``theirs`` and writes only to itself."""
    key = digest("gate-git-1", str(theirs.directory))
    facts = {"repository": str(theirs.directory)}
    with Store(ctx).workspace(KIND, key, facts, waiting=f"git of {theirs.directory}") as data:
        ours = Repo(ctx, data / "store.git")
        if not (ours.directory / "HEAD").exists():
            bare = Command(("git", "init", "--quiet", "--bare", str(ours.directory)))
            ctx.runner.run(bare, deadline=DEADLINE)
        alternates = ours.directory / "objects/info/alternates"
        write_atomic(alternates, f"{theirs.directory / 'objects'}\n")
        # A clone of CI's is often shallow: where its history ends is no object.
        shallow = theirs.directory / "shallow"
        if shallow.exists():
            write_atomic(ours.directory / "shallow", shallow.read_text())
    return ours
