"""Looking at what a tree's makefiles left, before kdrv reads it or writes beside it."""

from __future__ import annotations

from pathlib import Path

from kdrv.build.configure import CONFIG, CONFIG_INPUTS, STAMP
from kdrv.build.interrupted import MARKER
from kdrv.core.context import Context
from kdrv.core.inside import UntrustedFile, open_inside
from kdrv.core.process import Command
from kdrv.kernel.arch import TRAITS

HOST_FILES = (
    CONFIG,
    STAMP,
    MARKER,
    CONFIG_INPUTS,
    "include/config/kernel.release",
    "kdrv-base.config",
    "kdrv.config",
    "modules.order",
    "vmlinux",
    *(traits.image for traits in TRAITS.values()),
)
"""What kdrv itself reads or writes in a build directory, or shows to a machine that it boots."""
LIMIT = 4 << 30
REMOVE_DEADLINE = 600.0


def vet(build: Path) -> None:
    """Raise :class:`UntrustedFile` where one of :data:`HOST_FILES` is anything but a file."""
    for name in HOST_FILES:
        try:
            open_inside(build, Path(name), LIMIT).close()
        except FileNotFoundError:
            if (build / name).is_symlink():
                raise UntrustedFile(
                    f"{name} leads to nowhere", expected="a file of the build's own"
                ) from None


def start_afresh(ctx: Context, build: Path) -> None:
    """Throw a build directory away; what is nested too deep for Python is nothing to rm(1)."""
    ctx.runner.run(Command(("rm", "-rf", "--", str(build))), deadline=REMOVE_DEADLINE)
    build.mkdir()
