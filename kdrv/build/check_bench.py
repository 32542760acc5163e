"""The workbench of the checks: a driver's sources, the sandbox, and one build to look at.

The kernel's build directory is bound read-only, so that no check can make the next plain build
redo anything: clippy takes rustc's place only in the driver's own, throw-away output. A driver in
the tree is built the same way, with ``M=`` naming its directory inside the tree; with a build
directory of its own instead, CLIPPY=1 would first compile the kernel's Rust crates again.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from kdrv.build.diagnostics import Diagnostic
from kdrv.build.make import Make
from kdrv.core.context import Context
from kdrv.core.errors import UsageError
from kdrv.core.inside import read_text_inside, understood
from kdrv.core.process import Command, Completed
from kdrv.kernel.tree import FIRST_MODULE_OUTPUT
from kdrv.toolchain.base import MODULE, MODULE_OUTPUT, OUTPUT, SOURCE, Bind, Toolchain
from kdrv.toolchain.requirements import at_least

LOG = "kdrv-check.log"
RECORD_LIMIT = 4 << 20
"""Bytes of a .cmd file; kbuild's longest, the bindings', have a hundredth of it."""
DEADLINE = 900.0

PROGRAMS = ("rustfmt", "clippy-driver", "rustdoc", "sparse", "perl", "python3")
"""What the checks run besides the compilers; each may be absent from a machine's own tools."""

PANICS = ("unwrap_used", "expect_used", "panic", "todo", "unimplemented")
"""Lints of clippy that the kernel leaves off: a panic in a driver is the whole machine's."""

JSON = "--error-format=json"
_MODPOST = re.compile(r"^  MODPOST ", re.M)
_ROOTS = re.compile(rf"(?:{SOURCE}|{MODULE_OUTPUT}|{MODULE}|{OUTPUT})/")
_MAKEFILES = ("Kbuild", "Makefile", "Kconfig")


@dataclass(frozen=True)
class Driver:
    """What is checked: a directory of sources. ``objects``, such as ``foo.o``, choose some of a
    directory in the kernel tree; without them it is everything the directory builds.
    """

    directory: Path
    objects: tuple[str, ...] = ()

    @classmethod
    def of_module(cls, tree: Path, build: Path, module: Path) -> Driver:
        """A module: the directory of an external one, or the ``.ko`` of one of the tree's.

        What the latter is made of is in the ``.mod`` file beside it (scripts/Makefile.build).
        """
        if module.is_dir():
            return cls(module)
        directory = module.parent.relative_to(build)
        objects = map(Path, module.with_suffix(".mod").read_text().split())
        inside = (path for path in objects if path.is_relative_to(directory))
        return cls(tree / directory, tuple(str(path.relative_to(directory)) for path in inside))

    @cached_property
    def sources(self) -> tuple[Path, ...]:
        """The files to look at, relative to the directory.

        Tests are not kernel code, and what a build left among the sources is nobody's.
        """
        if self.objects:
            stems = (Path(name).with_suffix("") for name in self.objects)
            names = [Path(f"{stem}{suffix}") for stem in stems for suffix in (".rs", ".c")]
            return tuple(name for name in names if (self.directory / name).is_file())
        files = (path.relative_to(self.directory) for path in self.directory.rglob("*"))
        return tuple(sorted(path for path in files if self._is_source(path)))

    def having(self, *suffixes: str) -> tuple[Path, ...]:
        """The sources with one of the suffixes."""
        return tuple(path for path in self.sources if path.suffix in suffixes)

    def _is_source(self, path: Path) -> bool:
        if any(part.startswith(".") or part == "tests" for part in path.parts):
            return False
        if path.name.endswith(".mod.c") or not (self.directory / path).is_file():
            return False
        return path.suffix in (".rs", ".c", ".h") or path.name in _MAKEFILES


@dataclass(frozen=True)
class Crate:
    """A Rust crate the build compiled, by the command line kbuild saved beside its object.

    ``arguments`` are those that rustdoc takes too.
    """

    env: Mapping[str, str]
    arguments: tuple[str, ...]
    source: str

    @classmethod
    def saved(cls, text: str) -> Crate | None:
        """From a ``.*.o.cmd`` file (scripts/Kbuild.include); ``None`` when it is not of Rust."""
        line = text.partition("\n")[0].partition(":=")[2]
        words = shlex.split(line.partition(" ; ")[0])
        names = [word for word in words if "=" not in word or word.startswith("-")]
        if not names or Path(names[0]).name not in ("rustc", "clippy-driver"):
            return None
        program = words.index(names[0])
        env = dict(word.split("=", 1) for word in words[:program])
        # Behind the source stand further options, for the crates of rust/.
        source = next((w for w in reversed(words) if w.endswith(".rs") and w[0] != "-"), "")
        flags = iter(word for word in words[program + 1 :] if word != source)
        kept = []
        for flag in flags:
            if flag == "--out-dir":
                next(flags, "")
            elif not flag.startswith(("--emit=", "--error-format=", "--remap-path-scope=")):
                kept.append(flag)
        return cls(env, tuple(kept), source)


class Bench:
    """Everything the checks of one driver share; made for one run of them."""

    def __init__(self, ctx: Context, driver: Driver, make: Make, scratch: Path) -> None:
        self.ctx = ctx
        self.driver = driver
        self.make = make
        self.output = scratch / "out"
        self._log = scratch / LOG
        directory = driver.directory
        tree = make.tree.path
        self.in_tree = in_tree = directory.is_relative_to(tree)
        outside = make.tree.version.pair >= FIRST_MODULE_OUTPUT
        if in_tree and not outside:
            raise UsageError(
                f"cannot check {directory} in place: Linux {make.tree.version} has no MO=",
                expected="Linux 6.13 or newer, or a driver outside the tree",
            )
        shutil.rmtree(self.output, ignore_errors=True)
        self.output.mkdir(parents=True)
        if outside:
            self.place = f"{SOURCE}/{directory.relative_to(tree)}" if in_tree else MODULE
            self.built_in = MODULE_OUTPUT
            self._arguments = [f"M={self.place}", f"MO={MODULE_OUTPUT}"]
            self._binds = [Bind(self.output, MODULE_OUTPUT, writable=True)]
            if not in_tree:
                self._binds.append(Bind(directory, MODULE))
        else:
            # Before MO= a module was built among its sources: give make a copy of them.
            shutil.copytree(directory, self.output, dirs_exist_ok=True, symlinks=True)
            self.place = self.built_in = MODULE
            self._arguments = [f"M={MODULE}"]
            self._binds = [Bind(self.output, MODULE, writable=True)]

    @cached_property
    def absent(self) -> frozenset[str]:
        """Those of :data:`PROGRAMS` that the toolchain does not have."""
        script = 'for p; do command -v "$p" >/dev/null || echo "$p"; done'
        return frozenset(self.run(("sh", "-c", script, "sh", *PROGRAMS)).output.split())

    def paths(self, files: Sequence[Path]) -> tuple[str, ...]:
        """The files' names inside the sandbox."""
        return tuple(f"{self.place}/{path}" for path in files)

    def command(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Command:
        """A command beside the build: the tree, the kernel's build and the driver are there."""
        binds = [Bind(self.make.tree.path, SOURCE), Bind(self.make.output, OUTPUT), *self._binds]
        return self.make.toolchain.command(argv, binds=binds, cwd=self.built_in, env=env)

    def run(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Completed:
        """Run such a command; its status is for the check to judge."""
        return self.ctx.runner.run(self.command(argv, env), deadline=DEADLINE, check=False)

    @cached_property
    def build(self) -> Completed:
        """The driver compiled from nothing, with every warning kbuild knows."""
        done = self.ctx.runner.run(self.build_command(JSON), deadline=DEADLINE, check=False)
        self._log.write_text(f"$ {self.build_command().shell()}\n{done.output}")
        return done

    @property
    def compiled(self) -> bool:
        """Whether all of the driver compiled, even if it could not be linked to a module then."""
        return self.build.ok or bool(_MODPOST.search(self.build.output))

    def build_command(self, *rust_flags: str) -> Command:
        """The make command of :attr:`build`, with further flags for rustc."""
        variables = dict(word.split("=", 1) for word in self.make.lane.make_variables())
        flags = [variables.get("KRUSTFLAGS", ""), *(f"-Wclippy::{lint}" for lint in PANICS)]
        arguments = [*self._arguments, "-k", "W=1"]
        if "clippy-driver" not in self.absent:
            arguments.append("CLIPPY=1")
        if "sparse" not in self.absent:
            arguments += ["C=2", "CF=-fdiagnostic-prefix"]
        arguments.append("KRUSTFLAGS=" + " ".join(filter(None, [*flags, *rust_flags])))
        arguments += self.driver.objects or ["modules"]
        return self.make.command(arguments, jobs=self.ctx.jobs, binds=self._binds, writable=False)

    @property
    def crates(self) -> tuple[Crate, ...]:
        """The Rust crates that compiled in :attr:`build`."""
        _ = self.build
        found = []
        for path in sorted(self.output.rglob(".*.o.cmd")):
            with understood(path.name):
                found.append(Crate.saved(read_text_inside(self.output, path, RECORD_LIMIT)))
        return tuple(crate for crate in found if crate)

    def rustdoc(self, crate: Crate) -> Completed:
        """Run rustdoc over a crate with the flags it was compiled with (rust/Makefile)."""
        # A driver has no public interface: its documentation is that of its private items.
        words = rustdoc_words(crate, self.make.toolchain, *PRIVATE_ITEMS)
        return self.run(words, {**crate.env, "RUSTC_BOOTSTRAP": "1"})

    def at_home(self, diagnostic: Diagnostic) -> Diagnostic:
        """The diagnostic with the paths that :class:`Diagnostic` promises."""
        return at_home(diagnostic, self.make.lane.name)


PRIVATE_ITEMS = ("--document-private-items", "-Arustdoc::private_intra_doc_links")
"""What rustdoc is told about a crate that nobody else uses."""


def rustdoc_words(crate: Crate, toolchain: Toolchain, *options: str) -> tuple[str, ...]:
    """The command that has rustdoc check a crate and write nothing."""
    added = [*options, "--check", "-Zunstable-options", JSON]
    # rustdoc does not save target modifiers (https://github.com/rust-lang/rust/issues/144521).
    rustc = toolchain.versions.get("rustc", "")
    if "-Zfixed-x18" in crate.arguments and at_least(rustc, "1.88"):
        added.append("-Cunsafe-allow-abi-mismatch=fixed-x18")
    return "rustdoc", *crate.arguments, *added, crate.source


def at_home(diagnostic: Diagnostic, lane: str) -> Diagnostic:
    """A diagnostic from inside the sandbox, with its paths relative and its lane."""
    file = _ROOTS.sub("", diagnostic.file)
    detail = _ROOTS.sub("", diagnostic.detail)
    return replace(diagnostic, file=file, detail=detail, lane=lane)
