"""Choosing the provider for a tree."""

from __future__ import annotations

import shutil
from pathlib import Path

from kdrv.core.context import Context
from kdrv.core.errors import SetupError
from kdrv.core.events import Level
from kdrv.core.store import digest, write_atomic
from kdrv.toolchain import debian, host
from kdrv.toolchain.base import SOURCE, Bind, Toolchain
from kdrv.toolchain.machine_packages import SANDBOX_PROGRAMS, need_host_programs
from kdrv.toolchain.requirements import RUST_SCRIPT, Requirements, at_least

AUTO = "auto"
NEEDED = ("gcc", "binutils", "make", "qemu-system-x86")
NEEDED_RUST = ("rustc", "bindgen")
NEEDED_PROGRAMS = ("busybox", "iasl", "flex", "bison", "bc", "cpio")
RUST_ENVIRONMENT = {
    "RUSTC": "rustc",
    "BINDGEN": "bindgen",
    "CC": "gcc",
    "srctree": SOURCE,
    "SRCARCH": "x86",
    "MAKEFLAGS": "",
}
DEADLINE = 30.0


def select(ctx: Context, wanted: str, tree: Path, *, rust: bool = True) -> Toolchain:
    """The toolchain for a kernel tree, provisioned now if it is missing.

    ``wanted`` is ``debian``, ``host`` or ``auto``: the machine's own tools where they satisfy the
    tree (with Rust, if ``rust``), else the Debian root. Raises :class:`SetupError` when ``host``
    was forced and does not satisfy the tree.
    """
    if wanted == debian.DebianToolchain.name:
        return debian.provision(ctx)
    need_host_programs(ctx, SANDBOX_PROGRAMS)
    if wanted == AUTO and (ready := _remembered(ctx, tree)):
        return ready
    tools = host.find(ctx)
    missing = lacks(ctx, tree, tools, rust=rust)
    if not missing:
        return tools
    if wanted == host.HostTools.name:
        raise SetupError(
            f"this machine's tools do not satisfy the tree: {'; '.join(missing)}",
            expected="what the tree's min-tool-version.sh and rust_is_available.sh ask for",
            remedy="kdrv build --toolchain debian, or: kdrv doctor --toolchain host",
        )
    ctx.events.note(f"this machine's own tools lack {'; '.join(missing)}", Level.DEBUG)
    chosen = debian.provision(ctx)
    _remember(ctx, tree)
    return chosen


def by_name(ctx: Context, name: str) -> Toolchain:
    """The toolchain of a provider that was chosen before, by its name."""
    return debian.provision(ctx) if name == debian.DebianToolchain.name else host.find(ctx)


def lacks(ctx: Context, tree: Path, tools: Toolchain, *, rust: bool) -> list[str]:
    """What keeps ``tools`` from building and booting ``tree``, in words; empty when nothing does.

    The tree itself is asked: ``scripts/min-tool-version.sh`` and ``scripts/rust_is_available.sh``.
    """
    wanted = Requirements.of_tree(tree, tools, ctx.runner).versions
    missing = []
    for name in (*NEEDED, *(NEEDED_RUST if rust else ())):
        have, minimum = tools.versions.get(name), wanted.get(name)
        if have is None:
            missing.append(f"{name} is missing")
        elif minimum and not at_least(have, minimum):
            missing.append(f"{name} is {have}, {minimum} is needed")
    missing += [f"{name} is missing" for name in NEEDED_PROGRAMS if not shutil.which(name)]
    if rust and not missing and (tree / RUST_SCRIPT).exists():
        command = tools.command(
            ["sh", f"{SOURCE}/{RUST_SCRIPT}"], binds=[Bind(tree, SOURCE)], env=RUST_ENVIRONMENT
        )
        done = ctx.runner.run(command, deadline=DEADLINE, check=False)
        if not done.ok:
            missing.append(next(iter(done.tail(1)), "Rust is not available"))
    return missing


def _memo(ctx: Context, tree: Path) -> Path:
    """Where the answer "not the host's tools" is kept, for these very programs and this tree."""
    programs = [shutil.which(name) or "" for name in host.PROGRAMS.values()]
    stamps = [(name, Path(name).stat().st_mtime_ns) for name in programs if name]
    return ctx.cache / "select" / digest("select-1", str(tree), stamps)


def _remembered(ctx: Context, tree: Path) -> Toolchain | None:
    return debian.find(ctx) if _memo(ctx, tree).exists() else None


def _remember(ctx: Context, tree: Path) -> None:
    memo = _memo(ctx, tree)
    memo.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(memo, "debian\n")
