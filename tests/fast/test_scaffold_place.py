import errno
import os
from pathlib import Path, PurePosixPath

import pytest

from kdrv.core.errors import SetupError, UsageError
from kdrv.scaffold.place import place
from kdrv.scaffold.render import Rendered

FILES = {
    PurePosixPath("a.rs"): Rendered(b"rust\n"),
    PurePosixPath("tests/run.sh"): Rendered(b"#!/bin/sh\n", executable=True),
}


@pytest.fixture
def tree(tmp_path):
    """A directory with two files to edit."""
    for name in ("Kconfig", "Makefile"):
        (tmp_path / name).write_text("before\n")
        (tmp_path / name).chmod(0o640)
    return tmp_path


def edits(tree):
    return {tree / "Kconfig": b"after\n", tree / "Makefile": b"after\n"}


def snapshot(folder):
    return {
        str(path.relative_to(folder)): (path.lstat().st_mode, path.is_file() and path.read_bytes())
        for path in folder.rglob("*")
    }


def test_everything_is_there_with_its_permissions(tree):
    umask = os.umask(0o027)
    try:
        place(tree / "new", FILES, edits(tree))
    finally:
        os.umask(umask)
    assert (tree / "new/a.rs").read_bytes() == b"rust\n"
    assert (tree / "new").stat().st_mode & 0o777 == 0o750
    assert (tree / "new/a.rs").stat().st_mode & 0o777 == 0o640
    assert (tree / "new/tests/run.sh").stat().st_mode & 0o777 == 0o750
    assert (tree / "Kconfig").read_bytes() == b"after\n"
    assert (tree / "Kconfig").stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in tree.iterdir()) == ["Kconfig", "Makefile", "new"]


@pytest.mark.parametrize("kind", ["file", "directory", "empty directory", "dangling link"])
def test_nothing_existing_is_overwritten(tree, kind):
    target = tree / "new"
    match kind:
        case "file":
            target.write_text("mine")
        case "directory":
            target.mkdir()
            (target / "mine").write_text("mine")
        case "empty directory":
            target.mkdir()
        case "dangling link":
            target.symlink_to("nowhere")
    before = snapshot(tree)
    with pytest.raises(UsageError, match="exists already"):
        place(target, FILES, edits(tree))
    assert snapshot(tree) == before


def test_a_missing_parent_is_refused(tmp_path):
    with pytest.raises(UsageError) as error:
        place(tmp_path / "no/new", FILES, {})
    assert error.value.remedy == f"mkdir -p {tmp_path / 'no'}"
    assert list(tmp_path.iterdir()) == []


def every_call(monkeypatch, name, failure, nth):
    """Make the nth call of ``Path.name`` fail."""
    real = getattr(Path, name)
    calls = []

    def call(*args, **kwargs):
        calls.append(args)
        if len(calls) == nth:
            raise failure
        return real(*args, **kwargs)

    monkeypatch.setattr(Path, name, call)
    return calls


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
STEPS = [("write_bytes", 1), ("write_bytes", 2), ("mkdir", 2), ("rename", 1)]
STEPS += [("read_bytes", 1), ("replace", 1), ("replace", 2)]


@pytest.mark.parametrize(("step", "nth"), STEPS)
@pytest.mark.parametrize("failure", [FULL, KeyboardInterrupt()], ids=["full disk", "Ctrl-C"])
def test_a_failure_at_any_step_leaves_nothing_behind(tree, monkeypatch, step, nth, failure):
    before = snapshot(tree)
    with monkeypatch.context() as patch:
        calls = every_call(patch, step, failure, nth)
        with pytest.raises((SetupError, KeyboardInterrupt)):
            place(tree / "new", FILES, edits(tree))
    assert len(calls) >= nth
    assert snapshot(tree) == before


@pytest.mark.parametrize("failure", [FULL, KeyboardInterrupt()], ids=["full disk", "Ctrl-C"])
def test_a_failure_after_the_change_takes_it_back(tree, monkeypatch, failure):
    before = snapshot(tree)
    real = Path.replace

    def replace_then_fail(self, target):
        done = real(self, target)
        if Path(target).name == "Makefile" and Path(target).read_bytes() == b"after\n":
            raise failure
        return done

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace_then_fail)
        with pytest.raises((SetupError, KeyboardInterrupt)):
            place(tree / "new", FILES, edits(tree))
    assert snapshot(tree) == before


def test_a_full_disk_is_one_sentence(tree, monkeypatch):
    every_call(monkeypatch, "write_bytes", FULL, 1)
    with pytest.raises(SetupError, match="No space left") as error:
        place(tree / "new", FILES, {})
    assert str(tree) in error.value.expected
