"""The launcher itself, compiled here and run without a sandbox."""

import os
import shutil
import time

import pytest

from kdrv.core.context import Context
from kdrv.core.process import Command
from kdrv.sim.launcher import Launcher, _idle, borrowed
from kdrv.toolchain.base import Bind

pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="no C compiler on this machine")


class Here:
    """A toolchain without a sandbox: what is bound is named by where it really is."""

    name, identity, versions = "here", "here-1", {}

    def command(self, argv, *, binds=(), cwd="/", env=None, devices=()):
        places = {bind.target: bind.source for bind in binds}

        def real(word):
            fitting = [t for t in places if word == t or word.startswith(t + "/")]
            return str(places[fitting[0]]) + word[len(fitting[0]) :] if fitting else word

        return Command(tuple(map(real, argv)), cwd=real(cwd), env=env or {})


@pytest.fixture(scope="module")
def ctx(tmp_path_factory):
    return Context(cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture
def launcher(ctx):
    made = Launcher(ctx, Here(), [])
    yield made
    made.close()


def run(launcher, script, wait=True):
    output = launcher.place / "console"
    with output.open("wb") as file:
        child = launcher.start(["/bin/sh", "-c", script], file.fileno())
    return (child.wait(10.0), output.read_text()) if wait else child


def test_one_program_after_another(launcher):
    assert run(launcher, "echo one; exit 3") == (3, "one\n")
    launcher.clear()
    assert list(launcher.place.iterdir()) == []
    assert run(launcher, "kill -11 $$") == (-11, "")
    assert launcher.usable


def test_every_program_finds_the_same(launcher):
    script = "ls /proc/$$/fd; readlink /proc/$$/fd/0; env | grep -c ^LD_PRELOAD="
    first, second = run(launcher, script), run(launcher, script)
    assert first == second
    assert first[1].split()[-2:] == ["/dev/null", "1"]


def test_a_program_that_runs_is_killed(launcher):
    child = run(launcher, "sleep 1000 & echo $!; wait", wait=False)
    assert child.poll() is None
    assert not launcher.usable
    until = time.monotonic() + 10
    while not (said := (launcher.place / "console").read_text()) and time.monotonic() < until:
        time.sleep(0.01)
    child.kill()
    assert child.wait(0.0) == -9
    assert not _lives(int(said))
    assert launcher.usable


def _lives(pid):
    """Whether a process is there and no zombie; waits for a dying one."""
    for _ in range(500):
        try:
            with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
                if file.read().split()[2] == "Z":
                    return False
        except FileNotFoundError:
            return False
        time.sleep(0.01)
    return True


def test_a_sandbox_that_died_is_no_kernel_s_end_without_a_word(launcher):
    child = run(launcher, "sleep 1000", wait=False)
    os.kill(launcher._child.pid, 9)
    assert child.wait(10.0) == -9
    assert not launcher.usable


def test_a_sandbox_is_used_again_for_the_same_files(ctx, tmp_path):
    kernel = tmp_path / "linux"
    kernel.write_text("one")
    binds = [Bind(kernel, "/run/kdrv/linux")]

    def pid():
        with borrowed(ctx, Here(), binds) as launcher:
            assert list(launcher.place.iterdir()) == []
            assert run(launcher, "echo here")[0] == 0
            return launcher._child.pid

    first = pid()
    assert pid() == first
    kernel.write_text("another")
    assert pid() != first
    with borrowed(ctx, Here(), binds) as one, borrowed(ctx, Here(), binds) as two:
        assert one.place != two.place
    while _idle:
        _idle.pop()[1].close()


def test_what_goes_wrong_ends_the_kernel(ctx):
    with pytest.raises(KeyError), borrowed(ctx, Here(), []) as launcher:
        child = run(launcher, "sleep 1000", wait=False)
        raise KeyError
    assert child.poll() == -9
    assert list(launcher.place.iterdir()) == []
    _idle.clear()
    launcher.close()
    assert not launcher.place.exists()
