"""The base initramfs, kept in the cache: the same agent, tree and toolchain, the same archive."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from kdrv.core.context import Context
from kdrv.core.errors import SetupError
from kdrv.core.events import Level
from kdrv.core.store import Store, digest
from kdrv.guest.initramfs import build_initramfs
from kdrv.kernel.arch import Arch
from kdrv.kernel.tree import KernelTree
from kdrv.toolchain.base import Toolchain
from kdrv.toolchain.foreign import foreign_program

KIND = "initramfs"
NAME = "base.cpio"
BUSYBOX = "busybox-static"
BUSYBOX_PATH = "usr/bin/busybox"
FOREIGN = {Arch.ARM64: "arm64"}
"""Architectures whose programs do not run on the host, and Debian's names for them."""


def base_initramfs(ctx: Context, toolchain: Toolchain, tree: KernelTree, arch: Arch) -> Path:
    """The archive every guest starts from, made now if it is missing (a second or two)."""

    busybox = _busybox(ctx, arch)

    def make(data: Path) -> Mapping[str, object]:
        with ctx.events.step("building the guest's agent"):
            build_initramfs(toolchain, tree.path, arch, ctx, data / NAME, busybox)
        return {"arch": arch.value, "version": str(tree.version)}

    shell = hashlib.sha256(busybox).hexdigest() if busybox else ""
    key = digest("initramfs-2", _sources(), _nolibc(tree), arch, toolchain.identity, shell)
    return Store(ctx).get(KIND, key, make, waiting="the guest's agent").data / NAME


def _busybox(ctx: Context, arch: Arch) -> bytes | None:
    """A shell for a guest that cannot run the toolchain's; without one, shell tests are skipped."""
    if arch not in FOREIGN:
        return None
    try:
        return foreign_program(ctx, BUSYBOX, BUSYBOX_PATH, FOREIGN[arch]).read_bytes()
    except SetupError as error:
        ctx.events.note(f"the guest gets no shell: {error.message}", Level.WARNING)
        return None


def _sources() -> str:
    """A digest of the agent and of the Python that packs it."""
    folder = Path(__file__).parent
    return _digest(sorted([*folder.glob("*.[ch]"), folder / "initramfs.py", folder / "cpio.py"]))


def _nolibc(tree: KernelTree) -> str:
    """What the agent is built with: the whole tree's identity, or the library's own content."""
    folder = tree.path / "tools/include/nolibc"
    files = (p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
    return tree.identity or _digest(sorted(files))


def _digest(paths: list[Path]) -> str:
    content = hashlib.sha256()
    for path in paths:
        content.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return content.hexdigest()
