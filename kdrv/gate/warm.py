"""A first build that starts from a kernel of the cache instead of from nothing.

Inside the sandbox every tree and every build directory have the same path, so objects made from a
package's tree are valid for a checkout, as far as the sources are the same. make judges that by
time: a source that is byte for byte the package's gets the package's time, any other stays new.
"""

from __future__ import annotations

import os
from pathlib import Path

from kdrv.build.configure import CONFIG
from kdrv.build.kernel import built_before, copy_build
from kdrv.build.make import Make
from kdrv.core.context import Context
from kdrv.core.store import remove_tree
from kdrv.gate.inputs import BUILD_TOOLS, Reader
from kdrv.kernel.source import unpacked


def warm(ctx: Context, make: Make) -> bool:
    """Fill an empty build directory from the same lane of a package's kernel, if there is one.

    Whether it was done: files of the work tree then have other times than before.
    """
    if (make.output / CONFIG).exists():
        return False
    for tree in unpacked(ctx):
        if tree.version.pair == make.tree.version.pair:
            entry = built_before(ctx, tree, make.lane, make.toolchain)
            if entry:
                break
    else:
        return False
    with ctx.events.step(f"starting from lane {make.lane.name} of {tree.origin}"):
        remove_tree(make.output)
        copy_build(ctx, entry.data, make.output)
        inputs = Reader(make.output).read()
        for name in inputs.files | inputs.kconfig | _tools(tree.path):
            _date(tree.path / name, make.tree.path / name)
    return True


def _tools(tree: Path) -> set[str]:
    """What the build's own programs are made from; they keep no record that can be read."""
    folders = (tree / folder for folder in BUILD_TOOLS)
    files = (path for folder in folders for path in folder.rglob("*"))
    return {str(path.relative_to(tree)) for path in files}


def _date(theirs: Path, ours: Path) -> None:
    """Give a file of ours the time of theirs if they are the same."""
    if not (ours.is_file() and theirs.is_file()) or ours.is_symlink():
        return
    if ours.read_bytes() == theirs.read_bytes():
        times = theirs.stat()
        os.utime(ours, ns=(times.st_atime_ns, times.st_mtime_ns))
