"""What a device, or any other ingredient of a machine, adds to QEMU's command line."""

from __future__ import annotations

from dataclasses import dataclass

from kdrv.toolchain.base import Bind


@dataclass(frozen=True)
class Parts:
    """An ingredient: QEMU ``arguments``, kernel ``cmdline`` words, files to bind in the sandbox."""

    arguments: tuple[str, ...] = ()
    cmdline: tuple[str, ...] = ()
    binds: tuple[Bind, ...] = ()

    def __add__(self, other: Parts) -> Parts:
        return Parts(
            self.arguments + other.arguments,
            self.cmdline + other.cmdline,
            self.binds + other.binds,
        )
