"""Reading a series from git: a linear walk along first parents."""

from __future__ import annotations

from collections.abc import Iterator

from kdrv.core.errors import UsageError
from kdrv.gate.git import Repo
from kdrv.gate.series import Change, Patch, Series, Status

_FIELDS = "%H%x00%P%x00%T%x00%s%x00%an <%ae>%x00%B"


def read_range(theirs: Repo, ours: Repo, source: str) -> Series:
    """The series that ``BASE..TIP`` names in the user's repository.

    Raises :class:`UsageError` when an end is no commit, the tip does not stand on the base, or
    there is nothing between them.
    """
    base, dots, tip = source.partition("..")
    if not dots or tip.startswith("."):
        raise UsageError(
            f"{source} is no range of commits",
            expected="BASE..TIP",
            remedy="kdrv gate HEAD~1..HEAD",
        )
    ends = []
    for name in (base or "HEAD", tip or "HEAD"):
        commit = theirs.resolve(name)
        if commit is None:
            raise UsageError(
                f"{name} is no commit of {theirs.directory}",
                expected="a branch, tag or commit id on both sides of ..",
                remedy=f"git -C {theirs.directory} branch --all, or git fetch",
            )
        ends.append(commit)
    return read_series(ours, source, *ends)


def read_series(git: Repo, source: str, base: str, tip: str) -> Series:
    """The patches from ``base`` (a commit id) to ``tip``, a merge being one step of its own.

    Raises :class:`UsageError` as :func:`read_range` does.
    """
    # The tip's own line: where a merge brings the base in from its side, there is no such line.
    line = git.text("rev-list", "--first-parent", "--reverse", "--parents", f"{base}..{tip}")
    commits = [words.split() for words in line.splitlines()]
    if not commits:
        swapped = git.text("rev-list", "--count", f"{tip}..{base}") != "0"
        raise UsageError(
            f"{source} holds no patch",
            expected="the older end first" if swapped else "a tip with commits on top of the base",
            remedy=f"kdrv gate {tip[:12]}..{base[:12]}" if swapped else "git log BASE..TIP",
        )
    if len(commits[0]) < 2 or commits[0][1] != base:
        fork = git.run("merge-base", base, tip, check=False).output.strip()
        raise UsageError(
            f"the tip of {source} does not stand on its base",
            expected="a series based on BASE itself",
            remedy=f"kdrv gate {fork[:12]}..{tip[:12]}" if fork else "rebase the series onto BASE",
        )
    patches = tuple(
        _patch(git, number, words[0], words[1]) for number, words in enumerate(commits, 1)
    )
    return Series(source, base, tip, patches)


def _patch(git: Repo, number: int, commit: str, parent: str) -> Patch:
    text = git.text("show", "--no-patch", f"--format={_FIELDS}", commit)
    _, _, tree, subject, author, message = text.split("\0", 5)
    return Patch(
        number, commit, parent, tree, subject, author, message, changes(git, parent, commit)
    )


def merged(git: Repo, patch: Patch) -> int:
    """How many commits a merge brings in from its other sides; 0 for an ordinary patch."""
    return int(git.text("rev-list", "--count", f"{patch.parent}..{patch.commit}")) - 1


def changes(git: Repo, parent: str, commit: str) -> tuple[Change, ...]:
    """What a commit changes against its parent (git-diff-tree(1), the -z formats)."""
    words = ("diff-tree", "-r", "-z", "-M")
    counted = dict(_counts(iter(git.text(*words, "--numstat", parent, commit).split("\0"))))
    raw = iter(git.text(*words, "--raw", parent, commit).split("\0"))
    found = []
    for head in raw:
        if not head:
            break
        _, mode, _, _, letter = head.removeprefix(":").split(" ")
        renamed = letter[0] in "RC"
        old = next(raw) if renamed else ""
        path = next(raw)
        # A change of the type (T) is a change; a copy (C) is a new file.
        status = {"A": Status.ADDED, "C": Status.ADDED, "D": Status.DELETED, "R": Status.RENAMED}
        added, removed = counted.get(path, (0, 0))
        found.append(
            Change(path, status.get(letter[0], Status.MODIFIED), added, removed, old, mode)
        )
    return tuple(found)


def _counts(fields: Iterator[str]) -> Iterator[tuple[str, tuple[int, int]]]:
    for field in fields:
        if not field:
            return
        added, removed, path = field.split("\t", 2)
        if not path:
            next(fields)
            path = next(fields)
        yield path, (0, 0) if added == "-" else (int(added), int(removed))
