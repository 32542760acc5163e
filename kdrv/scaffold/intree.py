"""A place for a driver in a kernel tree: its directory's new lines, the names that are taken."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath

from kdrv.core.errors import UsageError
from kdrv.scaffold.names import Names

TAB = 8


@dataclass(frozen=True)
class Spot:
    """Where a driver goes: ``subdir`` of the kernel tree ``tree``, in a directory ``name``."""

    tree: Path
    subdir: PurePosixPath
    name: str

    @property
    def directory(self) -> Path:
        """The driver's directory."""
        return self.tree / self.subdir / self.name

    @property
    def to_tree(self) -> str:
        """The way from the driver's directory to the tree's top."""
        return "/".join([".."] * (len(self.subdir.parts) + 1))


def find_spot(tree: Path, subdir: str, names: Names) -> Spot:
    """Check the place. Raises :class:`UsageError` for a path that is none or leads outside."""
    relative = PurePosixPath(subdir)
    folder = tree / relative
    inside = not relative.is_absolute() and ".." not in relative.parts and relative.parts
    if not inside or not folder.is_dir() or not folder.resolve().is_relative_to(tree.resolve()):
        raise UsageError(
            f"{subdir!r} is not a directory of the kernel tree {tree}",
            expected="a path below the tree such as drivers/misc or samples/rust",
            remedy="--subdir drivers/misc",
        )
    if not (folder / "Kconfig").is_file() or _makefile(folder) is None:
        raise UsageError(
            f"{folder} has no Kconfig and Makefile to put the driver's lines in",
            expected="a directory of the tree with both",
            remedy="--subdir drivers/misc",
        )
    return Spot(tree, relative, names.module)


def edits(spot: Spot, *symbols: str) -> dict[Path, bytes]:
    """The new contents of the directory's Kconfig and Makefile.

    A file that has the line already is not among them.
    """
    folder = spot.tree / spot.subdir
    makefile = _makefile(folder)
    assert makefile is not None
    source = f"{spot.subdir}/{spot.name}/Kconfig"
    changes: list[tuple[Path, Callable[[str], str]]] = [
        (folder / "Kconfig", lambda text: add_source(text, source)),
        (makefile, lambda text: _add_objects(text, symbols, f"{spot.name}/")),
    ]
    result = {}
    for path, change in changes:
        before = path.read_bytes()
        after = change(before.decode(errors="surrogateescape")).encode(errors="surrogateescape")
        if after != before:
            # The file itself, not a link to it, is what will be replaced.
            result[path.resolve()] = after
    return result


def refuse_taken(tree: Path, names: Names) -> None:
    """Raise :class:`UsageError` when the tree has the Kconfig symbol or the module already."""
    symbol = re.compile(rf"^\s*(?:menu)?config\s+{names.symbol}\s*$", re.M)
    built = re.compile(rf"\b{names.module.replace('_', '[-_]')}\.o\b")
    for path in _build_files(tree):
        text = path.read_text(errors="replace")
        if path.name.startswith("Kconfig"):
            what, taken = f"the symbol {names.symbol}", symbol.search(text)
        else:
            whole = text.replace("\\\n", " ")
            objects = (line for line in whole.splitlines() if re.match(r"\s*obj-", line))
            what = f"a module {names.module}"
            taken = next(filter(None, map(built.search, objects)), None)
        if taken:
            raise UsageError(
                f"the kernel tree has {what} already, in {path.relative_to(tree)}",
                expected="a name that is new to the tree",
                remedy=f"kdrv new {names.name}-driver",
            )


def _build_files(tree: Path) -> Iterator[Path]:
    """Every Kconfig, Makefile and Kbuild of the kernel's own directories."""
    skipped = {".git", "Documentation", "tools", "include"}
    for folder, folders, files in os.walk(tree):
        folders[:] = [name for name in folders if name not in skipped]
        for name in files:
            if name.startswith("Kconfig") or name in ("Makefile", "Kbuild"):
                yield Path(folder, name)


def _makefile(folder: Path) -> Path | None:
    """What kbuild reads there: Kbuild comes before Makefile (scripts/Kbuild.include)."""
    return next((folder / n for n in ("Kbuild", "Makefile") if (folder / n).is_file()), None)


def add_source(kconfig: str, path: str) -> str:
    """``kconfig`` with a ``source`` line for ``path``, in the outermost block that ends the file.

    The line goes among the block's other ``source`` lines: in its place when they are in order of
    the alphabet, else behind them; without any, at the end of the block.
    """
    lines = kconfig.splitlines()
    if any(re.match(rf'\s*source\s+"?{re.escape(path)}"?\s*$', line) for line in lines):
        return kconfig
    # Keywords are looked for in the first column only: help texts are full of "if".
    depths = _depths(lines, r"(menu|if|choice)\b(?!config)", r"end(menu|if|choice)\b")
    closing = [i for i, line in enumerate(lines) if depths[i] == 0 and line.startswith("end")]
    code = [i for i, line in enumerate(lines) if line.strip() and not line.startswith("#")]
    enclosed = bool(closing) and closing[-1] == code[-1]
    parent = path.rsplit("/", 2)[0]
    peers = {
        i: match[1]
        for i, line in enumerate(lines)
        if depths[i] == int(enclosed)
        and (match := re.match(rf'source\s+"?({re.escape(parent)}/[^"\s]+)', line))
    }
    new = f'source "{path}"'
    if peers:
        lines.insert(_slot(peers, path), new)
    elif enclosed:
        lines[closing[-1] : closing[-1]] = (
            [new, ""] if not lines[closing[-1] - 1] else ["", new, ""]
        )
    else:
        lines += ["", new]
    return "\n".join(lines) + "\n"


def _add_objects(makefile: str, symbols: Iterable[str], target: str) -> str:
    for symbol in symbols:
        makefile = add_object(makefile, symbol, target)
    return makefile


def add_object(makefile: str, symbol: str, target: str) -> str:
    """``makefile`` with a line that builds ``target`` when ``symbol`` is set.

    It goes among the other such lines, in its place when they are in order of the alphabet, else
    behind them, and is aligned like its neighbour.
    """
    lines = makefile.splitlines()
    rule = re.compile(r"(obj-\$\(CONFIG_(\w+)\))(\s*)(\+=|:=)(\s*)(\S.*)?$")
    if any((m := rule.match(line)) and m[2] == symbol and m[6] == target for line in lines):
        return makefile
    depths = _depths(lines, r"(ifn?eq|ifn?def|define)\b", r"(endif|endef)\b")
    peers = {
        i: match for i, line in enumerate(lines) if not depths[i] and (match := rule.match(line))
    }
    head = f"obj-$(CONFIG_{symbol})"
    if not peers:
        return "\n".join([*lines, f"{head} += {target}"]) + "\n"
    slot = _slot({i: match[2] for i, match in peers.items()}, symbol)
    while slot and lines[slot - 1].endswith("\\"):
        slot += 1
    near = peers[max((i for i in peers if i < slot), default=min(peers))]
    column = len((near[1] + near[3]).expandtabs(TAB))
    lines.insert(slot, f"{head}{_gap(len(head), column, near[3])}+={near[5] or ' '}{target}")
    return "\n".join(lines) + "\n"


def _gap(start: int, column: int, like: str) -> str:
    """White space from ``start`` to ``column``, with tabs if the neighbour's has some."""
    if start >= column:
        return " "
    if "\t" not in like:
        return " " * (column - start)
    return "\t" * -(-(column - start) // TAB)


def _slot(peers: dict[int, str], new: str) -> int:
    """The line to insert before: the first later peer of a sorted list, else behind the last."""
    in_order = all(first <= second for first, second in pairwise(peers.values()))
    later = [i for i, key in peers.items() if key > new]
    return later[0] if in_order and later else max(peers) + 1


def _depths(lines: list[str], opens: str, closes: str) -> list[int]:
    """How many blocks each line is in; a line that opens or closes one is outside of it."""
    depth = 0
    depths = []
    for line in lines:
        depth -= bool(re.match(closes, line))
        depths.append(depth)
        depth += bool(re.match(opens, line))
    return depths
