"""The presets: policies that come with kdrv, as TOML beside this module, each rule with its why."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Any

from kdrv.core.errors import UsageError

DEFAULT = "default"
"""What holds where nobody chose; the others state only where they differ from it."""


@cache
def names() -> tuple[str, ...]:
    """The presets there are, :data:`DEFAULT` first."""
    files = (file.name for file in (resources.files("kdrv.gate") / "presets").iterdir())
    found = {name.removesuffix(".toml") for name in files if name.endswith(".toml")}
    return (DEFAULT, *sorted(found - {DEFAULT}))


def table(name: str) -> dict[str, Any]:
    """A preset as it stands in its file. Raises :class:`UsageError` for a name that is none."""
    if name not in names():
        raise UsageError(
            f"there is no preset {name!r} of the gate's policy",
            expected=f"one of {', '.join(names())}",
            remedy="kdrv gate --explain",
        )
    return tomllib.loads((resources.files("kdrv.gate") / f"presets/{name}.toml").read_text())
