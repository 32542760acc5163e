"""Series from git and from mails, without touching the user's repository."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from kdrv.core.context import Context
from kdrv.core.errors import UsageError
from kdrv.gate.git import Repo, borrow, open_repo
from kdrv.gate.history import merged, read_range
from kdrv.gate.mails import apply, named_base, read_folder, read_mails
from kdrv.gate.series import Status
from kdrv.gate.worktree import WorkTree

LINES = "".join(f"line {n}\n" for n in range(40))


class Theirs:
    """A user's repository with a base commit of three files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self("init", "-q", "-b", "main")
        self("config", "user.name", "Ada")
        self("config", "user.email", "ada@example.org")
        self.base = self.commit("Base", {"a": LINES, "b": "b\n", "d/c": "c\n"})

    def __call__(self, *words: str) -> str:
        argv = ["git", "-C", str(self.path), *words]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    def commit(self, subject: str, files: dict[str, str | None]) -> str:
        for name, text in files.items():
            path = self.path / name
            path.parent.mkdir(exist_ok=True)
            if text is None:
                path.unlink()
            else:
                path.write_text(text)
        self("add", "-A")
        self("commit", "-q", "-m", f"{subject}\n\nWhy.\n\nSigned-off-by: Ada <ada@example.org>")
        return self("rev-parse", "HEAD").strip()

    def mbox(self) -> bytes:
        words = ("format-patch", "--stdout", "--thread", f"--base={self.base}", f"{self.base}..")
        return self(*words).encode()

    def everything(self) -> dict[str, bytes]:
        files = (path for path in sorted(self.path.rglob("*")) if path.is_file())
        return {str(path.relative_to(self.path)): path.read_bytes() for path in files}


@pytest.fixture
def theirs(tmp_path: Path) -> Theirs:
    return Theirs(tmp_path / "linux")


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return Context(cache=tmp_path / "cache")


@pytest.fixture
def pair(ctx: Context, theirs: Theirs) -> tuple[Repo, Repo]:
    opened = open_repo(ctx, theirs.path)
    return opened, borrow(ctx, opened)


def test_a_series_in_order_with_all_it_changes(theirs: Theirs, pair: tuple[Repo, Repo]) -> None:
    first = theirs.commit("First", {"b": "b\nmore\n", "new": "1\n2\n"})
    (theirs.path / "link").symlink_to("/etc/passwd")
    second = theirs.commit("Second: ü", {"d/c": None, "d/moved": "c\n"})
    series = read_range(*pair, "HEAD~2..HEAD")
    one, two = series.patches
    assert (series.base, series.tip) == (theirs.base, second)
    assert (one.commit, one.parent) == (first, theirs.base)
    assert (one.subject, one.author) == ("First", "Ada <ada@example.org>")
    assert "Signed-off-by: Ada" in one.message
    kinds = {change.path: (change.status, change.added, change.removed) for change in one.changes}
    assert kinds == {"b": (Status.MODIFIED, 1, 0), "new": (Status.ADDED, 2, 0)}
    assert two.subject == "Second: ü"
    moved = next(change for change in two.changes if change.path == "d/moved")
    assert (moved.status, moved.old) == (Status.RENAMED, "d/c")
    assert next(c for c in two.changes if c.path == "link").mode == "120000"


def test_a_merge_is_one_step(theirs: Theirs, pair: tuple[Repo, Repo]) -> None:
    theirs("checkout", "-q", "-b", "side")
    theirs.commit("Side 1", {"x": "x\n"})
    theirs.commit("Side 2", {"y": "y\n"})
    theirs("checkout", "-q", "main")
    theirs.commit("Main 1", {"z": "z\n"})
    theirs("merge", "-q", "--no-ff", "-m", "Merge side", "side")
    series = read_range(*pair, f"{theirs.base}..main")
    assert [patch.subject for patch in series.patches] == ["Main 1", "Merge side"]
    assert [merged(pair[1], patch) for patch in series.patches] == [0, 2]
    assert set(series.patches[1].paths) == {"x", "y"}


@pytest.mark.parametrize(
    ("source", "message", "remedy"),
    [
        ("HEAD..HEAD", "holds no patch", "git log"),
        ("HEAD..HEAD~1", "holds no patch", "kdrv gate "),
        ("nowhere..HEAD", "nowhere is no commit", "git fetch"),
        ("HEAD", "is no range", "kdrv gate"),
        ("HEAD...main", "is no range", "kdrv gate"),
    ],
)
def test_a_range_that_is_none_is_refused(
    theirs: Theirs, pair: tuple[Repo, Repo], source: str, message: str, remedy: str
) -> None:
    theirs.commit("First", {"b": "2\n"})
    with pytest.raises(UsageError, match=message) as raised:
        read_range(*pair, source)
    assert remedy in raised.value.remedy


def test_a_tip_beside_the_base_is_refused_with_the_fork(
    theirs: Theirs, pair: tuple[Repo, Repo]
) -> None:
    theirs("checkout", "-q", "-b", "side")
    theirs.commit("Side", {"x": "x\n"})
    theirs("checkout", "-q", "main")
    theirs.commit("Main", {"z": "z\n"})
    with pytest.raises(UsageError, match="does not stand on its base") as raised:
        read_range(*pair, "main..side")
    assert theirs.base[:12] in raised.value.remedy


def test_mails_become_the_same_commits_each_time(theirs: Theirs, pair: tuple[Repo, Repo]) -> None:
    theirs.commit("First", {"b": "b\nmore\n"})
    theirs.commit("Second", {"a": LINES + "end\n"})
    ours, text = pair[1], theirs.mbox()
    mails = read_mails(ours, [text])
    assert [mail.title for mail in mails] == ["First", "Second"]
    assert named_base([text]) == theirs.base
    applied = apply(ours, theirs.base, mails)
    assert applied.refused is None
    assert applied == apply(ours, theirs.base, mails)
    assert ours.blob(applied.tip, "b") == "b\nmore\n"
    assert ours.text("show", "--no-patch", "--format=%an %s", applied.tip) == "Ada Second"
    assert all(identifier.startswith("<") for identifier in applied.message_ids.values())


def test_the_users_repository_is_never_written(theirs: Theirs, ctx: Context) -> None:
    theirs.commit("First", {"b": "b\nmore\n"})
    (theirs.path / "b").write_text("uncommitted\n")
    text = theirs.mbox()
    before = theirs.everything()
    opened = open_repo(ctx, theirs.path)
    ours = borrow(ctx, opened)
    series = read_range(opened, ours, f"{theirs.base}..HEAD")
    applied = apply(ours, theirs.base, read_mails(ours, [text]))
    WorkTree(ours, ctx.cache).checkout(series.tip)
    assert ours.resolve(applied.tip)
    assert theirs.everything() == before


def test_a_patch_that_does_not_apply_is_named_with_its_hunk(
    theirs: Theirs, pair: tuple[Repo, Repo]
) -> None:
    theirs.commit("First", {"b": "b\nmore\n"})
    theirs.commit("Second", {"a": LINES.replace("17", "xvii")})
    text = theirs.mbox()
    theirs("checkout", "-q", "--detach", theirs.base)
    other = theirs.commit("Other", {"a": LINES.replace("line 17", "row 17")})
    applied = apply(pair[1], other, read_mails(pair[1], [text]))
    assert applied.refused is not None
    assert (applied.refused.number, applied.refused.left) == (2, 0)
    assert applied.refused.mail.title == "Second"
    assert applied.refused.why[0].startswith("a:15: ")
    assert any("+line xvii" in line for line in applied.refused.why)
    assert pair[1].blob(applied.tip, "b") == "b\nmore\n"


def test_bytes_that_are_no_utf8_arrive_as_they_are(theirs: Theirs, pair: tuple[Repo, Repo]) -> None:
    names = "Andr\xe9\nJ\xf6rg\n".encode("latin-1")
    (theirs.path / "b").write_bytes(names)
    base = theirs.commit("Names", {})
    (theirs.path / "b").write_bytes(names + b"Ren\xe9\n")
    theirs.commit("One more", {})
    words = ("git", "-C", str(theirs.path), "format-patch", "--stdout", f"{base}..")
    text = subprocess.run(words, check=True, capture_output=True).stdout
    mails = read_mails(pair[1], [text])
    applied = apply(pair[1], base, mails)
    assert applied.refused is None
    assert (
        pair[1].text("rev-parse", f"{applied.tip}^{{tree}}")
        == theirs("rev-parse", "HEAD^{tree}").strip()
    )
    # Where they do not apply, the hunk can be shown and written as JSON.
    refused = apply(pair[1], theirs.base, mails).refused
    assert refused is not None
    "".join(refused.why).encode()


def test_a_folder_of_patches_and_mails_without_any(
    theirs: Theirs, pair: tuple[Repo, Repo], tmp_path: Path
) -> None:
    theirs.commit("First", {"b": "b\nmore\n"})
    theirs.commit("Second", {"b": "b\nmore\nand more\n"})
    folder = tmp_path / "patches"
    theirs("format-patch", "-q", "--cover-letter", "-o", str(folder), f"{theirs.base}..")
    assert [mail.title for mail in read_mails(pair[1], read_folder(folder))] == ["First", "Second"]
    with pytest.raises(UsageError, match="holds no patch"):
        read_mails(pair[1], [b"From x\nSubject: hello\n\nNo patch here.\n"])
    with pytest.raises(UsageError, match="holds no patch"):
        read_mails(pair[1], [b""])


def test_a_work_tree_changes_only_what_differs(
    theirs: Theirs, pair: tuple[Repo, Repo], tmp_path: Path
) -> None:
    first = theirs.commit("First", {"b": "b\nmore\n", "new": "new\n"})
    folder = tmp_path / "walk"
    tree = WorkTree(pair[1], folder)
    tree.checkout(theirs.base)
    stamp = (tree.path / "a").stat().st_mtime_ns
    tree.checkout(first)
    assert (tree.path / "b").read_text() == "b\nmore\n"
    assert (tree.path / "a").stat().st_mtime_ns == stamp
    assert WorkTree(pair[1], folder).commit == first
    tree.checkout(theirs.base)
    assert not (tree.path / "new").exists()


def test_a_checkout_that_was_killed_is_done_again(
    theirs: Theirs, pair: tuple[Repo, Repo], tmp_path: Path
) -> None:
    folder = tmp_path / "walk"
    tree = WorkTree(pair[1], folder)
    tree.checkout(theirs.base)
    (folder / "busy").touch()
    (folder / "index.lock").touch()
    (tree.path / "half").write_text("half a new file")
    (tree.path / "a").write_text("half a file")
    assert tree.commit is None
    tree.checkout(theirs.base)
    assert not (tree.path / "half").exists()
    assert (tree.path / "a").read_text() == LINES


def test_no_repository_is_an_error_with_a_remedy(ctx: Context, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no git repository") as raised:
        open_repo(ctx, tmp_path)
    assert "--repo" in raised.value.remedy


MAIL = """From x Mon Sep 17 00:00:00 2001
From: {author}
Date: {date}
Subject: [PATCH {number}/2] Odd
Message-ID: {identifier}

Why.

---
 b | 1 +

diff --git a/b b/b
--- a/b
+++ b/b
@@ -1 +1,2 @@
 b
+{line}
"""
WELL = {
    "author": "Ada <ada@example.org>",
    "date": "Mon, 17 Sep 2001 00:00:00 +0000",
    "number": "1",
    "identifier": "<1@example.org>",
    "line": "more",
}


@pytest.mark.parametrize(
    ("odd", "applies"),
    [
        ({}, True),
        ({"identifier": "<>"}, True),
        ({"identifier": "<a@"}, True),
        ({"identifier": "<a@["}, True),
        ({"number": "1" * 5000}, True),
        ({"author": ""}, False),
        ({"date": "the day before yesterday"}, False),
    ],
    ids=lambda value: next(iter(value), "well") if isinstance(value, dict) else "",
)
def test_what_a_stranger_writes_into_a_mail_ends_nothing(
    theirs: Theirs, pair: tuple[Repo, Repo], odd: dict[str, str], applies: bool
) -> None:
    mails = read_mails(pair[1], [MAIL.format(**{**WELL, **odd}).encode()])
    applied = apply(pair[1], theirs.base, mails)
    assert (applied.refused is None) == applies
    if applied.refused:
        assert applied.tip == theirs.base
        assert "no commit" in applied.refused.why[0]
