"""From an address to a kernel function, by the symbol table of vmlinux."""

from __future__ import annotations

import bisect
import struct
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

_STT_NOTYPE, _STT_FUNC = 0, 2
_SYMBOL = struct.Struct("<IBBHQQ")
_EXECUTABLE = 4

Function = tuple[int, bool, str]
"""Address, whether it is a mere label, name: of several at one address the least one names it."""
Span = tuple[int, int, int]
"""A piece of code: virtual address, physical address, size in bytes."""


class Symbols:
    """The functions of a kernel image.

    An address at which nothing of the kernel stands has no name: firmware, modules, user space.
    """

    def __init__(self, functions: list[Function], code: list[Span]) -> None:
        self._functions = sorted(functions)
        self._starts = [function[0] for function in self._functions]
        self._code = code

    @classmethod
    def of(cls, vmlinux: Path) -> Symbols:
        """Read ``vmlinux``; without a readable symbol table nothing will have a name."""
        try:
            with vmlinux.open("rb") as file:
                elf = ELFFile(file)
                code = _code(elf)
                table = elf.get_section_by_name(".symtab")
                if table is None:
                    return cls([], [])
                # Unpacked here: the library takes 30 times longer, one object a symbol.
                strings = elf.get_section(table["sh_link"]).data()
                functions = [
                    (
                        value,
                        info & 15 != _STT_FUNC,
                        strings[name : strings.index(b"\0", name)].decode(),
                    )
                    for name, info, _, section, value, _ in _SYMBOL.iter_unpack(table.data())
                    if name and section in code and info & 15 in (_STT_NOTYPE, _STT_FUNC)
                ]
        except (OSError, ValueError, LookupError, AttributeError, struct.error, ELFError):
            return cls([], [])
        # Mapping symbols ($x, $d) of arm64 mark code and data, they name nothing.
        return cls([f for f in functions if not f[2].startswith("$")], list(code.values()))

    def name(self, address: int) -> str:
        """``function+0x12`` for an address in the kernel's code, else an empty string.

        Before the kernel turns on its page tables it runs at physical addresses; those have
        names too.
        """
        for virtual, physical, size in self._code:
            if virtual <= address < virtual + size:
                return self._at(address)
            if physical <= address < physical + size:
                return self._at(address - physical + virtual)
        return ""

    def _at(self, address: int) -> str:
        index = bisect.bisect_right(self._starts, address) - 1
        if index < 0:
            return ""
        start = self._starts[index]
        first = bisect.bisect_left(self._starts, start)
        return f"{self._functions[first][2]}+{address - start:#x}"


def _code(elf: ELFFile) -> dict[int, Span]:
    """The executable sections by their number; a segment may hold data beside them."""
    segments = list(elf.iter_segments("PT_LOAD"))
    code = {}
    for number, section in enumerate(elf.iter_sections()):
        at = section["sh_addr"]
        for segment in segments if section["sh_flags"] & _EXECUTABLE else ():
            if 0 <= at - segment["p_vaddr"] < segment["p_memsz"]:
                physical = at - segment["p_vaddr"] + segment["p_paddr"]
                code[number] = (at, physical, section["sh_size"])
    return code
