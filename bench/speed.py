"""Booting beside bare QEMU, and a no-op build beside bare make.

``python -m bench.speed [boot] [noop]``: one line a comparison. Rounds alternate, so the machine's
drift hits both sides.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.ratio import Ratio, measure
from kdrv.build.api import BuildRequest, Workbench, build, prepare
from kdrv.build.lane import Language
from kdrv.core.context import Context
from kdrv.guest.base import base_initramfs
from kdrv.guest.cpio import Archive
from kdrv.guest.session import Guest
from kdrv.machine.contract import BootSpec, KernelImage
from kdrv.qemu.world import QemuWorld
from kdrv.toolchain.base import Bind

MARK = "kdrv-bench-reached-userspace"
ROUNDS = 5


@dataclass(frozen=True)
class Rig:
    """A built Rust lane and what boots it."""

    ctx: Context
    bench: Workbench
    image: KernelImage
    initramfs: Path


@contextmanager
def rig() -> Iterator[Rig]:
    """Build the Rust lane if need be."""
    ctx = Context()
    request = BuildRequest(languages=(Language.RUST,))
    bench = prepare(ctx, request)
    (lane,) = build(ctx, request, bench)
    assert lane.kernel.image, "the Rust lane does not build"
    image = lane.kernel.image
    yield Rig(ctx, bench, image, base_initramfs(ctx, bench.toolchain, bench.tree, image.arch))


def boot(rig: Rig) -> Ratio:
    """To the first answered call, beside bare QEMU with the best flags to init."""
    world = QemuWorld(rig.bench.toolchain, rig.ctx)
    spec = BootSpec(rig.image, rig.initramfs, cpus=1)

    def ours() -> None:
        with world.boot(spec) as machine:
            assert Guest.of(machine).uname().release == rig.image.release

    with tempfile.TemporaryDirectory() as scratch:
        script = f"#!/bin/sh\necho {MARK}\nwhile :; do sleep 1000; done\n"
        base = rig.initramfs.read_bytes()
        bare = Path(scratch) / "bare.cpio"
        bare.write_bytes(base + Archive().file("/init", script.encode(), 0o755).pack())
        root = rig.bench.toolchain
        argv = ["qemu-system-x86_64", "-M", "q35", "-bios", "qboot.rom", "-accel", "tcg"]
        argv += ["-cpu", "qemu64", "-m", "256M", "-smp", "1", "-nodefaults", "-no-user-config"]
        argv += ["-display", "none", "-nic", "none", "-serial", "stdio", "-kernel", "/run/k"]
        argv += ["-initrd", "/run/i", "-append", "console=ttyS0 panic=-1"]
        binds = (Bind(rig.image.image, "/run/k"), Bind(bare, "/run/i"))
        command = root.command(argv, binds=binds)

        def theirs() -> None:
            with rig.ctx.runner.start(command, stdout=subprocess.PIPE) as child:
                assert child.stdout
                assert any(MARK.encode() in line for line in child.stdout)

        name = "boot to the first answered call"
        return measure(name, ours, "bare QEMU to init", theirs, rounds=ROUNDS, limit=1.15)


def noop(rig: Rig) -> Ratio:
    """``kdrv build`` with nothing to do in a tree of one's own, beside bare make.

    The tree stays in the cache: only the first run of this comparison builds a kernel.
    """
    tree = rig.ctx.cache / "bench" / "linux"
    if not (tree / "Makefile").exists():
        half = tree.with_name("half")
        shutil.rmtree(half, ignore_errors=True)
        shutil.copytree(rig.bench.tree.path, half, symlinks=True)
        half.rename(tree)
    request = BuildRequest(kernel=str(tree), languages=(Language.RUST,))
    mine = prepare(rig.ctx, request)
    (lane,) = build(rig.ctx, request, mine)
    assert lane.kernel.image
    # The very command that kdrv ran: with another compiler's name make would make all anew.
    bare = lane.kernel.log.read_text().partition("\n")[0].removeprefix("$ ")
    argv = [sys.executable, "-c", "from kdrv.cli.main import main; main()"]
    argv += ["build", "--rust", "--kernel", str(tree)]
    return measure(
        "no-op kdrv build --rust",
        _program(argv),
        "bare make, same objects",
        _program(["sh", "-c", bare]),
        rounds=ROUNDS,
        limit=1.10,
    )


def _program(argv: list[str]) -> Callable[[], object]:
    return lambda: subprocess.run(argv, check=True, capture_output=True)


def main() -> None:
    """Run the comparisons named on the command line, or all."""
    known = {"boot": boot, "noop": noop}
    wanted = sys.argv[1:] or list(known)
    began = time.monotonic()
    with rig() as made:
        for name in wanted:
            print(known[name](made).row(), flush=True)
    print(f"in all {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
