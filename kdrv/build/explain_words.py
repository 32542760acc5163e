"""What kdrv knows about single symbols beyond what their Kconfig says.

Kconfig tells which condition fails; it does not tell why anybody wrote it, nor what a person does
about a symbol that stands for a program on the machine. Sources: the kernel's own documentation
and help texts (Documentation/rust, Documentation/kbuild, init/Kconfig, lib/Kconfig.kasan).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

BECAUSE: Mapping[tuple[str, str], str] = {
    ("RUST", "MODVERSIONS"): (
        "genksyms cannot compute the versions of Rust symbols, only gendwarfksyms can"
    ),
    ("RUST", "RANDSTRUCT"): "Rust needs the structures of C laid out as they are written",
    (
        "RUST",
        "GCC_PLUGIN_RANDSTRUCT",
    ): "Rust needs the structures of C laid out as they are written",
    ("RUST", "DEBUG_INFO_BTF"): (
        "BTF cannot describe Rust, and to leave it out pahole must be 1.24 or newer and must see "
        "each compilation unit's language, which LTO hides"
    ),
    ("RUST", "KASAN"): "rustc and gcc do not instrument memory accesses alike, rustc and clang do",
    ("RUST", "KASAN_SW_TAGS"): "tag-based KASAN needs a newer rustc",
    (
        "RUST",
        "CFI",
    ): "C and Rust must agree on the types in calls, which clang and rustc must support",
    ("KASAN", "SLUB_TINY"): (
        "the tiny slab allocator has no room for KASAN's red zones; tinyconfig turns it on"
    ),
}
"""Why the first symbol excludes the second, or needs more beside it."""


@dataclass(frozen=True)
class ToolFact:
    """What it means that a toolchain's symbol is n, and what makes it y."""

    lack: str
    remedy: str


_LLVM = "build a lane that clang and lld make: --debug, or --arch arm64"
_GNU = "build a lane that gcc and GNU ld make: without --debug and --arch arm64"
TOOLCHAIN: Mapping[str, ToolFact] = {
    "CC_IS_CLANG": ToolFact("the compiler is not clang", _LLVM),
    "CC_IS_GCC": ToolFact("the compiler is not gcc", _GNU),
    "LD_IS_LLD": ToolFact("the linker is not lld", _LLVM),
    "LD_IS_BFD": ToolFact("the linker is not GNU ld", _GNU),
    "AS_IS_LLVM": ToolFact("the assembler is not clang's", _LLVM),
    "AS_IS_GNU": ToolFact("the assembler is not GNU as", _GNU),
}
"""Symbols that no setting turns on."""

_VERSIONS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "PAHOLE_VERSION": ("pahole", (100,)),
    "RUSTC_VERSION": ("rustc", (1000, 100)),
    "RUSTC_LLVM_VERSION": ("rustc's LLVM", (100, 100)),
    "GCC_VERSION": ("gcc", (100, 100)),
    "CLANG_VERSION": ("clang", (100, 100)),
    "LLD_VERSION": ("lld", (100, 100)),
    "LD_VERSION": ("the linker", (100, 100)),
    "AS_VERSION": ("the assembler", (100, 100)),
}
"""Version symbols: the program, and the bases of minor and patch in the number (scripts/)."""


_CHECKS = (
    (
        re.compile(r"plugin-version\.h"),
        "install the compiler's plugin headers (Debian: apt install gcc-14-plugin-dev)",
    ),
    (
        re.compile(r"^\$\(cc-option,\s*(?P<what>.*)\)$"),
        "use a compiler that knows {what} (--debug has clang)",
    ),
    (re.compile(r"^\$\(ld-option,\s*(?P<what>.*)\)$"), "use a linker that knows {what}"),
    (re.compile(r"^\$\(rustc-option,\s*(?P<what>.*)\)$"), "use a rustc that knows {what}"),
)


def check_remedy(call: str) -> str:
    """What to do about a toolchain check that says n."""
    for pattern, remedy in _CHECKS:
        if found := pattern.search(call):
            return remedy.format(**found.groupdict())
    return f"use a toolchain for which {call} is y"


def program_of(symbol: str) -> str:
    """The program whose version a symbol holds; empty for any other symbol."""
    return _VERSIONS[symbol][0] if symbol in _VERSIONS else ""


def version_text(symbol: str, number: str) -> str:
    """A version symbol's number as its program writes it; ``not installed`` for 0."""
    if not number.isdigit() or int(number) == 0:
        return "not installed"
    rest, parts = int(number), []
    for base in reversed(_VERSIONS[symbol][1]):
        rest, part = divmod(rest, base)
        parts.append(part)
    return ".".join(map(str, (rest, *reversed(parts))))


def need_version(symbol: str, operator: str, number: str) -> str:
    """What to do about a failed comparison of a version symbol."""
    program, text = program_of(symbol), version_text(symbol, number)
    wanted = {
        ">=": f"{text} or newer",
        ">": f"newer than {text}",
        "<": f"older than {text}",
        "<=": f"{text} or older",
    }
    return f"use {program} {wanted.get(operator, text)}"


def is_arch_feature(symbol: str) -> bool:
    """Whether a symbol is one that an architecture's Kconfig selects when it has the feature."""
    return bool(re.match(r"(?:ARCH_)?(?:HAVE|HAS|SUPPORTS|WANTS?|USES?|ENABLE)_", symbol))
