"""The one place where kdrv runs programs.

A :class:`Command` is data and prints as a line to paste into a shell. A :class:`Runner` executes
commands; tests hand in a fake one. Every program gets a process group of its own, and the group is
gone when the call returns: by itself, at the deadline, or at Ctrl-C. Programs that nobody trusts
get :class:`kdrv.core.limits.Limits` too; :class:`Limited` gives them to all that run in a sandbox.
"""

from __future__ import annotations

import contextlib
import fcntl
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
from kdrv.core.limits import LINE, SIGXFSZ_STATUS, LimitExceeded, Limits
from kdrv.core.show import clean, size
from kdrv.core.stopping import unless_stopped
from kdrv.core.watch import Watch, kill_sandbox

LineListener = Callable[[str], None]
TAIL = 20


@dataclass(frozen=True)
class Inside:
    """What a command that makes a sandbox runs in it: the last words of its ``argv``.

    ``writable`` are the places of the host that it can write.
    """

    argv: tuple[str, ...]
    writable: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Command:
    """A program to run: arguments, working directory, extra environment.

    ``env`` is added to the caller's environment, unless ``clean`` says that it is all there is.
    ``inside`` tells of a sandbox with a PID namespace of its own, if ``argv`` makes one.
    """

    argv: tuple[str, ...]
    cwd: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    clean: bool = False
    inside: Inside | None = None

    @property
    def program(self) -> str:
        """The name to speak of: of the program in the sandbox, if there is one."""
        return Path((self.inside or self).argv[0]).name

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
        limits: Limits | None = None,
    ) -> Completed:
        """Run to the end, at most ``deadline`` seconds.

        With ``check`` a status other than 0 raises :class:`CommandFailed`. ``on_line`` hears each
        line of output as it comes. Raises :class:`DeadlineExceeded`, or :class:`SetupError` when
        the program does not exist.

        With ``limits`` a command that makes a sandbox is watched, and killed with
        :class:`LimitExceeded` beyond them; of any other command what it prints and how large a
        file it writes is limited. All processes of the sandbox are gone when the call returns.
        It is then also ended, by :class:`kdrv.core.stopping.Stopped`, when nobody wants the job
        any more that runs it.
        """
        ...

    def start(
        self,
        command: Command,
        *,
        stdout: IO[bytes] | int | None = None,
        stdin: int | None = None,
        pass_fds: Sequence[int] = (),
        limits: Limits | None = None,
    ) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        """Start a program for the length of a ``with`` block; its group is killed at the end.

        The block ends with :class:`LimitExceeded` when the program was killed for its ``limits``
        (all but ``output``, which whoever reads it counts).
        """
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
        limits: Limits | None = None,
    ) -> Completed:
        """See :meth:`Runner.run`."""
        began = time.monotonic()
        collected: list[bytes] = []
        lines = _Lines(on_line)
        try:
            with (
                _standard_input(input) as stdin,
                self.start(command, stdout=subprocess.PIPE, stdin=stdin, limits=limits) as child,
            ):
                for chunk in _chunks(child, began + deadline, limits, command.program):
                    collected.append(chunk)
                    lines.hear(chunk)
                lines.end()
                status = _wait(child, began + deadline)
                if status is None:
                    raise DeadlineExceeded(
                        f"{command.program} did not finish within {deadline:.0f} s"
                    )
                if limits and status in (SIGXFSZ_STATUS, -signal.SIGXFSZ):
                    raise LimitExceeded(
                        f"{command.program} wrote a file of more than {size(limits.file_size)}",
                        what="file_size",
                    )
        except (DeadlineExceeded, LimitExceeded) as error:
            error.detail = tuple(map(clean, _text(collected[-TAIL:]).splitlines()[-TAIL:]))
            error.reproducer = command.shell()
            raise
        done = Completed(command, status, _text(collected), time.monotonic() - began)
        if check and not done.ok:
            raise CommandFailed(
                f"{command.program} ended with status {status}",
                detail=tuple(map(clean, done.tail())),
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
        limits: Limits | None = None,
    ) -> Iterator[subprocess.Popen[bytes]]:
        """See :meth:`Runner.start`."""
        inner = len(command.inside.argv) if command.inside else 0
        try:
            child = subprocess.Popen(
                limits.bounded(command.argv, inner) if limits else command.argv,
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
        watch: Watch | None = None
        try:
            if limits and command.inside:
                writable = command.inside.writable
                watch = Watch(child, limits, program=command.program, writable=writable)
            yield child
        except Exception as error:
            if watch and watch.verdict:
                raise watch.verdict from error
            raise
        finally:
            if command.inside and child.poll() is None:
                kill_sandbox(child)
            _end(child)
            if watch:
                watch.close()
        if watch and watch.verdict:
            raise watch.verdict


class Limited:
    """A runner that gives limits to every command that makes a sandbox, and to no other."""

    def __init__(self, runner: Runner, limits: Limits) -> None:
        self._runner = runner
        self._limits = limits

    def run(
        self,
        command: Command,
        *,
        deadline: float,
        check: bool = True,
        on_line: LineListener | None = None,
        input: str | None = None,
        limits: Limits | None = None,
    ) -> Completed:
        """See :meth:`Runner.run`; ``limits`` are instead of its own."""
        return self._runner.run(
            command,
            deadline=deadline,
            check=check,
            on_line=on_line,
            input=input,
            limits=limits or self._of(command),
        )

    def start(
        self,
        command: Command,
        *,
        stdout: IO[bytes] | int | None = None,
        stdin: int | None = None,
        pass_fds: Sequence[int] = (),
        limits: Limits | None = None,
    ) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        """See :meth:`Runner.start`; ``limits`` are instead of its own."""
        return self._runner.start(
            command,
            stdout=stdout,
            stdin=stdin,
            pass_fds=pass_fds,
            limits=limits or self._of(command),
        )

    def _of(self, command: Command) -> Limits | None:
        return self._limits if command.inside else None


@contextmanager
def _standard_input(text: str | None) -> Iterator[int]:
    """A descriptor to read ``text`` from, in UTF-8; surrogates are the bytes they stand for.

    Not a pipe: a program that does not read would keep the writer waiting, past every deadline.
    Sealed, because a program could write to the file behind the descriptor.
    """
    if text is None:
        yield subprocess.DEVNULL
        return
    memory = os.memfd_create("input", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(memory, "w+b") as file:
        file.write(text.encode(errors="surrogateescape"))
        file.flush()
        file.seek(0)
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
        yield memory


_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def _chunks(
    child: subprocess.Popen[bytes], until: float, limits: Limits | None, program: str
) -> Iterator[bytes]:
    """What the child prints until it closes its output, or the time is over.

    Ends also when the child is dead while a grandchild still holds the pipe. Raises
    :class:`LimitExceeded` when it is more than the limits allow.
    """
    assert child.stdout is not None
    read = 0
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while (left := until - time.monotonic()) > 0:
            if limits:
                unless_stopped()
            if not selector.select(min(left, 0.5)):
                if child.poll() is not None:
                    break
                continue
            chunk = os.read(child.stdout.fileno(), 1 << 16)
            if not chunk:
                break
            yield chunk
            read += len(chunk) + LINE * chunk.count(b"\n")
            if limits and read > limits.output:
                raise LimitExceeded(
                    f"{program} printed more than {size(limits.output)}", what="output"
                )


class _Lines:
    """Makes lines of chunks, for a listener if there is one."""

    def __init__(self, listener: LineListener | None) -> None:
        self._listener = listener
        self._pending: list[bytes] = []

    def hear(self, chunk: bytes) -> None:
        if self._listener:
            first, *more = chunk.split(b"\n")
            self._pending.append(first)
            for part in more:
                self._listener(_text(self._pending))
                self._pending = [part]

    def end(self) -> None:
        if self._listener and any(self._pending):
            self._listener(_text(self._pending))


def _text(chunks: list[bytes]) -> str:
    return b"".join(chunks).decode(errors="replace")


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
