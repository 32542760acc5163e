"""Drivers of the kernel tree itself, named by their Kconfig symbol."""

from __future__ import annotations

from pathlib import Path

from kdrv.core.errors import UsageError


def symbol_line(symbol: str, *, builtin: bool) -> str:
    """The .config line that builds the driver."""
    return f"CONFIG_{symbol.removeprefix('CONFIG_')}={'y' if builtin else 'm'}"


def built_module(build: Path, name: str) -> Path:
    """The .ko of a module by its name in /proc/modules, from the build's ``modules.order``.

    Raises :class:`UsageError` when the configuration builds no such module.
    """
    order = (build / "modules.order").read_text().split()
    modules = {Path(path).stem.replace("-", "_"): path for path in order}
    found = modules.get(name.replace("-", "_"))
    if found is None:
        raise UsageError(
            f"the kernel's configuration builds no module named {name}",
            expected=f"one of: {', '.join(sorted(modules)) or 'none'}",
            remedy="add its CONFIG_ line to [kernel] config in kdrv.toml",
        )
    return (build / found).with_suffix(".ko")
