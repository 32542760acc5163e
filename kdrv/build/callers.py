"""Which functions of an object file refer to a symbol: the one place that still tells, once all
that is known is that the symbol is undefined (ELF specification, "Relocation", "Symbol Table").
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import SymbolTableSection

from kdrv.core.inside import open_inside, understood

LIMIT = 256 << 20


def callers(object_file: Path, symbol: str) -> tuple[str, ...]:
    """The functions of an object file that refer to ``symbol``, by their linkage names, in order.

    Raises :class:`UntrustedFile` when the file is no object file.
    """
    with (
        understood(object_file.name),
        open_inside(object_file.parent, object_file, LIMIT) as stream,
    ):
        return tuple(dict.fromkeys(_callers(ELFFile(stream), symbol)))


def _callers(elf: ELFFile, symbol: str) -> Iterable[str]:
    symbols = elf.get_section_by_name(".symtab")
    if not isinstance(symbols, SymbolTableSection):
        return
    functions = [s for s in symbols.iter_symbols() if s["st_info"]["type"] == "STT_FUNC"]
    for section in elf.iter_sections():
        if not isinstance(section, RelocationSection):
            continue
        code = section["sh_info"]
        for relocation in section.iter_relocations():
            if symbols.get_symbol(relocation["r_info_sym"]).name != symbol:
                continue
            offset = relocation["r_offset"]
            for function in functions:
                start = function["st_value"]
                inside = start <= offset < start + max(function["st_size"], 1)
                if function["st_shndx"] == code and inside:
                    yield function.name
