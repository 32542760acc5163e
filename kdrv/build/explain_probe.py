"""What Kconfig learns from the toolchain, asked in the sandbox the kernel is configured in.

The makefiles export the variables that Kconfig reads (``CC``, ``SRCARCH``, ``PAHOLE_VERSION``, …).
They are not guessed: ``KBUILD_KCONFIG`` lets the kernel's own ``conf`` read a Kconfig of ours that
prints its environment.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kdrv.core.context import Context
from kdrv.core.errors import CommandFailed
from kdrv.toolchain.base import OUTPUT, SOURCE, Bind, Toolchain

MARK = "kdrv-environment "
_KCONFIG = (
    r'told := $(shell,env -0 | tr "\n\0" " \n" | sed "s/^/' + MARK + '/" >&2)\n'
    "config KDRV\n\tbool\n"
)
_NOT_OURS = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "PWD", "OLDPWD", "SHLVL", "_"}
DEADLINE = 120.0


@dataclass(frozen=True)
class Probe:
    """A tree, a toolchain and the make variables of a lane; ``output`` is its ``O=`` directory."""

    tree: Path
    output: Path
    toolchain: Toolchain
    make: Mapping[str, str]
    ctx: Context

    @cached_property
    def environment(self) -> Mapping[str, str]:
        """What the makefiles export to ``conf``. Raises :class:`CommandFailed`."""
        assignments = {
            **self.make,
            "KBUILD_KCONFIG": "/tmp/kdrv/Kconfig",
            "KCONFIG_CONFIG": "/tmp/kdrv/.config",
        }
        make = ["make", "-s", "-C", SOURCE, f"O={OUTPUT}", "listnewconfig"]
        make += [f"{name}={value}" for name, value in assignments.items()]
        script = (
            f"mkdir -p /tmp/kdrv && printf %s {shlex.quote(_KCONFIG)} > /tmp/kdrv/Kconfig && "
            + shlex.join(make)
        )
        binds = (Bind(self.tree, SOURCE), Bind(self.output, OUTPUT, writable=True))
        command = self.toolchain.command(["sh", "-c", script], binds=binds, cwd="/tmp")
        done = self.ctx.runner.run(command, deadline=DEADLINE)
        found = dict(
            line.removeprefix(MARK).split("=", 1)
            for line in done.output.splitlines()
            if line.startswith(MARK) and "=" in line
        )
        if "SRCARCH" not in found:
            raise CommandFailed(
                "the kernel's makefiles did not say what they export to Kconfig",
                detail=done.tail(),
                reproducer=command.shell(),
            )
        return {name: value for name, value in found.items() if name not in _NOT_OURS}

    def run(self, script: str) -> str:
        """What a shell command prints on its stdout, whatever its status; as ``$(shell,…)``."""
        return self._shell(f"{{ {script}\n}} 2>/dev/null")

    def rust_is_available(self) -> str:
        """What scripts/rust_is_available.sh says about the Rust toolchain: its reasons."""
        return self._shell(f"{SOURCE}/scripts/rust_is_available.sh")

    def _shell(self, script: str) -> str:
        command = self.toolchain.command(
            ["sh", "-c", script],
            binds=(Bind(self.tree, SOURCE),),
            cwd="/tmp",
            env=self.environment,
        )
        return self.ctx.runner.run(command, deadline=DEADLINE, check=False).output
