"""clippy and rustdoc for the Rust crates of a built kernel, one by one.

``make CLIPPY=1`` puts another program into every saved command line and so compiles every crate
again; ``make rustdoc`` documents all of rust/ and no driver. Here each crate that reads a touched
file is looked at with the very command that compiled it, in the build directory as it is, which
stays read-only: the other program takes rustc's place and writes into a scratch directory.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from kdrv.build.check_bench import JSON, PRIVATE_ITEMS, Crate, at_home, rustdoc_words
from kdrv.build.check_parse import rust_json
from kdrv.build.diagnostics import Diagnostic, Level
from kdrv.build.make import Make
from kdrv.core.context import Context
from kdrv.core.inside import open_regular
from kdrv.core.process import Command
from kdrv.toolchain.base import MODULE_OUTPUT, OUTPUT, SOURCE, Bind

DEADLINE = 900.0
RECORD_LIMIT = 4 << 20
"""Bytes of a .cmd file; kbuild's longest, the bindings', have a hundredth of it."""

BEGIN = 1024
"""Bytes of a .cmd file in which its program stands, behind a few variables."""

_READ = re.compile(rf"(?:{SOURCE}|{OUTPUT})/[^\s\\:;,()'\"]+")
_PROGRAMS = (b" rustc ", b" clippy-driver ")


class Tool(StrEnum):
    """What looks at a crate."""

    CLIPPY = "clippy"
    RUSTDOC = "rustdoc"

    @property
    def program(self) -> str:
        """The program to run."""
        return {Tool.CLIPPY: "clippy-driver", Tool.RUSTDOC: "rustdoc"}[self]


@dataclass(frozen=True)
class Compiled:
    """A crate that the build compiled.

    ``target`` is what kbuild made of it, relative to the build directory (``rust/kernel.o``);
    ``sources`` are the tree's files it read, ``inputs`` those of the build directory.
    """

    target: str
    crate: Crate
    sources: frozenset[str]
    inputs: frozenset[str]


def compiled(build: Path) -> Iterator[Compiled]:
    """The kernel's Rust crates in a build directory, by what kbuild saved beside their objects.

    A crate is left out where its object or a crate it needs is missing: it, or that one, does not
    compile any more.
    """
    for place, folders, names in os.walk(build):
        folders.sort()
        for name in sorted(names):
            if name.startswith(".") and name.endswith(".cmd"):
                target = Path(place, name[1:-4]).relative_to(build)
                found = _compiled(Path(place, name), str(target))
                if found and all(os.path.lexists(build / file) for file in found.inputs):
                    yield found


def _compiled(record: Path, target: str) -> Compiled | None:
    with open_regular(record) as stream:
        begin = stream.read(BEGIN) if stream else b""
        if stream is None or not any(program in begin for program in _PROGRAMS):
            return None
        text = (begin + stream.read(RECORD_LIMIT)).decode(errors="replace")
    try:
        crate = Crate.saved(text)
    except ValueError:  # no words of a shell: not what kbuild writes
        return None
    # A program of the build itself is none; kbuild has no clippy for those either.
    if (
        not crate
        or not crate.source
        or not any(word.startswith("--crate-type") for word in crate.arguments)
    ):
        return None
    read = {os.path.normpath(name) for name in _READ.findall(text)}
    sources, inputs = (
        frozenset(name.removeprefix(f"{root}/") for name in read if name.startswith(f"{root}/"))
        for root in (SOURCE, OUTPUT)
    )
    return Compiled(target, crate, sources, inputs | {target})


class Lints:
    """One tool for the crates of one build directory, whose tree must be the one it was built of.

    ``scratch`` is a directory of the caller's. Nothing is remembered from call to call.
    """

    def __init__(self, ctx: Context, make: Make, scratch: Path, tool: Tool) -> None:
        self._ctx = ctx
        self._make = make
        self._scratch = scratch
        self._tool = tool

    @cached_property
    def available(self) -> bool:
        """Whether the toolchain has the program."""
        argv = ("sh", "-c", 'command -v "$1"', "sh", self._tool.program)
        command = self._make.toolchain.command(argv)
        return self._ctx.runner.run(command, deadline=DEADLINE, check=False).ok

    def crates(self, files: Collection[str]) -> tuple[Compiled, ...]:
        """The crates that read any of the tree's files."""
        found = compiled(self._make.output)
        return tuple(one for one in found if not one.sources.isdisjoint(files))

    def lint(self, files: Collection[str]) -> dict[str, tuple[Diagnostic, ...]]:
        """What the tool says of each crate that reads any of the files, by the crate's target.

        All of it: what is new since an earlier commit is for the caller to tell. rustc's own
        warnings are left out, because the build has said them.
        """
        wanted = [file for file in files if file.endswith(".rs")]
        return {one.target: self._look(one) for one in self.crates(wanted)}

    def command(self, one: Compiled) -> Command:
        """The command that looks at a crate."""
        crate, toolchain = one.crate, self._make.toolchain
        if self._tool is Tool.CLIPPY:
            output = ("--emit=metadata", "--out-dir", MODULE_OUTPUT, JSON)
            words = (self._tool.program, *crate.arguments, *output, crate.source)
        else:
            # Only the crates of rust/ have an interface (rust/Makefile: rustdoc).
            options = () if one.target.startswith("rust/") else PRIVATE_ITEMS
            words = rustdoc_words(crate, toolchain, *options)
        binds = [Bind(self._make.tree.path, SOURCE), Bind(self._make.output, OUTPUT)]
        binds.append(Bind(self._scratch, MODULE_OUTPUT, writable=True))
        # As the top Makefile exports them.
        env = {**crate.env, "RUSTC_BOOTSTRAP": "1", "CLIPPY_CONF_DIR": SOURCE}
        return toolchain.command(words, binds=binds, cwd=OUTPUT, env=env)

    def _look(self, one: Compiled) -> tuple[Diagnostic, ...]:
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir(parents=True)
        with self._ctx.events.step(f"{self._tool} of {one.target}"):
            done = self._ctx.runner.run(self.command(one), deadline=DEADLINE, check=False)
        shutil.rmtree(self._scratch, ignore_errors=True)
        found = [d for d in rust_json(done.output, self._tool, SOURCE) if self._own(d)]
        if not done.ok and not any(d.level is Level.ERROR for d in found):
            message = f"{self._tool} of {one.target} ended with status {done.status}"
            detail = "\n".join(done.tail())
            found.append(Diagnostic(self._tool, Level.ERROR, message, detail=detail))
        return tuple(at_home(diagnostic, self._make.lane.name) for diagnostic in found)

    def _own(self, diagnostic: Diagnostic) -> bool:
        code = diagnostic.code
        return diagnostic.level is Level.ERROR or not code or code.startswith(f"{self._tool}::")
