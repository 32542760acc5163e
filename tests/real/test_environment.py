"""A machine that lacks something: one clear sentence, the remedy, exit code 2, and nothing lost.

The machine is this one in a namespace of its own: without network, or with a small disk for the
cache, in which what was built before is shown.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from kdrv.build.api import LaneBuild
from kdrv.core.context import Context
from kdrv.core.store import Store

from .conftest import Said

pytestmark = pytest.mark.real

KDRV = f"{sys.executable} -c 'from kdrv.cli.main import main; main()'"
DEADLINE = 900
KEPT = ("toolchain", "source", "kernel", "select", "initramfs")


@pytest.fixture
def elsewhere(tmp_path: Path, ctx: Context) -> Callable[..., Said]:
    """Runs a shell script in which ``kdrv`` is kdrv, with a cache of its own.

    ``room`` is the size of that cache's disk in bytes; ``kept`` shows in it what is here.
    """
    cache = tmp_path / "cache"
    cache.mkdir()

    def run(script: str, *options: str, room: int = 0, kept: Sequence[str] = ()) -> Said:
        argv = ["bwrap", "--dev-bind", "/", "/", *options]
        if room:
            argv += ["--size", str(room), "--tmpfs", str(cache)]
        argv += ["--dir", str(cache / "kdrv")]
        for name in kept:
            (ctx.cache / name).mkdir(exist_ok=True)
            argv += ["--bind", str(ctx.cache / name), str(cache / "kdrv" / name)]
        prelude = f'kdrv() {{ {KDRV} "$@"; }}\n'
        done = subprocess.run(
            [*argv, "sh", "-c", prelude + script],
            env={**os.environ, "XDG_CACHE_HOME": str(cache)},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Said(done.returncode, done.stdout, done.stderr)

    return run


def test_no_network_and_nothing_in_the_cache(
    elsewhere: Callable[..., Said], tmp_path: Path
) -> None:
    said = elsewhere("kdrv setup", "--unshare-net")
    assert said.status == 2
    assert "kdrv: cannot read the package index from the Debian mirror" in said.err
    assert "remedy: check with: apt-get update" in said.err
    # Nothing is left that a later run would trip over.
    left = Store(Context(cache=tmp_path / "cache/kdrv"))
    assert (left.entries(), left.unfinished()) == ([], [])


def test_no_network_is_no_matter_once_all_is_there(
    elsewhere: Callable[..., Said], project: Callable[..., Path], rust_lane: LaneBuild
) -> None:
    place = project("misc")
    said = elsewhere(f"kdrv test --qemu {place} -q", "--unshare-net", kept=KEPT)
    assert said.status == 0, said.err + said.out
    assert "passed on Linux" in said.out


def test_a_disk_too_small_for_anything(elsewhere: Callable[..., Said]) -> None:
    said = elsewhere("kdrv setup", room=20 << 20)
    assert said.status == 2
    assert "is full" in said.err
    assert "GB are free" in said.err
    assert "set XDG_CACHE_HOME to a larger disk" in said.err


def test_a_disk_that_fills_up_while_a_driver_is_built(
    elsewhere: Callable[..., Said], project: Callable[..., Path], rust_lane: LaneBuild
) -> None:
    place = project("misc")
    said = elsewhere(
        "head -c 64M /dev/zero > $XDG_CACHE_HOME/filler 2>/dev/null\n"
        f"kdrv build {place}; echo status $?\n"
        "rm $XDG_CACHE_HOME/filler\n"
        f"kdrv build {place}; echo status $?\n",
        room=8 << 20,
        kept=KEPT,
    )
    assert said.out.count("status 2") == 1, said.out + said.err
    assert said.out.rstrip().endswith("status 0"), said.out + said.err
    assert "No space left on device" in said.err
    assert "kdrv cache prune" in said.err
