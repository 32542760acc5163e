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
    ``fragments`` are the shipped parts of the default configuration, in order, and
    ``debug_fragments`` those of a debug lane; ``variables`` and ``debug_variables`` are further
    make variables. ``debug_includes`` are shipped headers that the compiler reads before the source
    of an object, by that object's name.
    """

    image: str
    goals: tuple[str, ...]
    llvm: bool
    fragments: tuple[str, ...]
    debug_fragments: tuple[str, ...]
    variables: tuple[str, ...] = ()
    debug_variables: tuple[str, ...] = ()
    debug_includes: tuple[tuple[str, str], ...] = ()


TRAITS = {
    Arch.X86_64: ArchTraits(
        "vmlinux",
        ("vmlinux", "modules"),
        llvm=False,
        fragments=("base", "x86_64"),
        debug_fragments=("debug", "debug-x86_64"),
    ),
    Arch.ARM64: ArchTraits(
        "arch/arm64/boot/Image",
        ("Image", "modules"),
        llvm=True,
        fragments=("base", "arm64"),
        debug_fragments=("debug",),
    ),
    Arch.UM: ArchTraits(
        "linux",
        ("linux", "modules"),
        llvm=False,
        fragments=("um",),
        debug_fragments=("um-checked",),
        # Without it modules carry GOT relocations that arch/um cannot load (R_X86_64_GOTPCREL).
        variables=("KRUSTFLAGS=-Crelocation-model=static",),
        # clang's large code model breaks lockdep's static data (arch/um is linked high), and a
        # frame pointer pushed by stub_signal_restorer (arch/um/kernel/skas/stub.c) shifts what
        # rt_sigreturn reads, so that the first process starts at its stack.
        debug_variables=(
            "KCFLAGS=-mlarge-data-threshold=1000000000 -momit-leaf-frame-pointer"
            " -Wno-unused-command-line-argument",
        ),
        debug_includes=(("stacktrace.o", "um-checked.h"),),
    ),
}
