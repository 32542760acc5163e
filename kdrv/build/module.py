"""Building an external module against a lane's kernel, outside its own directory."""

from __future__ import annotations

import time
from pathlib import Path

from kdrv.build.diagnostics import parse
from kdrv.build.diagnostics.rust_places import placed
from kdrv.build.interrupted import guarded
from kdrv.build.intree import modules_order
from kdrv.build.lane import Lane
from kdrv.build.make import Heard, Make, run
from kdrv.build.result import ModuleBuild
from kdrv.core.context import Context
from kdrv.core.errors import UsageError
from kdrv.core.inside import understood
from kdrv.core.process import Command
from kdrv.core.store import Store, digest
from kdrv.kernel.tree import FIRST_MODULE_OUTPUT, KernelTree
from kdrv.machine.contract import KernelImage
from kdrv.toolchain.base import MODULE, MODULE_OUTPUT, SOURCE, Bind, Toolchain

KIND = "module"
LOG = "kdrv-make.log"
ORDER_LIMIT = 1 << 20


def require_module(directory: Path) -> Path:
    """The directory, absolute. Raises :class:`UsageError` when it holds no external module."""
    directory = directory.expanduser().absolute()
    if not directory.is_dir():
        raise UsageError(
            f"{directory} is not a directory",
            expected="the directory of an external module, with its Kbuild or Makefile",
            remedy="kdrv new NAME",
        )
    if not any((directory / name).exists() for name in ("Kbuild", "Makefile")):
        raise UsageError(
            f"{directory} holds neither Kbuild nor Makefile",
            expected="an external module (Documentation/kbuild/modules.rst)",
            remedy="kdrv new NAME",
        )
    return directory


def build_module(
    ctx: Context,
    directory: Path,
    tree: KernelTree,
    lane: Lane,
    image: KernelImage,
    toolchain: Toolchain,
    *,
    variables: tuple[str, ...] = (),
    only: str = "",
    reproducer: str = "",
) -> ModuleBuild:
    """Build every module of ``directory``; what does not compile is a result, not an error.

    ``variables`` are added to make's command line. ``only`` is the one .ko to build, by its path
    in the directory. A directory of ``tree`` is built where the tree is, for what it includes.
    Neither the module's sources nor the kernel's build directory are written to.
    """
    directory = require_module(directory)
    began = time.monotonic()
    one = (only,) if only else ()
    key = digest("module-1", str(directory), str(image.build), variables, *one)
    facts = {"directory": str(directory), "lane": lane.name, "version": str(tree.version)}
    with Store(ctx).workspace(KIND, key, facts, waiting=f"module {directory}") as output:
        make = Make(tree, lane, toolchain, image.build)
        outside = tree.version.pair >= FIRST_MODULE_OUTPUT
        if outside:
            place = module_place(directory, tree)
            arguments = [*variables, f"M={place}", f"MO={MODULE_OUTPUT}", only or "modules"]
            binds = [Bind(output, MODULE_OUTPUT, writable=True)]
            if place == MODULE:
                binds.append(Bind(directory, MODULE))
        else:
            # Before MO= a module was built among its sources: give make a copy of them.
            copy = Command(("cp", "-aT", "--update", str(directory), str(output)))
            ctx.runner.run(copy, deadline=60)
            arguments = [*variables, f"M={MODULE}", only or "modules"]
            binds = [Bind(output, MODULE, writable=True)]
        command_line = make.command(arguments, jobs=ctx.jobs, binds=binds, writable=False)
        with guarded(output):
            label = f"building {directory.name} for lane {lane.name}"
            with ctx.events.step(label) as step:
                done = run(ctx, command_line, Heard(step), output / LOG)
        said = parse(done.output.splitlines(), lane=lane.name)
        with understood(f"what the makefiles of {directory.name} left"):
            modules = () if not done.ok else (output / only,) if only else _modules(output)
            said = placed(ctx, toolchain, said, output)
    return ModuleBuild(
        directory=directory,
        lane=lane.name,
        ok=done.ok,
        modules=modules,
        diagnostics=said,
        seconds=time.monotonic() - began,
        log=output / LOG,
        reproducer=reproducer,
    )


def module_place(directory: Path, tree: KernelTree) -> str:
    """Where make sees a module's directory: in the tree, if it is the tree's."""
    inside = directory.is_relative_to(tree.path)
    return f"{SOURCE}/{directory.relative_to(tree.path)}" if inside else MODULE


def _modules(output: Path) -> tuple[Path, ...]:
    """The .ko files make listed, in their order; stale ones of earlier builds are not listed."""
    order = modules_order(output, ORDER_LIMIT)
    return tuple(output / Path(name).with_suffix(".ko").name for name in order)
