from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from kdrv.core.context import Context
from kdrv.core.errors import SetupError
from kdrv.core.store import MANIFEST, Store, digest, remove_tree, write_atomic
from kdrv.core.usage import prune, survey


def _maker(calls: list[str]):
    def make(data: Path) -> Mapping[str, object]:
        calls.append("made")
        (data / "file").write_text("content")
        return {"size": 7}

    return make


def test_equal_inputs_have_equal_keys_and_others_do_not() -> None:
    assert digest("a", {"x": 1, "y": (2, 3)}) == digest("a", {"y": [2, 3], "x": 1})
    assert digest("a", "b") != digest("ab")


def test_an_entry_is_made_once(ctx: Context) -> None:
    calls: list[str] = []
    first = Store(ctx).get("kernel", "k", _maker(calls))
    second = Store(ctx).get("kernel", "k", _maker(calls))
    assert calls == ["made"]
    assert (second.data / "file").read_text() == "content"
    assert first.facts == second.facts == {"size": 7}


def test_a_failed_maker_leaves_no_entry(ctx: Context) -> None:
    def make(data: Path) -> Mapping[str, object]:
        (data / "half").touch()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        Store(ctx).get("kernel", "k", make)
    assert Store(ctx).find("kernel", "k") is None
    assert [path.name for path in Store(ctx).unfinished()] == ["k"]


@pytest.mark.parametrize("resume", [False, True])
def test_what_an_interrupted_maker_left_is_kept_only_to_resume(ctx: Context, resume: bool) -> None:
    left = ctx.cache / "kernel/k/data/half"
    left.parent.mkdir(parents=True)
    left.touch()
    seen: list[bool] = []

    def make(data: Path) -> Mapping[str, object]:
        seen.append((data / "half").exists())
        return {}

    Store(ctx).get("kernel", "k", make, resume=resume)
    assert seen == [resume]


def _slow_make(cache: Path, log: Path, delay: float) -> None:
    def make(data: Path) -> Mapping[str, object]:
        with log.open("a") as file:
            file.write("begin\n")
        time.sleep(delay)
        (data / "file").write_text("content")
        return {}

    Store(Context(cache=cache)).get("kernel", "k", make)


def test_two_runs_at_once_make_it_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    context = multiprocessing.get_context("spawn")
    runs = [context.Process(target=_slow_make, args=(tmp_path / "c", log, 0.3)) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(30)
        assert run.exitcode == 0
    assert log.read_text() == "begin\n"


def test_a_maker_that_was_killed_is_followed_by_another(tmp_path: Path) -> None:
    log = tmp_path / "log"
    context = multiprocessing.get_context("spawn")
    run = context.Process(target=_slow_make, args=(tmp_path / "c", log, 60))
    run.start()
    while not log.exists():
        time.sleep(0.01)
    assert run.pid is not None
    os.kill(run.pid, signal.SIGKILL)
    run.join(30)
    _slow_make(tmp_path / "c", log, 0)
    assert (tmp_path / "c/kernel/k/data/file").read_text() == "content"


def test_a_damaged_manifest_counts_as_missing(ctx: Context) -> None:
    entry = Store(ctx).get("kernel", "k", lambda _: {})
    (entry.path / MANIFEST).write_text('{"facts":')
    assert Store(ctx).find("kernel", "k") is None


def test_entries_beneath_are_used_and_never_written(ctx: Context, tmp_path: Path) -> None:
    below = Store(ctx).get("kernel", "k", lambda data: {"version": "7.3"})
    manifest = below.path / MANIFEST
    os.utime(manifest, (1.0, 1.0))
    upper = Store(Context(cache=tmp_path / "upper", beneath=ctx.cache))
    assert upper.get("kernel", "k", lambda data: {}) == below
    assert manifest.stat().st_mtime == 1.0
    made = upper.get("kernel", "other", lambda data: {})
    assert made.path.is_relative_to(tmp_path / "upper")
    assert Store(ctx).find("kernel", "other") is None


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="cannot write the cache"):
        Store(Context(cache=tmp_path / "file/cache")).get("kernel", "k", lambda _: {})


def test_an_atomic_write_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "f"
    write_atomic(target, "one")
    write_atomic(target, "two")
    assert target.read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_survey_and_prune(ctx: Context) -> None:
    store = Store(ctx)
    for key in ("old", "new"):
        store.get("kernel", key, _maker([]))
    long_ago = time.time() - 90 * 86400
    os.utime(ctx.cache / "kernel/old" / MANIFEST, (long_ago, long_ago))
    (ctx.cache / "kernel/broken/data").mkdir(parents=True)
    (ctx.cache / "ccache/tree").mkdir(parents=True)
    found = survey(ctx)
    assert {item.path.name: item.finished for item in found.items} == {
        "old": True,
        "new": True,
        "broken": False,
        "tree": True,
    }
    assert found.total > 0
    assert {item.path.name for item in prune(ctx, days=30)} == {"old", "broken"}
    assert {item.path.name for item in survey(ctx).items} == {"new", "tree"}
    assert len(prune(ctx, keep=0)) == 2


def test_folders_nested_as_deep_as_nobody_can_name_are_removed(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("nested", dir_fd=here)
        inner = os.open("nested", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    remove_tree(top)
    assert not top.exists()


def test_folders_that_are_closed_to_their_owner_are_removed() -> None:
    # In a process of its own, and as nobody where this one is root, whom nothing is closed to.
    top = Path(tempfile.mkdtemp(prefix="kdrv-"))
    top.chmod(0o777)
    if (child := os.fork()) == 0:
        status = 1
        with contextlib.suppress(BaseException):
            if os.geteuid() == 0:
                os.setuid(65534)
            (top / "a/b/c").mkdir(parents=True)
            (top / "a/b/c/file").touch()
            for name, mode in (("a/b/c", 0o500), ("a/b", 0), ("a", 0)):
                (top / name).chmod(mode)
            remove_tree(top / "a")
            status = int(os.path.lexists(top / "a"))
        os._exit(status)
    _, ended = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(ended) == 0
    top.rmdir()


def test_a_folder_in_place_of_the_manifest_does_not_stay(tmp_path: Path) -> None:
    (tmp_path / "entry" / MANIFEST / "deep").mkdir(parents=True)
    remove_tree(tmp_path / "entry")
    assert not (tmp_path / "entry").exists()
