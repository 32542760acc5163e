"""clippy and rustdoc for the Rust crates of a built kernel, one by one.

``make CLIPPY=1`` puts another program into every saved command line and so compiles every crate
again; ``make rustdoc`` documents all of rust/ and no driver. Here each crate that reads a touched
file is looked at with the very command that compiled it, in the build directory as it is, or in a
copy of what it reads there: the other program takes rustc's place, sees everything read-only and
writes into a scratch directory.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from kdrv.build.check_bench import JSON, PRIVATE_ITEMS, RECORD_LIMIT, Crate, at_home, rustdoc_words
from kdrv.build.check_parse import rust_json
from kdrv.build.diagnostics import Diagnostic, Level
from kdrv.build.make import Make
from kdrv.core.context import Context
from kdrv.core.errors import DeadlineExceeded
from kdrv.core.inside import UntrustedFile, open_inside, open_regular
from kdrv.core.limits import LimitExceeded, unless_machine_short
from kdrv.core.process import Command
from kdrv.core.store import digest, remove_tree
from kdrv.toolchain.base import MODULE_OUTPUT, OUTPUT, SOURCE, Bind

DEADLINE = 900.0

INPUT_LIMIT = 256 << 20
"""Bytes of a file that a crate is made from; the kernel's largest metadata have a tenth of it."""

COPY_LIMIT = 2 << 30
"""Bytes that are copied of all that some crates are made from; the kernel crate's have 160 MB."""

CONFIGURATION = ".clippy.toml"
"""What clippy reads in the tree's top folder."""

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
    ``sources`` are the tree's files it read, ``inputs`` those of the build directory; ``folders``
    are those of the tree that it went through and out of again (``mm/../virt.rs``).
    """

    target: str
    crate: Crate
    sources: frozenset[str]
    inputs: frozenset[str]
    folders: frozenset[str]


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
    read = set(_READ.findall(text))
    through = {name[: up.start()] for name in read for up in re.finditer(r"/\.\./", name)}
    sources, inputs = _below(SOURCE, read), _below(OUTPUT, read)
    return Compiled(target, crate, sources, inputs | {target}, _below(SOURCE, through))


def _below(root: str, names: Iterable[str]) -> frozenset[str]:
    """Of absolute names those below a directory, relative to it."""
    plain = (os.path.normpath(name) for name in names)
    return frozenset(name.removeprefix(f"{root}/") for name in plain if name.startswith(f"{root}/"))


def reading(make: Make, files: Collection[str]) -> tuple[Compiled, ...]:
    """The crates of a build that read any of the tree's Rust files, by their names.

    What make left of a crate whose source is gone is none of them.
    """
    wanted = {file for file in files if file.endswith(".rs")}
    tree = make.tree.path
    found = (
        one
        for one in compiled(make.output)
        if not one.sources.isdisjoint(wanted)
        and all(os.path.lexists(tree / source) for source in one.sources)
    )
    return tuple(sorted(found, key=lambda one: one.target))


def content(make: Make, one: Compiled) -> str:
    """A digest of all that a tool's word about a crate depends on, but for the tool.

    Empty when it cannot be told, because something that the crate reads is no plain file.
    """
    try:
        files = [(name, _digest_of(root, name)) for root, name in _reads(make, one)]
    except (UntrustedFile, FileNotFoundError):
        return ""
    crate, identity = one.crate, (make.lane.name, make.toolchain.identity)
    return digest(identity, one.target, crate.arguments, sorted(crate.env.items()), files)


def freeze(make: Make, crates: Iterable[Compiled], place: Path) -> Make:
    """Copy all that crates are made from: the tree and the build directory may change then.

    What is no plain file is left out, and what is beyond a limit; a tool that wants it will say
    that it is not there.
    """
    frozen = replace(
        make, tree=replace(make.tree, path=place / "tree"), output=place / "out", ccache=None
    )
    copies = {make.tree.path: frozen.tree.path, make.output: frozen.output}
    for copy in copies.values():
        copy.mkdir(parents=True)
    left = COPY_LIMIT
    for one in crates:
        for folder in one.folders:
            (frozen.tree.path / folder).mkdir(parents=True, exist_ok=True)
        for root, name in _reads(make, one):
            left -= _copy(root, name, copies[root], left)
    return frozen


def _copy(root: Path, name: str, target: Path, most: int) -> int:
    """Copy a file of at most so many bytes; how many it had."""
    copy = target / name
    if copy.exists():
        return 0  # of another crate
    unfit = contextlib.suppress(UntrustedFile, FileNotFoundError)
    with unfit, open_inside(root, Path(name), min(most, INPUT_LIMIT)) as file:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with copy.open("xb") as opened:
            shutil.copyfileobj(file, opened, 1 << 20)
            return opened.tell()
    return 0


def _reads(make: Make, one: Compiled) -> list[tuple[Path, str]]:
    """The files that a crate is made from: a directory, and the name in it."""
    words = (word.lstrip("@").removeprefix("--target=") for word in one.crate.arguments)
    named = {os.path.normpath(word) for word in words if word.startswith("./")}
    inputs = one.inputs | {
        name for name in named if not name.startswith("..") and (make.output / name).is_file()
    }
    sources = one.sources | _beside(make.tree.path, one)
    if (make.tree.path / CONFIGURATION).exists():
        sources |= {CONFIGURATION}
    read = [(make.tree.path, name) for name in sorted(sources)]
    return read + [(make.output, name) for name in sorted(inputs - {one.target})]


def _beside(tree: Path, one: Compiled) -> frozenset[str]:
    """All that lies in the folder of a crate of rust/: rustdoc reads what rustc had no use for
    (rust/zerocopy/benches).
    """
    match Path(os.path.relpath(one.crate.source, SOURCE)).parts:
        case ("rust", folder, _, *_):
            top = tree / "rust" / folder
            walked = os.walk(top) if not top.is_symlink() else ()
            files = (Path(place, name) for place, _, names in walked for name in names)
            return frozenset(str(file.relative_to(tree)) for file in files)
    return frozenset()


def _digest_of(root: Path, name: str) -> str:
    with open_inside(root, Path(name), INPUT_LIMIT) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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

    def look(self, one: Compiled) -> tuple[Diagnostic, ...]:
        """What the tool says of a crate.

        All of it: what is new since an earlier commit is for the caller to tell. rustc's own
        warnings are left out, because the build has said them.
        """
        remove_tree(self._scratch)
        self._scratch.mkdir(parents=True)
        with self._ctx.events.step(f"{self._tool} of {one.target}"):
            try:
                done = self._ctx.runner.run(self.command(one), deadline=DEADLINE, check=False)
            except (DeadlineExceeded, LimitExceeded) as error:
                unless_machine_short(error)
                message = f"{self._tool} of {one.target} was stopped: {error.message}"
                return (Diagnostic(self._tool, Level.ERROR, message, lane=self._make.lane.name),)
            finally:
                remove_tree(self._scratch)
        found = [d for d in rust_json(done.output, self._tool, SOURCE) if self._own(d)]
        if not done.ok and not any(d.level is Level.ERROR for d in found):
            message = f"{self._tool} of {one.target} ended with status {done.status}"
            detail = "\n".join(done.tail())
            found.append(Diagnostic(self._tool, Level.ERROR, message, detail=detail))
        return tuple(at_home(diagnostic, self._make.lane.name) for diagnostic in found)

    def _own(self, diagnostic: Diagnostic) -> bool:
        code = diagnostic.code
        return diagnostic.level is Level.ERROR or not code or code.startswith(f"{self._tool}::")
