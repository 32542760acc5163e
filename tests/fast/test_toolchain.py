from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kdrv.core.context import Context
from kdrv.core.errors import SetupError
from kdrv.core.store import MANIFEST
from kdrv.toolchain import debian
from kdrv.toolchain.base import Bind
from kdrv.toolchain.sandbox import NOBODY, python_sandboxed, sandboxed

from .conftest import FakeRunner


def test_the_sandbox_has_no_network_no_environment_and_one_way_in() -> None:
    argv = sandboxed(
        ["make", "all"],
        root=Path("/r"),
        binds=[Bind(Path("/src"), "/run/kdrv/src"), Bind(Path("/o"), "/run/kdrv/out", True)],
        hidden=["/home"],
        cwd="/run/kdrv/out",
        env={"X": "1"},
    ).argv
    line = " ".join(argv)
    assert argv[0] == "bwrap"
    for words in (
        "--unshare-all",
        "--clearenv",
        "--die-with-parent",
        "--ro-bind /r /",
        "--tmpfs /home",
        "--ro-bind /src /run/kdrv/src",
        "--bind /o /run/kdrv/out",
        "--setenv X 1",
        "--chdir /run/kdrv/out -- make all",
    ):
        assert words in line
    assert "--share-net" not in line


def test_builds_are_told_a_fixed_time_and_place() -> None:
    line = " ".join(sandboxed(["true"], root=Path("/")).argv)
    assert "KBUILD_BUILD_TIMESTAMP" in line
    assert "KBUILD_BUILD_HOST kdrv" in line


def test_provisioning_runs_once_and_records_versions(
    ctx: Context, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debian.shutil, "which", lambda name: f"/usr/bin/{name}")
    runner.answers += [("dpkg-query", "gcc 4:14.2.0-1\nmake 4.4\n"), ("mmdebstrap", "I: done\n")]
    first = debian.provision(replace(ctx, mirror="http://mirror/debian"))
    assert first.versions == {"gcc": "4:14.2.0-1", "make": "4.4"}
    assert "http://mirror/debian" in runner.ran[0].shell()
    assert debian.provision(ctx) == first
    assert len(runner.ran) == 2


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("E: Could not resolve 'mirror'", "cannot be reached"),
        ("tar: write error: No space left on device", "is full"),
        ("E: /etc/subuid has no entry for user", "as an ordinary user"),
        ("E: something else", "could not make"),
    ],
)
def test_why_provisioning_failed(
    ctx: Context, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch, said: str, words: str
) -> None:
    monkeypatch.setattr(debian.shutil, "which", lambda name: f"/usr/bin/{name}")
    runner.answers.append(("mmdebstrap", (1, said)))
    with pytest.raises(SetupError, match=words) as caught:
        debian.provision(replace(ctx, mirror="http://mirror/debian"))
    assert caught.value.remedy
    assert debian.find(ctx) is None


def test_an_ordinary_user_is_told_what_to_install(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debian.shutil, "which", lambda name: None)
    monkeypatch.setattr(debian.os, "geteuid", lambda: 1000)
    with pytest.raises(SetupError) as caught:
        debian.provision(replace(ctx, mirror="http://mirror/debian"))
    assert "sudo apt-get install" in caught.value.remedy
    assert "uidmap" in caught.value.remedy


def test_a_half_made_root_is_made_again(
    ctx: Context, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debian.shutil, "which", lambda name: f"/usr/bin/{name}")
    left = ctx.cache / "toolchain" / debian.recipe_key() / "data/root/half"
    left.mkdir(parents=True)
    runner.answers += [("dpkg-query", "gcc 14\n"), ("mmdebstrap", "")]
    debian.provision(replace(ctx, mirror="http://mirror/debian"))
    assert not left.exists()
    manifest = ctx.cache / "toolchain" / debian.recipe_key() / MANIFEST
    assert json.loads(manifest.read_text())["facts"]["packages"] == {"gcc": "14"}


@pytest.mark.skipif(
    subprocess.run(["sh", "-c", "bwrap --ro-bind / / true"], capture_output=True).returncode != 0,
    reason="no bubblewrap, or no user namespaces here",
)
def test_a_real_sandbox_keeps_its_promises(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    script = (
        "touch /run/kdrv/src/x 2>/dev/null && echo WROTE-SOURCE; "
        "touch /etc/x 2>/dev/null && echo WROTE-ROOT; "
        "touch /run/kdrv/out/x && echo output; "
        "cat /proc/net/dev | grep -v lo: | tail -n +3; env | grep -c SECRET"
    )
    command = sandboxed(
        ["sh", "-c", script],
        root=Path("/"),
        binds=[
            Bind(tmp_path / "in", "/run/kdrv/src"),
            Bind(tmp_path / "out", "/run/kdrv/out", writable=True),
        ],
    )
    done = subprocess.run(
        command.argv, capture_output=True, text=True, env={"SECRET": "1", "PATH": "/usr/bin:/bin"}
    )
    assert done.stdout.split() == ["output", "0"], done.stderr


@pytest.mark.skipif(
    subprocess.run(["sh", "-c", "bwrap --ro-bind / / true"], capture_output=True).returncode != 0,
    reason="no bubblewrap, or no user namespaces here",
)
def test_python_of_strangers_sees_itself_and_can_make_sandboxes(tmp_path: Path) -> None:
    shown, hidden, out = tmp_path / "shown", tmp_path / "hidden", tmp_path / "out"
    for folder in (shown, hidden, out):
        folder.mkdir()
        (folder / "file").write_text("text")
    if os.geteuid() == 0:
        os.chown(out, NOBODY, NOBODY)
    program = f"""
import os, socket, subprocess
from pathlib import Path
import kdrv
from kdrv.toolchain.base import Bind
from kdrv.toolchain.sandbox import NOBODY, python_sandboxed, sandboxed

assert Path("{shown}/file").read_text() == "text"
assert not Path("{hidden}").exists()
assert [name for _, name in socket.if_nameindex()] == ["lo"]
assert "SECRET" not in os.environ
for place in ("{shown}/file", "/x", "/usr/x", "/etc/passwd", "/proc/sys/kernel/core_pattern"):
    try:
        Path(place).write_text("x")
    except OSError:
        continue
    raise AssertionError(place)
Path("{out}/made").write_text("made")
binds = [Bind(Path("{shown}"), "/run/shown")]
inner = sandboxed(["cat", "/run/shown/file", "/proc/self/comm"], root=Path("/"), binds=binds)
print(subprocess.run(inner.argv, capture_output=True, text=True, check=True).stdout)
"""
    argv = [sys.executable, "-c", program]
    command = python_sandboxed(argv, shown=[shown], writable=out)
    done = subprocess.run(
        command.argv, capture_output=True, text=True, env={"SECRET": "1", "PATH": "/usr/bin:/bin"}
    )
    assert done.stdout.split() == ["textcat"], done.stderr
    assert (out / "made").read_text() == "made"
