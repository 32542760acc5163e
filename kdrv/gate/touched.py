"""Which drivers a series touches: those of the tree that a kdrv.toml names."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection
from pathlib import PurePosixPath

from kdrv.core.project import FILENAME
from kdrv.gate.git import Repo

_OBJECTS = re.compile(r"^(?P<name>[\w.$()-]+)\s*[:+]?=\s*(?P<words>.*)$", re.M)


def touched(git: Repo, commit: str, paths: Collection[str]) -> tuple[str, ...]:
    """The folders of the projects at ``commit`` whose driver one of ``paths`` belongs to.

    A driver's files are those of its project's folder and, for a driver that the project names by
    its Kconfig symbol, what the tree's makefiles make it of.
    """
    listed = git.text("ls-tree", "-r", "--name-only", "-z", commit).split("\0")
    projects = [path for path in listed if PurePosixPath(path).name == FILENAME]
    return tuple(
        folder
        for path in projects
        if (symbol := _symbol(git.blob(commit, path) or "")) is not None
        and (folder := str(PurePosixPath(path).parent))
        and _concerns(git, commit, folder, symbol, paths)
    )


def _symbol(text: str) -> str | None:
    """The Kconfig symbol of the driver that a kdrv.toml names, empty for an external module.

    None for a file that names no driver, such as one with nothing but a policy.
    """
    try:
        driver = tomllib.loads(text).get("driver")
    except (ValueError, RecursionError):
        return ""  # whoever loads it will say what is wrong
    if not isinstance(driver, dict):
        return None
    return str(driver.get("symbol", "")).removeprefix("CONFIG_")


def _concerns(git: Repo, commit: str, folder: str, symbol: str, paths: Collection[str]) -> bool:
    if any(PurePosixPath(path).is_relative_to(folder) for path in paths):
        return True
    return any(_owns(place, path) for place in _sources(git, commit, symbol) for path in paths)


def _owns(place: str, path: str) -> bool:
    """Whether ``place``, a folder or a file without its suffix, is or holds ``path``."""
    pure = PurePosixPath(path)
    return pure.is_relative_to(place) or str(pure.with_suffix("")) == place


def _sources(git: Repo, commit: str, symbol: str) -> set[str]:
    """What a driver is made of (Documentation/kbuild/makefiles.rst): files without their suffix,
    and folders."""
    if not re.fullmatch(r"\w+", symbol):
        return set()
    makefiles = ("--", "*Makefile", "*Kbuild")
    found = git.run("grep", "-l", "-w", f"CONFIG_{symbol}", commit, *makefiles, check=False)
    sources = set()
    for line in found.output.splitlines():
        path = line.partition(":")[2]
        makefile = (git.blob(commit, path) or "").replace("\\\n", " ")
        rules = [(one["name"], one["words"].split()) for one in _OBJECTS.finditer(makefile)]
        made = [w for name, words in rules if name == f"obj-$(CONFIG_{symbol})" for w in words]
        parts = {
            word
            for one in made
            for name, words in rules
            if re.fullmatch(rf"{re.escape(one.removesuffix('.o'))}-(y|objs|\$\(\w+\))", name)
            for word in words
        }
        folder = PurePosixPath(path).parent
        sources |= {str(folder / one.removesuffix(".o").rstrip("/")) for one in {*made, *parts}}
    return sources
