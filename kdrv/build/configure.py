"""Making a lane's .config in a build directory."""

from __future__ import annotations

from pathlib import Path

from kdrv.build.lane import DEFCONFIG, TINY
from kdrv.build.make import Make
from kdrv.core.context import Context
from kdrv.core.errors import CommandFailed, UsageError
from kdrv.core.inside import write_text_inside
from kdrv.core.store import digest, write_atomic

STAMP = ".kdrv-config"
CONFIG = ".config"
CONFIG_INPUTS = "include/config/auto.conf.cmd"
"""Which files Kconfig read (scripts/kconfig/confdata.c)."""
CONFIG_DEADLINE = 900.0


class Unconfigurable(UsageError):
    """The tree's Kconfig refuses to make any configuration for a lane."""


def configure(ctx: Context, make: Make, jobs: int) -> None:
    """Have ``.config`` say what the lane asks for, as far as the tree's Kconfig allows.

    Does nothing when the same was asked before and nobody touched .config since. What Kconfig
    refused is found by comparing afterwards (``kdrv.build.explain``). Raises
    :class:`Unconfigurable` when the tree has no such configuration, with make's own words.
    """
    config = make.output / CONFIG
    stamp = make.output / STAMP
    if config.exists() and stamp.exists() and stamp.read_text() == _stamp(make, config):
        return
    lane = make.lane
    for name, text in (("kdrv.config", lane.requested), *lane.headers):
        write_text_inside(make.output, Path(name), text)
    if isinstance(lane.base, str):
        goal = {TINY: "tinyconfig", DEFCONFIG: "defconfig"}[lane.base]
    else:
        goal = ""
        write_text_inside(make.output, Path("kdrv-base.config"), lane.base.text)
    # Appended lines win over earlier ones; kconfig's notes about that ("override: reassigning")
    # are the purpose here, not news.
    steps = []
    base = make.command([goal], jobs=jobs) if goal else make.shell("cp kdrv-base.config .config")
    steps.append(base)
    steps.append(make.shell("cat kdrv.config >> .config"))
    steps.append(make.command(["olddefconfig"], jobs=jobs))
    with ctx.events.step(f"configuring lane {lane.name}"):
        for command in steps:
            try:
                ctx.runner.run(command, deadline=CONFIG_DEADLINE)
            except CommandFailed as error:
                raise Unconfigurable(
                    f"Linux {make.tree.version} cannot be configured for {lane.arch}",
                    expected=f"a tree whose Kconfig works with {make.toolchain.name}'s tools",
                    detail=error.detail,
                    reproducer=error.reproducer,
                ) from error
    write_atomic(stamp, _stamp(make, config))


def _stamp(make: Make, config: Path) -> str:
    """What decides the .config, and the .config that came of it."""
    return digest(make.lane.identity, make.toolchain.identity, config.read_text())
