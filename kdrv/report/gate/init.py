"""The files that make a code host, or b4, run the gate: ``kdrv gate --init``."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from kdrv.core.errors import UsageError

KINDS = ("github", "gitlab", "b4")
_FILES = {
    "github": {".github/workflows/kdrv-gate.yml": "github.yml"},
    "gitlab": {".gitlab-ci.yml": "gitlab.yml"},
    "b4": {".b4-config": "b4-config"},
}


def ci_files(kind: str) -> dict[str, str]:
    """Each file's path in the tree and its text. Raises :class:`UsageError` for another kind."""
    if kind not in _FILES:
        raise UsageError(
            f"there are no files for {kind!r}",
            expected=f"one of {', '.join(KINDS)}",
            remedy="kdrv gate --init github",
        )
    texts = files("kdrv.report.gate") / "ci"
    return {path: (texts / name).read_text() for path, name in _FILES[kind].items()}


def write_ci_files(root: Path, kind: str) -> tuple[Path, ...]:
    """Write the files into a tree and return where they are.

    Raises :class:`UsageError`, and writes nothing, if one of them is there already.
    """
    if not root.is_dir():
        raise UsageError(
            f"{root} is not a directory",
            expected="a kernel's clone",
            remedy=f"kdrv gate --init {kind} --repo CLONE",
        )
    wanted = {root / path: text for path, text in ci_files(kind).items()}
    if there := [path for path in wanted if path.exists() or path.is_symlink()]:
        raise UsageError(
            f"{there[0]} is there already",
            expected="no such file: one that was written by hand is never overwritten",
            remedy=f"mv {there[0]} {there[0]}.old, kdrv gate --init {kind}, and merge the two",
        )
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Never through a link that someone made in the meantime.
        with path.open("x") as file:
            file.write(text)
    return tuple(wanted)
