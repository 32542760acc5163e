"""kdrv beside virtme-ng (one command) and beside kunit.py (one KUnit suite).

``python -m bench.rivals [virtme] [kunit]``: one line a comparison, each program from its start to
its end, with nothing left to build. virtme-ng comes from PyPI (``pip install virtme-ng``); kunit.py
is the kernel tree's. All three use the toolchain's QEMU, in the same sandbox.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bench.ratio import Ratio, measure
from kdrv.build.api import BuildRequest, Workbench, build, prepare
from kdrv.build.make import Make
from kdrv.core.context import Context
from kdrv.core.errors import SetupError
from kdrv.core.project import load_project
from kdrv.toolchain.base import Bind

PROJECT = Path(__file__).parent
KERNEL = "arch/x86/boot/bzImage"
"""What both rivals boot; kdrv boots the same kernel's vmlinux."""
ROUNDS = 5
DEADLINE = 600.0
KDRV = (sys.executable, "-c", "from kdrv.cli.main import main; main()")


@dataclass(frozen=True)
class Rig:
    """The built kernel with a bzImage, in a directory for kunit.py, and a QEMU to be found."""

    bench: Workbench
    scratch: Path
    output: Path

    def program(self, *argv: str, expect: str) -> Callable[[], None]:
        """Runs a program as a user does; it must say ``expect``, which is said of success only."""
        beside = Path(sys.executable).parent
        env = {
            **os.environ,
            "PATH": f"{self.scratch}/bin:{beside}:{os.environ['PATH']}",
            "TMPDIR": str(self.scratch),
            # As on any machine, what Python compiled is kept; but not in the kernel tree.
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(self.scratch / "pycache"),
            # pytest plugins of a developer's environment, which kdrv's users do not have.
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }

        def run() -> None:
            done = subprocess.run(
                argv,
                cwd=self.scratch,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=DEADLINE,
            )
            if expect not in done.stdout:
                sys.exit(f"{shlex.join(argv)} ended with {done.returncode}:\n{done.stdout[-3000:]}")

        return run


@contextmanager
def rig() -> Iterator[Rig]:
    """Build the project's lane if need be, and its bzImage."""
    ctx = Context()
    request = BuildRequest().for_project(load_project(PROJECT))
    bench = prepare(ctx, request)
    (lane,) = build(ctx, request, bench)
    image = lane.kernel.image
    assert image, [d.message for d in lane.diagnostics]
    with tempfile.TemporaryDirectory(prefix="kdrv-bench-") as place:
        scratch = Path(place)
        output = scratch / "build"
        shutil.copytree(image.build, output, symlinks=True)
        make = Make(bench.tree, request.lanes()[0], bench.toolchain, output)
        ctx.runner.run(make.command(("bzImage",), jobs=ctx.jobs), deadline=DEADLINE)
        _wrap_qemu(bench, scratch)
        yield Rig(bench, scratch, output)


def _wrap_qemu(bench: Workbench, scratch: Path) -> None:
    """Put the toolchain's QEMU where programs look for it."""
    shown = [Bind(scratch, str(scratch), writable=True)]
    if virtme := find_spec("virtme"):
        shown += [Bind(Path(p), p) for p in virtme.submodule_search_locations or ()]
    command = bench.toolchain.command(["/usr/bin/qemu-system-x86_64"], binds=shown, cwd="/tmp")
    program = scratch / "bin/qemu-system-x86_64"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.join(command.argv)} "$@"\n')
    program.chmod(0o755)


def virtme(rig: Rig) -> Ratio:
    """One command in the kernel: a test of one line, beside virtme-ng's ``--exec``."""
    if find_spec("virtme") is None:
        raise SetupError("virtme-ng is not installed", remedy="python -m pip install virtme-ng")
    # Apart from a build directory it looks for no modules. Its root needs a name where the kernel
    # has no block devices; and without udev in that root it speaks on the console, hence -v.
    kernel = shutil.copy(rig.output / KERNEL, rig.scratch)
    vng = ["vng", "-v", "--run", str(kernel), "--disable-kvm", "--force-9p"]
    vng += ["--cpus", "1", "--append", "root=/dev/root", "--exec", "uname -r"]
    return measure(
        "one command: kdrv test --qemu",
        rig.program(*KDRV, "test", "--qemu", str(PROJECT), "-k", "command", expect="1 passed"),
        "virtme-ng --exec, same kernel",
        rig.program(*vng, expect="script exited with code 0"),
        rounds=ROUNDS,
        limit=1.0,
    )


def kunit(rig: Rig) -> Ratio:
    """One KUnit suite, beside the tree's own runner."""
    script = rig.bench.tree.path / "tools/testing/kunit/kunit.py"
    argv = [sys.executable, str(script), "exec", "--arch", "x86_64", "--build_dir"]
    argv += [str(rig.output), "example"]
    return measure(
        "one KUnit suite: kdrv test --qemu",
        rig.program(*KDRV, "test", "--qemu", str(PROJECT), "-k", "kunit", expect="1 passed"),
        "kunit.py exec, same kernel",
        rig.program(*argv, expect="Testing complete. Ran"),
        rounds=ROUNDS,
        limit=1.0,
    )


def main() -> None:
    """Run the comparisons named on the command line, or all."""
    known = {"virtme": virtme, "kunit": kunit}
    wanted = sys.argv[1:] or list(known)
    try:
        with rig() as made:
            for name in wanted:
                print(known[name](made).row(), flush=True)
    except SetupError as error:
        sys.exit(f"{error.message}; remedy: {error.remedy}")


if __name__ == "__main__":
    main()
