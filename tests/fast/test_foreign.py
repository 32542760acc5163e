"""Programs for guests of another architecture, and room on the disk for what is made."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path

import pytest

from kdrv.core import space
from kdrv.core.context import Context
from kdrv.core.errors import SetupError
from kdrv.core.process import Command
from kdrv.core.space import GIB, require_space
from kdrv.guest import base
from kdrv.kernel.arch import Arch
from kdrv.toolchain import debian, foreign
from kdrv.toolchain.foreign import foreign_program

from .conftest import FakeRunner

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(foreign, "debian_mirror", lambda: "http://mirror/debian")


def unpack(command: Command) -> str:
    root = Path(command.argv[-2])
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/busybox").write_bytes(b"arm64 busybox")
    return ""


def test_a_program_is_fetched_once(ctx: Context, runner: FakeRunner) -> None:
    runner.answers.append(("mmdebstrap", unpack))
    path = foreign_program(ctx, "busybox-static", "usr/bin/busybox", "arm64")
    assert path.read_bytes() == b"arm64 busybox"
    assert foreign_program(ctx, "busybox-static", "usr/bin/busybox", "arm64") == path
    (ran,) = runner.ran
    line = ran.shell()
    assert "--variant=extract" in line
    assert "--architectures=arm64" in line
    assert "--include=busybox-static" in line
    assert "deb http://mirror/debian trixie main" in line


@pytest.mark.parametrize("user", [0, 1000])
def test_unpacking_needs_no_root(
    ctx: Context, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch, user: int
) -> None:
    monkeypatch.setattr(foreign.os, "geteuid", lambda: user)
    runner.answers.append(("mmdebstrap", unpack))
    foreign_program(ctx, "busybox-static", "usr/bin/busybox", "arm64")
    assert ("--mode=root" if user == 0 else "--mode=chrootless") in runner.ran[0].argv


def test_without_the_mirror_a_guest_goes_without_a_shell(ctx: Context, runner: FakeRunner) -> None:
    runner.answers.append(("mmdebstrap", (1, "E: Could not resolve 'mirror'")))
    heard: list[str] = []
    ctx.events.subscribe(lambda event: heard.append(str(event)))
    assert base._busybox(ctx, Arch.ARM64) is None
    assert any("the guest gets no shell" in words for words in heard)
    assert base._busybox(ctx, Arch.X86_64) is None


def test_a_disk_with_too_little_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = Usage(10 * GIB, 9 * GIB, GIB)
    monkeypatch.setattr(space.shutil, "disk_usage", lambda place: usage)
    place = tmp_path / "not/there/yet"
    require_space(place, 1.0, "a kernel tree")
    with pytest.raises(SetupError) as caught:
        require_space(place, 2.0, "a kernel tree")
    assert caught.value.message == (
        f"the disk of {place} is full: 1.0 GB are free, a kernel tree needs 2 GB"
    )
    assert "XDG_CACHE_HOME" in caught.value.remedy
