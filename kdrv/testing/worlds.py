"""From a world's name to the world."""

from __future__ import annotations

from kdrv.build.api import Workbench
from kdrv.core.context import Context
from kdrv.machine.contract import World
from kdrv.qemu.world import QemuWorld
from kdrv.testing.prepare import TestRequest


def make_world(ctx: Context, request: TestRequest, bench: Workbench) -> World:
    """The world a request names."""
    return QemuWorld(bench.toolchain, ctx)
