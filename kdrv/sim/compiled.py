"""The simulator's own small C programs, compiled by the toolchain the first time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from kdrv.core.context import Context
from kdrv.core.store import Store, digest
from kdrv.toolchain.base import MODULE_OUTPUT, Bind, Toolchain

DEADLINE = 60.0
WARNINGS = ("-Wall", "-Wextra", "-Werror")
_found: dict[tuple[Path, str, str], Path] = {}


def compiled(ctx: Context, toolchain: Toolchain, source: str, flags: Sequence[str]) -> Path:
    """What ``source``, a file of this package, becomes. Raises what the compiler run does.

    Looked up in the cache once in a process.
    """
    known = (ctx.cache, toolchain.identity, source)
    if known not in _found:
        _found[known] = _compile(ctx, toolchain, source, (*flags, *WARNINGS))
    return _found[known]


def _compile(ctx: Context, toolchain: Toolchain, source: str, flags: Sequence[str]) -> Path:
    text = resources.files("kdrv.sim").joinpath(source).read_text()
    name = source.removesuffix(".c")

    def make(data: Path) -> Mapping[str, Any]:
        (data / source).write_text(text)
        command = toolchain.command(
            ["gcc", *flags, "-o", f"{MODULE_OUTPUT}/{name}", f"{MODULE_OUTPUT}/{source}"],
            binds=[Bind(data, MODULE_OUTPUT, writable=True)],
        )
        ctx.runner.run(command, deadline=DEADLINE)
        return {"toolchain": toolchain.identity}

    key = digest(toolchain.identity, text, list(flags))
    return Store(ctx).get(f"sim-{name}", key, make).data / name
