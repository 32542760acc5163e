"""Looking at what a tree's makefiles left, before kdrv reads it or writes beside it."""

from __future__ import annotations

from pathlib import Path

from kdrv.build.configure import CONFIG, CONFIG_INPUTS, STAMP
from kdrv.build.interrupted import MARKER
from kdrv.core.inside import UntrustedFile, open_inside
from kdrv.core.store import remove_tree
from kdrv.kernel.arch import TRAITS

_IMAGES = ("vmlinux", *(traits.image for traits in TRAITS.values()))
HOST_FILES = (
    CONFIG,
    STAMP,
    MARKER,
    CONFIG_INPUTS,
    "include/config/kernel.release",
    "kdrv-base.config",
    "kdrv.config",
    "modules.order",
    *_IMAGES,
)
"""What kdrv itself reads or writes in a build directory, or shows to a machine that it boots."""
LIMIT = 4 << 30
TEXT_LIMIT = 64 << 20


def vet(build: Path) -> None:
    """Raise :class:`UntrustedFile` where one of :data:`HOST_FILES` is anything but a file."""
    for name in HOST_FILES:
        try:
            open_inside(build, Path(name), LIMIT if name in _IMAGES else TEXT_LIMIT).close()
        except FileNotFoundError:
            if (build / name).is_symlink():
                raise UntrustedFile(
                    f"{name} leads to nowhere", expected="a file of the build's own"
                ) from None


def start_afresh(build: Path) -> None:
    """Throw a build directory away, whatever a makefile made of it."""
    remove_tree(build)
    build.mkdir()
