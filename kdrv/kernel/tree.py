"""A kernel source tree and its version."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering
from pathlib import Path

from kdrv.core.errors import UsageError

FIRST_RUST_DRIVERS = (7, 2)
"""The first series whose Rust abstractions (pci, platform, misc, irq, dma) our templates fit."""
FIRST_MODULE_OUTPUT = (6, 13)
"""The first series with ``MO=``: external modules built outside their source (kbuild.rst)."""


@total_ordering
@dataclass(frozen=True)
class KernelVersion:
    """A version as in the top Makefile: 7.3.4 or 7.4.0-rc1."""

    major: int
    minor: int
    patch: int = 0
    extra: str = ""

    @property
    def series(self) -> str:
        """``7.3`` of 7.3.4."""
        return f"{self.major}.{self.minor}"

    @property
    def pair(self) -> tuple[int, int]:
        """``(7, 3)`` of 7.3.4."""
        return self.major, self.minor

    def __lt__(self, other: KernelVersion) -> bool:
        return (self.major, self.minor, self.patch) < (other.major, other.minor, other.patch)

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}{self.extra}"


@dataclass(frozen=True)
class KernelTree:
    """A kernel's sources, never written to by kdrv.

    ``identity`` is a digest of the content when the tree cannot change (it came from a package),
    ``None`` for a tree that its owner works in. ``origin`` says in words where it came from.
    """

    path: Path
    version: KernelVersion
    origin: str
    identity: str | None = None

    @property
    def has_rust(self) -> bool:
        """Whether the tree has the Rust driver abstractions kdrv's lanes need."""
        return (self.path / "rust/kernel/lib.rs").exists()


def open_tree(path: Path) -> KernelTree:
    """A tree that its owner works in.

    Raises :class:`UsageError` for a path that is no kernel tree, or one that was built in place:
    kbuild refuses ``O=`` on such a tree.
    """
    path = path.expanduser().absolute()
    if not path.is_dir():
        raise UsageError(
            f"{path} is not a directory",
            expected="a Linux kernel source tree, or a series such as 7.3",
            remedy="kdrv build --kernel 7.3",
        )
    if not all((path / name).exists() for name in ("Makefile", "Kconfig", "scripts", "include")):
        raise UsageError(
            f"{path} is not a Linux kernel source tree",
            expected="a directory with the kernel's Makefile, Kconfig, scripts/ and include/",
            remedy="kdrv build --kernel 7.3",
        )
    tree = KernelTree(path, read_version(path), origin=str(path))
    if (path / ".config").exists() or (path / "include/config").exists():
        raise UsageError(
            f"{path} holds a build of its own, and kbuild refuses O= on such a tree",
            expected="sources without .config and include/config",
            remedy=f"make -C {path} mrproper (keep a copy of .config if you need it)",
        )
    return tree


def read_version(path: Path) -> KernelVersion:
    """The version in the tree's top Makefile. Raises :class:`UsageError` when there is none."""
    try:
        text = (path / "Makefile").read_text(errors="replace")
    except OSError as error:
        raise UsageError(
            f"cannot read {path / 'Makefile'}: {error.strerror}",
            expected="the kernel's top Makefile",
        ) from error
    return version_in(text, path)


def version_in(text: str, path: Path) -> KernelVersion:
    """The version in the text of the top Makefile of the tree at ``path``; raises likewise."""
    fields = dict(
        re.findall(r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION) *=[ \t]*(.*)$", text, re.M)
    )
    try:
        return KernelVersion(
            int(fields["VERSION"]),
            int(fields["PATCHLEVEL"]),
            int(fields.get("SUBLEVEL") or 0),
            fields.get("EXTRAVERSION", "").strip(),
        )
    except (KeyError, ValueError):
        raise UsageError(
            f"{path} is not a Linux kernel source tree",
            expected="VERSION and PATCHLEVEL in its top Makefile",
            remedy="kdrv build --kernel 7.3",
        ) from None


def require_rust(tree: KernelTree) -> None:
    """Raise :class:`UsageError` when the tree is too old for Rust drivers."""
    if not tree.has_rust or tree.version.pair < FIRST_RUST_DRIVERS:
        wanted = ".".join(map(str, FIRST_RUST_DRIVERS))
        raise UsageError(
            f"Linux {tree.version} ({tree.origin}) is too old for drivers in Rust",
            expected=f"Linux {wanted} or newer, the first with all abstractions a driver needs",
            remedy="use --kernel 7.3; its C lane alone builds: kdrv build --kernel DIR",
        )
