"""Which kdrv this is."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import kdrv


@cache
def release() -> str:
    """The version of this kdrv and a digest of its files: a copy that was edited is another one."""
    root = Path(kdrv.__file__).parent
    files = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc")
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return f"{kdrv.__version__} ({digest.hexdigest()[:12]})"
