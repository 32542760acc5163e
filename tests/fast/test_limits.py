"""Limits that hold, in a real sandbox where there is one, and files that are read with care."""

from __future__ import annotations

import os
import pickle
import resource
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from kdrv.core import watch
from kdrv.core.errors import SetupError
from kdrv.core.inside import UntrustedFile, inside, open_inside, read_text_inside, write_text_inside
from kdrv.core.limits import GIB, MIB, LimitExceeded, Limits, physical_memory
from kdrv.core.process import Command, Completed, Inside, Limited, LocalRunner
from kdrv.toolchain.base import Bind
from kdrv.toolchain.sandbox import sandboxed

from .conftest import FakeRunner

SMALL = Limits(
    processes=40, memory=150 * MIB, disk=20 * MIB, file_size=8 * MIB, output=MIB, niceness=0
)
OUT = "/run/kdrv/out"
Try = Callable[..., Completed]

needs_bwrap = pytest.mark.skipif(
    subprocess.run(["sh", "-c", "bwrap --ro-bind / / true"], capture_output=True).returncode != 0,
    reason="no bubblewrap, or no user namespaces here",
)


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "INTERVAL", 0.02)


@pytest.fixture
def attempt(tmp_path: Path) -> Try:
    """Runs a shell script in a sandbox that can write only to ``tmp_path``."""

    def run(script: str, limits: Limits = SMALL) -> Completed:
        binds = [Bind(tmp_path, OUT, writable=True)]
        command = sandboxed(["sh", "-c", script], root=Path("/"), binds=binds, cwd=OUT)
        return LocalRunner().run(command, deadline=60, limits=limits)

    return run


def test_a_kernel_build_has_room_by_default() -> None:
    limits = Limits()
    assert limits.processes > 1000
    assert limits.disk >= 4 * GIB
    assert limits.memory < physical_memory()


def test_what_the_kernel_limits_itself_is_part_of_the_command() -> None:
    argv = Limits(file_size=1000, niceness=7).bounded(["bwrap", "--", "make", "all"], 2)
    line = " ".join(argv)
    assert "--core=0 --fsize=1000" in line.partition("bwrap")[0]
    assert line.endswith("nice -n 7 make all")
    assert Limits(niceness=7).bounded(["git", "log"])[-5:] == ("nice", "-n", "7", "git", "log")


def test_processes_are_limited_by_the_kernel_where_it_counts_the_sandbox_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for release, limited in (("6.1.0-9-amd64", True), ("5.14.0", True), ("5.10.0-8", False)):
        monkeypatch.setattr(os, "uname", lambda release=release: SimpleNamespace(release=release))
        argv = Limits(processes=9).bounded(["bwrap", "--", "make"], 1)
        assert ("--nproc=18" in argv) == limited
        assert "--nproc=18" not in argv[: argv.index("bwrap")]


def test_a_limit_that_the_user_has_already_is_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda limit: (500, 500))
    assert "--fsize=500" in Limits(file_size=1000).bounded(["true"])


def test_a_verdict_travels_between_processes() -> None:
    error = LimitExceeded("too much", what="disk", detail=["last"], reproducer="make")
    again = pickle.loads(pickle.dumps(error))
    assert (again.message, again.what, again.detail) == ("too much", "disk", ("last",))


@needs_bwrap
def test_within_its_limits_a_command_runs_as_ever(attempt: Try, tmp_path: Path) -> None:
    done = attempt("echo hello; echo there > file")
    assert (done.ok, done.output) == (True, "hello\n")
    assert (tmp_path / "file").read_text() == "there\n"


@needs_bwrap
@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="no groups of sessions")
def test_a_sandbox_yields_to_other_sessions_as_a_whole(attempt: Try) -> None:
    done = attempt(
        'until grep -q "nice 7" /proc/self/autogroup; do sleep 0.02; done; nice',
        replace(SMALL, niceness=7),
    )
    assert done.output == f"{os.nice(0) + 7}\n"


@needs_bwrap
@pytest.mark.parametrize(
    ("what", "script"),
    [
        ("processes", "i=0; while [ $i -lt 60 ]; do i=$((i+1)); sleep 600 & done; wait"),
        ("disk", "for i in 1 2 3 4 5 6; do head -c 6000000 /dev/zero > $i; done; sleep 600"),
        (
            "disk",  # without names
            'for i in 3 4 5 6 7 8; do eval "exec $i> f; head -c 6000000 /dev/zero >&$i"; rm f;'
            "done; sleep 600",
        ),
        ("file_size", "exec head -c 9000000 /dev/zero > big"),
        ("output", "exec yes"),
        ("output", "exec cat /dev/zero"),
    ],
)
def test_beyond_a_limit_all_is_killed_and_named(attempt: Try, what: str, script: str) -> None:
    with pytest.raises(LimitExceeded) as caught:
        attempt(script)
    assert caught.value.what == what
    assert caught.value.message.startswith("sh ")
    assert "bwrap" in caught.value.reproducer


@needs_bwrap
def test_memory_counts_for_all_processes_together(attempt: Try) -> None:
    script = "for i in 1 2 3; do head -c 60000000 /dev/zero | tail -c 59000000 | sleep 600 & done;"
    with pytest.raises(LimitExceeded) as caught:
        attempt(script + "wait")
    assert caught.value.what == "memory"


@needs_bwrap
@pytest.mark.parametrize("what", ["spare_disk", "spare_memory"])
def test_what_the_machine_must_keep_is_kept(attempt: Try, what: str) -> None:
    everything = 1 << 60
    limits = replace(SMALL, **{what: everything})
    if what == "spare_disk":
        # Of a disk at most a twentieth, so that a small one can be used at all.
        assert attempt("true", limits).ok
        return
    with pytest.raises(LimitExceeded) as caught:
        attempt("sleep 600", limits)
    assert caught.value.what == what


@needs_bwrap
def test_the_last_lines_tell_what_it_was_doing(attempt: Try) -> None:
    with pytest.raises(LimitExceeded) as caught:
        attempt("echo one; echo two; exec yes three")
    assert "three" in caught.value.detail


@needs_bwrap
def test_a_sandbox_that_cannot_be_watched_is_not_left_alone(
    attempt: Try, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_find", lambda pid: None)
    monkeypatch.setattr(watch, "BLIND_SECONDS", 0.01)
    with pytest.raises(SetupError, match="cannot look into the sandbox of sh"):
        attempt("sleep 600")


@needs_bwrap
def test_nothing_is_left_when_the_call_returns(attempt: Try, tmp_path: Path) -> None:
    """A daemon, which would write once the first process is gone."""
    attempt("(setsid sh -c 'while sleep 0.01; do date +%N > tick; done' > /dev/null 2>&1 &)")
    (tmp_path / "tick").unlink(missing_ok=True)
    assert subprocess.run(["sleep", "0.1"]).returncode == 0
    assert not (tmp_path / "tick").exists()


@needs_bwrap
def test_a_started_program_has_limits_too(tmp_path: Path) -> None:
    script = "while :; do sleep 600 & done"
    command = sandboxed(["sh", "-c", script], root=Path("/"))
    with pytest.raises(LimitExceeded), LocalRunner().start(command, limits=SMALL) as child:
        child.wait(60)


def test_limits_are_given_to_sandboxes_and_to_nothing_else() -> None:
    given = []

    class Recorder(FakeRunner):
        def run(self, command, *, limits=None, **words):
            given.append(limits)
            return super().run(command, **words)

    runner = Limited(Recorder([("", "")]), SMALL)
    runner.run(Command(("git",)), deadline=1)
    runner.run(Command(("bwrap",), inside=Inside(("make",))), deadline=1)
    runner.run(Command(("bwrap",), inside=Inside(("make",))), deadline=1, limits=Limits(output=1))
    assert given == [None, SMALL, Limits(output=1)]


def test_a_file_of_the_build_is_read(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"one\xfftwo")
    (tmp_path / "link").symlink_to("log")
    assert read_text_inside(tmp_path, Path("log"), 100) == "one\ufffdtwo"
    assert read_text_inside(tmp_path, tmp_path / "link", 100) == "one\ufffdtwo"
    assert inside(tmp_path, Path("link")) == tmp_path.resolve() / "log"


def test_a_root_may_be_reached_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/log").write_text("x")
    (tmp_path / "alias").symlink_to("real")
    assert read_text_inside(tmp_path / "alias", Path("log"), 100) == "x"


def _leave(place: Path, kind: str) -> None:
    outside = place.parent / f"{place.name}-secret"
    outside.write_text("secret")
    made = {
        "link": lambda: (place / "log").symlink_to(outside),
        "chain": lambda: ((place / "a").symlink_to(".."), (place / "log").symlink_to("a")),
        "loop": lambda: (place / "log").symlink_to("log"),
        "fifo": lambda: os.mkfifo(place / "log"),
        "device": lambda: (place / "log").symlink_to("/dev/zero"),
        "proc": lambda: (place / "log").symlink_to("/proc/self/environ"),
        "folder": lambda: (place / "log").mkdir(),
        "large": lambda: (place / "log").write_bytes(bytes(101)),
        "name too long": lambda: (place / "log").symlink_to("x" * 300),
    }
    made[kind]()


@pytest.mark.parametrize(
    "kind",
    "link;chain;loop;fifo;device;proc;folder;large;name too long".split(";"),
)
def test_anything_else_is_refused(tmp_path: Path, kind: str) -> None:
    _leave(tmp_path, kind)
    with pytest.raises(UntrustedFile, match="log"):
        open_inside(tmp_path, Path("log"), 100)


@pytest.mark.parametrize("path", ["../x-secret", "/etc/passwd", "a/../../x-secret"])
def test_a_path_that_leads_outside_is_refused(tmp_path: Path, path: str) -> None:
    place = tmp_path / "x"
    (place / "a").mkdir(parents=True)
    (tmp_path / "x-secret").write_text("secret")
    with pytest.raises(UntrustedFile, match="leads out of"):
        inside(place, Path(path))


def test_what_is_not_there_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("nothing")
    for name in ("nothing", "dangling"):
        with pytest.raises(FileNotFoundError):
            read_text_inside(tmp_path, Path(name), 100)


@pytest.mark.parametrize("kind", ["link", "chain", "loop", "fifo", "device", "large", "nothing"])
def test_a_file_is_written_in_place_of_what_lies_there(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "out"
    place.mkdir()
    if kind != "nothing":
        _leave(place, kind)
    write_text_inside(place, Path("log"), "new")
    assert (place / "log").read_text() == "new"
    assert not (place / "log").is_symlink()
    assert {path.name for path in place.iterdir()} <= {"log", "a"}
    if kind == "link":
        assert (tmp_path / "out-secret").read_text() == "secret"


def test_no_file_is_written_outside(tmp_path: Path) -> None:
    place, other = tmp_path / "out", tmp_path / "other"
    place.mkdir()
    other.mkdir()
    (place / "folder").symlink_to(other)
    (place / "log").mkdir()
    for path in ("folder/log", "log", "../other/log"):
        with pytest.raises(UntrustedFile):
            write_text_inside(place, Path(path), "new")
    assert list(other.iterdir()) == []
    assert sorted(path.name for path in place.iterdir()) == ["folder", "log"]
