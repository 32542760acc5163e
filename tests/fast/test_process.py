from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kdrv.core.errors import CommandFailed, DeadlineExceeded, SetupError
from kdrv.core.limits import LimitExceeded, Limits
from kdrv.core.process import Command, Inside, LocalRunner


def test_a_command_prints_as_a_line_that_a_shell_runs_alike(tmp_path: Path) -> None:
    command = Command(("printf", "%s|", "a b", "$HOME", "it's"), cwd=tmp_path, env={"X": "1 2"})
    direct = LocalRunner().run(command, deadline=10).output
    pasted = subprocess.run(["sh", "-c", command.shell()], capture_output=True, text=True).stdout
    assert direct == pasted == "a b|$HOME|it's|"


def test_a_clean_environment_is_all_there_is() -> None:
    command = Command(
        (sys.executable, "-c", "import os; print(sorted(os.environ))"), env={"A": "1"}, clean=True
    )
    assert "HOME" not in LocalRunner().run(command, deadline=10).output


def test_output_comes_line_by_line_and_whole() -> None:
    heard: list[str] = []
    command = Command(("sh", "-c", "echo one; echo two >&2; printf three"))
    done = LocalRunner().run(command, deadline=10, on_line=heard.append)
    assert heard == ["one", "two", "three"]
    assert done.output == "one\ntwo\nthree"


def test_input_is_handed_over() -> None:
    assert LocalRunner().run(Command(("cat",)), deadline=10, input="hello").output == "hello"


def test_a_bad_status_is_an_error_with_the_last_lines_and_the_command() -> None:
    with pytest.raises(CommandFailed) as caught:
        LocalRunner().run(Command(("sh", "-c", "echo why; exit 3")), deadline=10)
    assert caught.value.detail == ("why",)
    assert caught.value.reproducer == "sh -c 'echo why; exit 3'"
    assert LocalRunner().run(Command(("false",)), deadline=10, check=False).status == 1


def test_a_program_that_is_missing_says_so() -> None:
    with pytest.raises(SetupError, match="no-such-program"):
        LocalRunner().run(Command(("no-such-program",)), deadline=10)


def test_at_the_deadline_the_whole_group_is_gone(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 600 & echo $! >> {pids}; echo $$ >> {pids}; echo started; wait"
    with pytest.raises(DeadlineExceeded) as caught:
        LocalRunner().run(Command(("sh", "-c", script)), deadline=0.5)
    assert caught.value.detail == ["started"] or caught.value.detail == ("started",)
    for pid in map(int, pids.read_text().split()):
        assert _gone(pid)


def test_a_grandchild_that_keeps_the_pipe_does_not_hang_the_run() -> None:
    done = LocalRunner().run(Command(("sh", "-c", "setsid sleep 5 & echo out")), deadline=30)
    assert done.output == "out\n"


def test_a_started_program_ends_with_its_block() -> None:
    with LocalRunner().start(Command(("sleep", "600"))) as child:
        assert child.poll() is None
    assert _gone(child.pid)


def _gone(pid: int) -> bool:
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if "State:\tZ" in Path(f"/proc/{pid}/status").read_text():
            return True
        time.sleep(0.01)
    return False


def test_a_program_that_does_not_read_its_input_cannot_hold_us() -> None:
    done = LocalRunner().run(Command(("true",)), deadline=10, input="x" * (1 << 20))
    assert done.ok


def test_input_cannot_be_written_to() -> None:
    command = Command(("sh", "-c", "echo more >&0 || echo refused; cat"))
    output = LocalRunner().run(command, deadline=10, input="hello\n").output
    assert output.splitlines()[-2:] == ["refused", "hello"]


def test_a_long_line_comes_whole() -> None:
    heard: list[str] = []
    script = "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end"
    done = LocalRunner().run(Command(("sh", "-c", script)), deadline=60, on_line=heard.append)
    assert heard == ["x" * 3000000, "end"]
    assert done.output == "x" * 3000000 + "\nend\n"


def test_what_a_program_prints_is_limited() -> None:
    with pytest.raises(LimitExceeded, match="yes printed more than 100 kB") as caught:
        LocalRunner().run(Command(("yes",)), deadline=60, limits=Limits(output=100_000))
    assert caught.value.detail[-1] == "y"
    assert caught.value.reproducer == "yes"


def test_errors_speak_of_the_program_in_the_sandbox() -> None:
    command = Command(("sh", "-c", "exit 2"), inside=Inside(("/usr/bin/make",)))
    with pytest.raises(CommandFailed, match="make ended with status 2"):
        LocalRunner().run(command, deadline=10)
