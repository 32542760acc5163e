"""What a .ko file says of itself: its ``.modinfo`` section and its functions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import demangle
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from kdrv.core.errors import UsageError
from kdrv.core.inside import UntrustedFile, understood


@dataclass(frozen=True)
class ModuleInfo:
    """``release`` is the kernel it was built for, the first word of its vermagic."""

    name: str
    release: str
    depends: tuple[str, ...]


@dataclass(frozen=True)
class CodeSection:
    """A section of a module with code (``.text``, ``.init.text``): its size in bytes, and its
    functions by offset, Rust names demangled.
    """

    name: str
    size: int
    functions: tuple[tuple[int, str], ...]


def code_sections(path: Path) -> tuple[CodeSection, ...]:
    """The code of a module that :func:`read_module` accepts.

    Raises :class:`UntrustedFile` for a file that only begins as one.
    """
    with understood(path.name), path.open("rb") as file:
        elf = ELFFile(file)
        table = elf.get_section_by_name(".symtab")
        if not isinstance(table, SymbolTableSection):
            return ()
        symbols = [
            (symbol["st_shndx"], int(symbol["st_value"]), symbol.name)
            for symbol in table.iter_symbols()
            if symbol["st_info"]["type"] == "STT_FUNC"
        ]
        return tuple(
            CodeSection(
                section.name,
                int(section["sh_size"]),
                tuple(sorted((at, _readable(n)) for where, at, n in symbols if where == index)),
            )
            for index, section in enumerate(elf.iter_sections())
            if section["sh_flags"] & SH_FLAGS.SHF_EXECINSTR and section["sh_size"]
        )


def _readable(symbol: str) -> str:
    if not symbol.startswith("_R"):
        return symbol
    return _without_generics(str(demangle.demangle(symbol, language="rust")))


def _without_generics(name: str) -> str:
    """``a::b::<c<d>>::e`` as ``a::b::e``: what instances have in common is enough to find them."""
    kept, depth, at = [], 0, 0
    while at < len(name):
        if depth or name.startswith("::<", at):
            at += 2 if not depth else 0
            arrow = name[at - 1] == "-"
            depth += (name[at] == "<") - (name[at] == ">" and not arrow)
        else:
            kept.append(name[at])
        at += 1
    return "".join(kept)


def read_module(path: Path) -> ModuleInfo:
    """Read a module. Raises :class:`UsageError` when the file is no kernel module."""
    try:
        with understood(path.name), path.open("rb") as file:
            section = ELFFile(file).get_section_by_name(".modinfo")
            data: bytes = section.data() if section else b""
    except (OSError, UntrustedFile) as error:
        raise UsageError(
            f"{path} is not a kernel module: {error}",
            expected="an ELF file that the kernel's make built (.ko)",
            remedy="build it again: kdrv build PROJECT",
        ) from error
    pairs = (entry.partition("=") for entry in data.decode(errors="replace").split("\0"))
    fields = {name: value for name, _, value in pairs if value}
    if "vermagic" not in fields:
        raise UsageError(
            f"{path} is not a kernel module: it has no vermagic",
            expected="a file that the kernel's make built (.ko)",
            remedy="build it again: kdrv build PROJECT",
        )
    depends = tuple(name for name in fields.get("depends", "").split(",") if name)
    return ModuleInfo(fields.get("name", path.stem), fields["vermagic"].split()[0], depends)
