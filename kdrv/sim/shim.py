"""The preloaded library that keeps the host's randomness and clock out of the kernel."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from kdrv.core.context import Context
from kdrv.core.store import Store, digest
from kdrv.toolchain.base import MODULE_OUTPUT, Bind, Toolchain

NAME = "shim.so"
COMPILE_DEADLINE = 60.0
FLAGS = ("-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")


def shim(ctx: Context, toolchain: Toolchain) -> Path:
    """The library, compiled by the toolchain the first time. Raises what the compiler run does."""
    source = resources.files("kdrv.sim").joinpath("shim.c").read_text()

    def make(data: Path) -> Mapping[str, Any]:
        (data / "shim.c").write_text(source)
        command = toolchain.command(
            ["gcc", *FLAGS, "-o", f"{MODULE_OUTPUT}/{NAME}", f"{MODULE_OUTPUT}/shim.c"],
            binds=[Bind(data, MODULE_OUTPUT, writable=True)],
        )
        ctx.runner.run(command, deadline=COMPILE_DEADLINE)
        return {"toolchain": toolchain.identity}

    entry = Store(ctx).get("sim-shim", digest(toolchain.identity, source, FLAGS), make)
    return entry.data / NAME
