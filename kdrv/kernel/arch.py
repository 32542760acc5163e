"""The architectures kdrv builds for, as data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Arch(StrEnum):
    """A kernel architecture, by the name a user types."""

    X86_64 = "x86_64"
    ARM64 = "arm64"
    UM = "um"


@dataclass(frozen=True)
class ArchTraits:
    """What differs between architectures.

    ``image`` is the bootable file below the build directory; ``goals`` are the make goals that
    build it and the modules; ``llvm`` says that the lane is always built with ``LLVM=1``;
    ``variables`` are further make variables; ``fragments`` are the shipped parts of the default
    configuration, in order.
    """

    image: str
    goals: tuple[str, ...]
    llvm: bool
    variables: tuple[str, ...]
    fragments: tuple[str, ...]


TRAITS = {
    Arch.X86_64: ArchTraits(
        "vmlinux", ("vmlinux", "modules"), llvm=False, variables=(), fragments=("base", "x86_64")
    ),
    Arch.ARM64: ArchTraits(
        "arch/arm64/boot/Image",
        ("Image", "modules"),
        llvm=True,
        variables=(),
        fragments=("base", "arm64"),
    ),
    Arch.UM: ArchTraits(
        "linux",
        ("linux", "modules"),
        llvm=False,
        # Without it modules carry GOT relocations that arch/um cannot load (R_X86_64_GOTPCREL).
        variables=("KRUSTFLAGS=-Crelocation-model=static",),
        fragments=("um",),
    ),
}
