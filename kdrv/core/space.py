"""Room on a disk, asked for before a large thing is made.

Programs that meet a full disk half-way say so late, in their own words, or wait for ever.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from kdrv.core.errors import SetupError

GIB = 1 << 30


def require_space(place: Path, gib: float, what: str) -> None:
    """Raise :class:`SetupError` when the disk of ``place`` has less than ``gib`` GiB for ``what``.

    ``place`` need not be there yet.
    """
    there = next(path for path in (place, *place.parents) if path.exists())
    free = shutil.disk_usage(there).free / GIB
    if free < gib:
        raise SetupError(
            f"the disk of {place} is full: {free:.1f} GB are free, {what} needs {gib:g} GB",
            expected="12 GB for everything that kdrv keeps",
            remedy="kdrv cache prune, or set XDG_CACHE_HOME to a larger disk",
        )
