"""Who answers for files of the tree: the tree's own scripts/get_maintainer.pl."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from kdrv.core.context import Context
from kdrv.core.errors import DeadlineExceeded
from kdrv.core.limits import LimitExceeded, unless_machine_short
from kdrv.toolchain.base import SOURCE, Bind, Toolchain

LIST = "MAINTAINERS"
SCRIPT = "scripts/get_maintainer.pl"
DEADLINE = 120.0
MOST_FILES = 60
"""The script takes some 40 ms for each; who answers for so many is everybody."""

# Neither the history, which the sandbox does not have, nor everybody who asked for a copy.
_OPTIONS = ("--nogit", "--nogit-fallback", "--norolestats", "--roles", "--nor")
_LINE = re.compile(r"^(?P<who>[^@]+@\S+) \((?P<role>.+)\)$")
_MAILING_LIST = re.compile(r"^[\w ]*\blist\b")


def maintainers(
    ctx: Context, toolchain: Toolchain, tree: Path, files: Collection[str]
) -> tuple[str, ...]:
    """The maintainers of the files and then the mailing lists, each once, as mail addresses.

    Those of the first file come first; files that the tree does not have count for nothing. None
    for a tree that lacks MAINTAINERS or the script, or where the script fails: the tree may be a
    stranger's.
    """
    # One file that it cannot find, and the script says nothing of the others either.
    named = [name for name in dict.fromkeys(files) if _is_file(tree / name)][:MOST_FILES]
    if not named or not all(_is_file(tree / name) for name in (LIST, SCRIPT)):
        return ()
    argv = ["perl", f"./{SCRIPT}", *_OPTIONS, *(word for name in named for word in ("-f", name))]
    command = toolchain.command(argv, binds=[Bind(tree, SOURCE)], cwd=SOURCE)
    try:
        done = ctx.runner.run(command, deadline=DEADLINE, check=False)
    except (DeadlineExceeded, LimitExceeded) as error:
        unless_machine_short(error)
        return ()
    lines = (line for line in done.output.splitlines() if line.isprintable())
    found = [match for line in lines if (match := _LINE.match(line))]
    people = [match["who"] for match in found if not _MAILING_LIST.match(match["role"])]
    lists = [match["who"] for match in found if _MAILING_LIST.match(match["role"])]
    return tuple(dict.fromkeys(people + lists))


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
