from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from kdrv.build.interrupted import MARKER, guarded, undo


def _file(path: Path, at: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (at, at))


def test_after_a_kill_doubtful_files_are_deleted(tmp_path: Path) -> None:
    _file(tmp_path / MARKER, 1000)
    _file(tmp_path / "before.o", 900)
    _file(tmp_path / "a/whole.o", 1010)
    _file(tmp_path / "a/.whole.o.cmd", 1010.5)
    _file(tmp_path / "a/half.o", 1020)
    _file(tmp_path / "a/.half.o.cmd", 950)
    _file(tmp_path / "last.o", 1100)
    _file(tmp_path / ".last.o.cmd", 1100)
    with guarded(tmp_path):
        left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.o")}
    assert left == {"before.o", "a/whole.o"}
    assert not (tmp_path / MARKER).exists()


def test_a_build_that_ended_by_itself_leaves_no_doubt(tmp_path: Path) -> None:
    with guarded(tmp_path):
        (tmp_path / "new.o").touch()
    with guarded(tmp_path):
        assert (tmp_path / "new.o").exists()


def test_a_build_that_was_broken_off_leaves_the_mark(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), guarded(tmp_path):
        raise KeyboardInterrupt
    assert (tmp_path / MARKER).exists()


def test_what_kconfig_renames_into_place_is_whole(tmp_path: Path) -> None:
    """Without auto.conf Kconfig would touch every symbol, and make would make everything anew."""
    _file(tmp_path / MARKER, 1000)
    kept = (".config", "include/config/auto.conf", "include/config/RUST")
    for name in (*kept, "include/generated/autoconf.h", "include/generated/bounds.h"):
        _file(tmp_path / name, 1100)
    with guarded(tmp_path):
        assert all((tmp_path / name).exists() for name in kept)
        assert (tmp_path / "include/generated/autoconf.h").exists()
        assert not (tmp_path / "include/generated/bounds.h").exists()


def test_what_was_written_since_is_undone_whatever_time_it_claims(tmp_path: Path) -> None:
    _file(tmp_path / "before.o", 900)
    time.sleep(0.02)  # a tick of the file system's clock
    began = time.time()
    time.sleep(0.02)
    _file(tmp_path / "fill", 900)
    _file(tmp_path / "include/config/auto.conf", 900)
    (tmp_path / "link").symlink_to("/etc/passwd")
    undo(tmp_path, began)
    left = {path.name for path in tmp_path.rglob("*") if not path.is_dir()}
    assert left == {"before.o", "auto.conf"}


def test_a_makefile_that_takes_the_mark_away_is_no_trouble(tmp_path: Path) -> None:
    with guarded(tmp_path):
        (tmp_path / MARKER).unlink()
    assert not (tmp_path / MARKER).exists()


def test_undoing_reaches_into_folders_that_were_closed(tmp_path: Path) -> None:
    began = time.time() - 1
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed/new.o").touch()
    (tmp_path / "closed").chmod(0o555)
    undo(tmp_path, began)
    assert not (tmp_path / "closed/new.o").exists()
