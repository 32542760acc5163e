"""Drivers of the kernel tree itself, named by their Kconfig symbol."""

from __future__ import annotations

from pathlib import Path

from kdrv.core.errors import UsageError
from kdrv.core.inside import inside, read_text_inside

ORDER_LIMIT = 4 << 20


def symbol_line(symbol: str, *, builtin: bool) -> str:
    """The .config line that builds the driver."""
    return f"CONFIG_{symbol.removeprefix('CONFIG_')}={'y' if builtin else 'm'}"


def modules_order(build: Path, limit: int) -> list[str]:
    """The objects of the modules that make built, in its order; none where it built none.

    Raises as :func:`kdrv.core.inside.read_text_inside` does, for a file above ``limit`` bytes too.
    """
    try:
        return read_text_inside(build, Path("modules.order"), limit).split()
    except FileNotFoundError:
        return []


def built_module(build: Path, name: str) -> Path:
    """The .ko of a module by its name in /proc/modules, from the build's ``modules.order``.

    Raises :class:`UsageError` when the configuration builds no such module, and as
    :func:`kdrv.core.inside.inside` does.
    """
    order = modules_order(build, ORDER_LIMIT)
    modules = {Path(path).stem.replace("-", "_"): path for path in order}
    found = modules.get(name.replace("-", "_"))
    if found is None:
        raise UsageError(
            f"the kernel's configuration builds no module named {name}",
            expected=f"one of: {', '.join(sorted(modules)) or 'none'}",
            remedy="add its CONFIG_ line to [kernel] config of kdrv.toml, or with --fragment FILE",
        )
    module = (build / found).with_suffix(".ko")
    inside(build, module)
    return module
