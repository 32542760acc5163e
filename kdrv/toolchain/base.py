"""What a toolchain is: programs with exact versions, run inside a sandbox.

A provider (``debian``, ``host``) makes one; nobody else knows which it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kdrv.core.process import Command

SOURCE = "/run/kdrv/src"
"""Where a kernel tree appears inside the sandbox, always: built objects can then move."""
OUTPUT = "/run/kdrv/out"
"""Where the kernel's build directory (``O=``) appears inside the sandbox."""
MODULE = "/run/kdrv/mod"
"""Where an external module's source (``M=``) appears inside the sandbox, read-only."""
MODULE_OUTPUT = "/run/kdrv/modout"
"""Where an external module's build directory (``MO=``) appears inside the sandbox."""


@dataclass(frozen=True)
class Bind:
    """A host path made visible in the sandbox at ``target``; read-only unless ``writable``."""

    source: Path
    target: str
    writable: bool = False


class Toolchain(Protocol):
    """Programs to build and boot kernels with.

    ``name`` is the provider's. ``identity`` is a short digest of everything that may change what
    the programs produce: same identity, same output. ``versions`` maps a program to its exact
    version and is recorded in every result.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def identity(self) -> str: ...  # noqa: D102

    @property
    def versions(self) -> Mapping[str, str]: ...  # noqa: D102

    @property
    def path(self) -> str:
        """Where programs are searched for inside the sandbox, as ``PATH`` has it."""
        ...

    def command(
        self,
        argv: Sequence[str],
        *,
        binds: Sequence[Bind] = (),
        cwd: str = "/",
        env: Mapping[str, str] | None = None,
        devices: Sequence[str] = (),
    ) -> Command:
        """A command that runs ``argv`` in the sandbox.

        The sandbox has no network, an empty home, an environment of its own (plus ``env``), the
        toolchain's root read-only, and the ``binds``. ``cwd`` is a path inside. ``devices`` are
        host device nodes the program may open, such as ``/dev/kvm``.
        """
        ...
