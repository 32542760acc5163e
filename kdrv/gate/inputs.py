"""Which files of the tree a built lane has read: the proof that a patch cannot concern it.

kbuild writes beside each target the command that made it and the files it was made from
(scripts/basic/fixdep.c), and Kconfig the list of files it read (include/config/auto.conf.cmd).
A file that no such record names, and that make itself does not read, is not an input.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from kdrv.build.check_bench import RECORD_LIMIT
from kdrv.build.configure import CONFIG_INPUTS
from kdrv.gate.series import Change, Status
from kdrv.toolchain.base import SOURCE

_NAMED = re.compile(rf"{SOURCE}/([^\s\\:;,()'\"]+)".encode())
_LISTED = re.compile(rb"^\t([^\s\\]+)", re.M)
_KBUILD = re.compile(r"^(Makefile|Kbuild)(\.|$)|\.mk$|^Makefile_")

BUILD_TOOLS = (
    "scripts/",
    "tools/arch/",
    "tools/bpf/resolve_btfids/",
    "tools/build/",
    "tools/include/",
    "tools/lib/",
    "tools/objtool/",
    "tools/scripts/",
)
"""Where programs of the build itself lie; who reads what of them is not always recorded."""

_NO_CODE = ("Documentation/", "LICENSES/", "tools/")
"""Nothing below these goes into a kernel, but for what :data:`BUILD_TOOLS` names."""

_NO_INPUT = {"MAINTAINERS", "CREDITS", "COPYING", "README", ".mailmap", ".gitignore"}
_NO_INPUT |= {".gitattributes", ".clang-format", ".editorconfig", ".rustfmt.toml", ".clippy.toml"}
_NO_INPUT |= {".cocciconfig", ".get_maintainer.ignore", "kdrv.toml"}
_SOURCES = {".c", ".h", ".S", ".rs", ".dts", ".dtsi", ".dtso", ".rst", ".md"}
"""Files that are only an input when a record names them: nothing reads them by wildcard, nor does
a makefile that keeps no record (arch/x86/lib/x86-opcode-map.txt is read so)."""


@dataclass(frozen=True)
class Inputs:
    """The inputs of one build: the files of the tree that its records name (``files``) or Kconfig
    read (``kconfig``), and the folders of the build directory in which something was made."""

    files: frozenset[str]
    kconfig: frozenset[str]
    folders: frozenset[str]

    @cached_property
    def _headers(self) -> frozenset[str]:
        return frozenset(PurePosixPath(f).name for f in self.files if f.endswith(".h"))

    def concerned(self, changes: Iterable[Change]) -> str:
        """The first reason why the lane may differ, in words; empty when none of it is read."""
        reasons = (self._reason(path, change) for change in changes for path in change.paths)
        return next(filter(None, reasons), "")

    def _reason(self, path: str, change: Change) -> str:
        pure = PurePosixPath(path)
        folder = str(pure.parent)
        if path in self.files:
            return f"{path} is read"
        if path in self.kconfig:
            return f"Kconfig reads {path}"
        if path.startswith(BUILD_TOOLS):
            return f"{path} belongs to the build's own tools"
        if path.startswith(_NO_CODE) or pure.name in _NO_INPUT:
            return ""
        if _KBUILD.search(pure.name):
            # make descends only where it makes something.
            visited = folder in self.folders or folder == "."
            return f"make reads {path}" if visited or self._within(folder) else ""
        if pure.name.startswith("Kconfig"):
            return ""
        if pure.suffix == ".h":
            return self._shadows(path, change)
        if pure.suffix in _SOURCES:
            return ""
        return f"{path} is of a kind that make may read" if self._within(folder) else ""

    def _shadows(self, path: str, change: Change) -> str:
        """A new header can come before one of the same name; uapi headers are made into a list."""
        if change.status is Status.MODIFIED:
            return ""
        if "uapi/" in path:
            return f"{path} is an interface header that came or went"
        name = PurePosixPath(path).name
        return f"{path} may come before another {name}" if name in self._headers else ""

    def _within(self, folder: str) -> bool:
        """Whether the lane made anything in the folder or below it."""
        return any(one == folder or one.startswith(f"{folder}/") for one in self.folders)


class Reader:
    """Reads the inputs of one build directory, each record anew only where it has changed."""

    def __init__(self, build: Path) -> None:
        self._build = build
        self._records: dict[Path, tuple[int, frozenset[str]]] = {}

    def read(self) -> Inputs:
        """Look at the build directory."""
        seen: dict[Path, tuple[int, frozenset[str]]] = {}
        folders = set()
        for path, mtime in _records(self._build):
            known = self._records.get(path)
            if known is None or known[0] != mtime:
                known = mtime, _names(_start(path))
            seen[path] = known
            folders.add(str(path.parent.relative_to(self._build)))
        self._records = seen
        return Inputs(
            files=frozenset().union(*(names for _, names in seen.values())),
            kconfig=self.kconfig(),
            folders=frozenset(folders),
        )

    def kconfig(self) -> frozenset[str]:
        """The files that Kconfig read, alone."""
        listed = self._build / CONFIG_INPUTS
        text = listed.read_bytes() if listed.is_file() else b""
        return frozenset(name.decode(errors="replace") for name in _LISTED.findall(text))


def _records(build: Path) -> Iterator[tuple[Path, int]]:
    """The .cmd files; the links that kbuild leaves to the sources are not followed."""
    for place, _, names in os.walk(build):
        for name in names:
            if name.endswith(".cmd") and name.startswith("."):
                path = Path(place, name)
                facts = path.lstat()
                if stat.S_ISREG(facts.st_mode):
                    yield path, facts.st_mtime_ns


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(RECORD_LIMIT)


def _names(record: bytes) -> frozenset[str]:
    """The tree's files that a .cmd file names, without ``./`` and ``a/../``."""
    found = {name.decode(errors="replace") for name in _NAMED.findall(record)}
    return frozenset(os.path.normpath(name) for name in found)
