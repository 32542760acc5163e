"""The one place where kdrv runs programs.

A :class:`Command` is data and prints as a line to paste into a shell. A :class:`Runner` executes
commands; tests hand in a fake one. Every program gets a process group of its own, and the group is
gone when the call returns: by itself, at the deadline, or at Ctrl-C.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from kdrv.core.errors import CommandFailed, DeadlineExceeded, SetupError

LineListener = Callable[[str], None]
TAIL = 20


@dataclass(frozen=True)
class Command:
    """A program to run: arguments, working directory, extra environment.

    ``env`` is added to the caller's environment, unless ``clean`` says that it is all there is.
    """

    argv: tuple[str, ...]
    cwd: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    clean: bool = False

    def shell(self) -> str:
        """The command as one line that can be pasted into a shell."""
        words = [f"{name}={shlex.quote(value)}" for name, value in self.env.items()]
        if self.clean:
            words = ["env", "-i", *words]
        line = " ".join([*words, shlex.join(self.argv)])
        return f"cd {shlex.quote(str(self.cwd))} && {line}" if self.cwd else line

    def environment(self) -> dict[str, str]:
        """The whole environment the program sees."""
        return dict(self.env) if self.clean else {**os.environ, **self.env}


@dataclass(frozen=True)
class Completed:
    """How a command ended. ``output`` is stdout and stderr together, in the order they came."""

    command: Command
    status: int
    output: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the status is 0."""
        return self.status == 0

    def tail(self, lines: int = TAIL) -> tuple[str, ...]:
        """The last lines of the output."""
        return tuple(self.output.splitlines()[-lines:])


class Runner(Protocol):
    """Runs commands; see :class:`LocalRunner` for the real one."""

    def run(
        self,
        command: Command,
        *,
        deadline: float,
        check: bool = True,
        on_line: LineListener | None = None,
        input: str | None = None,
    ) -> Completed:
        """Run to the end, at most ``deadline`` seconds.

        With ``check`` a status other than 0 raises :class:`CommandFailed`. ``on_line`` hears each
        line of output as it comes. Raises :class:`DeadlineExceeded`, or :class:`SetupError` when
        the program does not exist.
        """
        ...

    def start(
        self,
        command: Command,
        *,
        stdout: IO[bytes] | int | None = None,
        stdin: int | None = None,
        pass_fds: Sequence[int] = (),
    ) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        """Start a program for the length of a ``with`` block; its group is killed at the end."""
        ...


class LocalRunner:
    """Runs commands on this machine."""

    def run(
        self,
        command: Command,
        *,
        deadline: float,
        check: bool = True,
        on_line: LineListener | None = None,
        input: str | None = None,
    ) -> Completed:
        """See :meth:`Runner.run`."""
        began = time.monotonic()
        stdin = subprocess.PIPE if input is not None else subprocess.DEVNULL
        with self.start(command, stdout=subprocess.PIPE, stdin=stdin) as child:
            if input is not None:
                assert child.stdin is not None
                with contextlib.suppress(BrokenPipeError):
                    child.stdin.write(input.encode())
                    child.stdin.close()
            collected: list[str] = []
            for line in _lines(child, began + deadline):
                collected.append(line)
                if on_line:
                    on_line(line.rstrip("\n"))
            output = "".join(collected)
            status = _wait(child, began + deadline)
            if status is None:
                raise DeadlineExceeded(
                    f"{Path(command.argv[0]).name} did not finish within {deadline:.0f} s",
                    detail=output.splitlines()[-TAIL:],
                    reproducer=command.shell(),
                )
        done = Completed(command, status, output, time.monotonic() - began)
        if check and not done.ok:
            raise CommandFailed(
                f"{Path(command.argv[0]).name} ended with status {status}",
                detail=done.tail(),
                reproducer=command.shell(),
            )
        return done

    @contextmanager
    def start(
        self,
        command: Command,
        *,
        stdout: IO[bytes] | int | None = None,
        stdin: int | None = None,
        pass_fds: Sequence[int] = (),
    ) -> Iterator[subprocess.Popen[bytes]]:
        """See :meth:`Runner.start`."""
        try:
            child = subprocess.Popen(
                command.argv,
                cwd=command.cwd,
                env=command.environment(),
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=stdout,
                stderr=subprocess.STDOUT if stdout is not None else None,
                start_new_session=True,
                pass_fds=tuple(pass_fds),
            )
        except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
            raise SetupError(
                f"cannot run {command.argv[0]}: {error.strerror}",
                remedy="kdrv doctor",
                reproducer=command.shell(),
            ) from error
        try:
            yield child
        finally:
            _end(child)


def _lines(child: subprocess.Popen[bytes], until: float) -> Iterator[str]:
    """Lines of the child's output until it closes it, or the time is over.

    Ends also when the child is dead while a grandchild still holds the pipe.
    """
    assert child.stdout is not None
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while (left := until - time.monotonic()) > 0:
            if not selector.select(min(left, 1.0)):
                if child.poll() is not None:
                    break
                continue
            chunk = os.read(child.stdout.fileno(), 1 << 16)
            if not chunk:
                break
            *whole, pending = (pending + chunk).split(b"\n")
            for line in whole:
                yield line.decode(errors="replace") + "\n"
    if pending:
        yield pending.decode(errors="replace")


def _wait(child: subprocess.Popen[bytes], until: float) -> int | None:
    try:
        return child.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        return None


def _end(child: subprocess.Popen[bytes]) -> None:
    """Leave nothing of the child's process group behind."""
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(2.0)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            stream.close()
