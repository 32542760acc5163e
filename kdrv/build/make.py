"""Running the kernel's make in the sandbox: one command line for lanes and modules alike."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from kdrv.build.lane import Lane
from kdrv.core.context import Context
from kdrv.core.events import Step
from kdrv.core.inside import write_text_inside
from kdrv.core.process import Command, Completed, LineListener
from kdrv.core.store import write_atomic
from kdrv.kernel.tree import KernelTree
from kdrv.toolchain.base import OUTPUT, SOURCE, Bind, Toolchain

CCACHE = "/run/kdrv/ccache"
CCACHE_LINKS = "/usr/lib/ccache:/usr/lib64/ccache"
"""Where distributions put links named like compilers that lead to ccache(1)."""
PROGRAMS = "/run/kdrv/bin"
_SHEBANG = "#!/usr/bin/env -S python3 -I\n"
BUILD_DEADLINE = 4 * 3600.0

# "  CC [M]  drivers/x.o", "  RUSTC L rust/core.o": what kbuild prints for each target it makes.
_TARGET = re.compile(r"^  (?P<kind>[A-Z][A-Z0-9_+]*)(?: \[M\]| [LPT])? +(?P<target>\S.*)$")


@dataclass(frozen=True)
class Make:
    """How to call make for one lane of one tree into one build directory.

    ``programs`` is a folder of programs that come before the toolchain's.
    """

    tree: KernelTree
    lane: Lane
    toolchain: Toolchain
    output: Path
    ccache: Path | None = None
    programs: Path | None = None

    def command(
        self,
        arguments: Sequence[str],
        *,
        jobs: int,
        binds: Sequence[Bind] = (),
        writable: bool = True,
    ) -> Command:
        """``make O= … arguments``. ``writable`` is false for builds that only read the kernel."""
        argv = ["make", "-C", SOURCE, f"O={OUTPUT}", f"-j{jobs}", "--no-print-directory"]
        # Whole targets at a time: with several jobs the lines of two diagnostics would mix.
        argv += ["--output-sync=target", *self.lane.make_variables()]
        all_binds = [Bind(self.tree.path, SOURCE), Bind(self.output, OUTPUT, writable), *binds]
        env = {}
        path = [self.toolchain.path]
        if self.programs:
            path.insert(0, PROGRAMS)
            all_binds.append(Bind(self.programs, PROGRAMS))
        if self.ccache:
            # By its links and not by CC: the commands that kbuild saves beside each object are
            # then the same with it and without, and a build can start from another one.
            path.insert(0, CCACHE_LINKS)
            all_binds.append(Bind(self.ccache, CCACHE, writable=True))
            env["CCACHE_DIR"] = CCACHE
        if len(path) > 1:
            env["PATH"] = ":".join(path)
        argv += arguments
        return self.toolchain.command(argv, binds=all_binds, cwd=OUTPUT, env=env)

    def shell(self, script: str, **words: str) -> Command:
        """A shell script with the tree and the build directory bound like for make."""
        binds = [Bind(self.tree.path, SOURCE), Bind(self.output, OUTPUT, writable=True)]
        return self.toolchain.command(["sh", "-ec", script], binds=binds, cwd=OUTPUT, env=words)


def install(programs: Path, name: str, module: ModuleType) -> None:
    """Put a module that needs nothing but Python's own library into :attr:`Make.programs`."""
    program = programs / name
    text = f"{_SHEBANG}{inspect.getsource(module)}"
    programs.mkdir(exist_ok=True)
    if not program.exists() or program.read_text() != text:
        write_atomic(program, text)
    program.chmod(0o755)


@dataclass
class Heard:
    """What was heard of a running make: how many targets, and which last."""

    step: Step
    total: int = 0
    targets: int = 0

    def line(self, text: str) -> None:
        """Count a line of make's output and tell the step."""
        if match := _TARGET.match(text):
            self.targets += 1
            doing = f"{match['kind']} {match['target']}"
            self.step.progress(self.targets, max(self.total, self.targets), doing)


def run(
    ctx: Context,
    command: Command,
    heard: Heard,
    log: Path,
    *,
    on_line: LineListener | None = None,
    deadline: float = BUILD_DEADLINE,
) -> Completed:
    """Run make, keeping its whole output in ``log``; a failed build is a result, not an error.

    ``on_line`` listens in place of ``heard``.
    """
    listener = on_line or heard.line
    done = ctx.runner.run(command, deadline=deadline, check=False, on_line=listener)
    # A makefile may have put a link in its place.
    write_text_inside(log.parent, Path(log.name), f"$ {command.shell()}\n{done.output}")
    return done
