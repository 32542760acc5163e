"""Who uses a symbol that modpost calls undefined: modpost names the module, never the place.

For Rust this is often all there is: ``build_error!`` that the compiler could not prove unreachable
becomes a call of ``rust_build_error``, which exists nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import SymbolTableSection

UNDEFINED = re.compile(r"symbol '(?P<symbol>[^']+)' undefined")
BUILD_ERROR = "rust_build_error"
BUILD_ERROR_MEANS = (
    "a build_assert!, build_error! or a checked constant offset whose condition the compiler cannot"
    " prove at compile time; use the try_ form, or #[inline(always)] so that constants arrive"
)


def users(objects: Path, symbol: str) -> tuple[str, ...]:
    """The functions, by their mangled names, that refer to ``symbol`` in the ``.o`` files below
    a directory. What is no ELF is passed over.
    """
    found: dict[str, None] = {}
    for path in sorted(objects.rglob("*.o")):
        try:
            with path.open("rb") as file:
                found.update(dict.fromkeys(_users(ELFFile(file), symbol)))
        except ELFError:
            continue
    return tuple(found)


def _users(elf: ELFFile, symbol: str) -> Iterator[str]:
    """ELF specification, "Relocation" and "Symbol Table": a function is a range of a section."""
    for section in elf.iter_sections():
        if not isinstance(section, RelocationSection):
            continue
        table = elf.get_section(section["sh_link"])
        assert isinstance(table, SymbolTableSection)
        for relocation in section.iter_relocations():
            if table.get_symbol(relocation["r_info_sym"]).name == symbol:
                yield from _around(table, section["sh_info"], relocation["r_offset"])


def _around(table: SymbolTableSection, section: int, offset: int) -> Iterator[str]:
    for symbol in table.iter_symbols():
        start = symbol["st_value"]
        if (
            symbol["st_info"]["type"] == "STT_FUNC"
            and symbol["st_shndx"] == section
            and start <= offset < start + symbol["st_size"]
        ):
            yield symbol.name
