"""Provider ``host``: the machine's own tools, where they satisfy the tree."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdrv.core.context import Context
from kdrv.core.errors import KdrvError
from kdrv.core.process import Command
from kdrv.core.store import digest
from kdrv.toolchain.base import Bind
from kdrv.toolchain.sandbox import ENVIRONMENT, sandboxed

HIDDEN = ("/boot", "/home", "/media", "/mnt", "/root", "/srv", "/var")
PROGRAMS = {
    "gcc": "gcc",
    "clang": "clang",
    "lld": "ld.lld",
    "rustc": "rustc",
    "bindgen": "bindgen",
    "pahole": "pahole",
    "binutils": "ld",
    "make": "make",
    "ccache": "ccache",
    "qemu-system-x86": "qemu-system-x86_64",
    "qemu-system-arm": "qemu-system-aarch64",
}
VERSION_DEADLINE = 20.0


@dataclass(frozen=True)
class HostTools:
    """The machine's programs; see :class:`kdrv.toolchain.base.Toolchain`.

    ``sysroot`` is a Rust toolchain in the user's home (rustup), shown in the sandbox although the
    home is hidden; ``path`` is what the sandbox searches for programs.
    """

    identity: str
    versions: Mapping[str, str]
    path: str
    shown: tuple[Path, ...]
    name: str = "host"

    def command(
        self,
        argv: Sequence[str],
        *,
        binds: Sequence[Bind] = (),
        cwd: str = "/",
        env: Mapping[str, str] | None = None,
        devices: Sequence[str] = (),
    ) -> Command:
        """See :meth:`kdrv.toolchain.base.Toolchain.command`."""
        shown = [Bind(place, str(place)) for place in self.shown]
        return sandboxed(
            argv,
            root=Path("/"),
            hidden=[place for place in HIDDEN if Path(place).is_dir()],
            binds=[*shown, *binds],
            cwd=cwd,
            env={"PATH": self.path, **(env or {})},
            devices=devices,
        )


def find(ctx: Context) -> HostTools:
    """The machine's tools as they are; whether they suffice for a tree is another question."""
    path, shown = _rust_in_home(ctx)
    bare = HostTools("", {}, path, shown)
    versions = {}
    for name, program in PROGRAMS.items():
        if version := _version(ctx, bare, program):
            versions[name] = version
    return HostTools(digest("host-1", versions, path), versions, path, shown)


def _rust_in_home(ctx: Context) -> tuple[str, tuple[Path, ...]]:
    """Where rustc really lives, when it is one of rustup's; bindgen often lies beside it."""
    path = ENVIRONMENT["PATH"]
    rustc = shutil.which("rustc")
    if not rustc:
        return path, ()
    try:
        command = Command((rustc, "--print", "sysroot"))
        output = ctx.runner.run(command, deadline=VERSION_DEADLINE).output
    except KdrvError:
        return path, ()
    sysroot = Path(output.strip().splitlines()[-1])
    if not any(sysroot.is_relative_to(place) for place in HIDDEN):
        return path, ()
    shown = [sysroot]
    folders = [f"{sysroot}/bin"]
    bindgen = shutil.which("bindgen")
    if bindgen and any(Path(bindgen).is_relative_to(place) for place in HIDDEN):
        shown.append(Path(bindgen))
        folders.append(str(Path(bindgen).parent))
    return ":".join([*folders, path]), tuple(shown)


def _version(ctx: Context, tools: HostTools, program: str) -> str | None:
    try:
        command = tools.command([program, "--version"])
        done = ctx.runner.run(command, deadline=VERSION_DEADLINE, check=False)
    except KdrvError:
        return None
    match = re.search(r"\d+\.\d+(?:\.\d+)?\S*", done.output)
    return match[0].rstrip(",;)") if done.ok and match else None
