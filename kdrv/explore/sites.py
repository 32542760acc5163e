"""Where a module calls KCOV, and its debug information relocated.

A .ko is relocatable: its addresses begin at 0 in every section. Here a section of code lies at its
number, in the order of :func:`~kdrv.kernel.modinfo.code_sections`, times 2^32: addresses are the
places of :mod:`kdrv.explore.coverage`. pyelftools relocates debug information, too, but takes 2 s
for a Rust driver, one by one; what is read here takes 20 ms.

User Mode Linux builds C with ``-mcmodel=large``: a function is called by its address in a register,
which is loaded once for many calls. Debug information says where calls return to, and which
register they use.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from io import BytesIO

from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection

from kdrv.explore.coverage import SECTION_SHIFT

TRACE = "__sanitizer_cov_trace_pc"
READ = frozenset(
    f".debug_{name}" for name in ("info", "line", "ranges", "rnglists", "addr", "str_offsets")
)
R_64, R_PC32, R_PLT32, R_32 = 1, 2, 4, 10
"""x86-64's relocations (its psABI, table 4.9); User Mode Linux has no other architecture here."""
FUNCTION = 2
"""The type of a symbol that is a function (STT_FUNC)."""
RELOCATION = struct.Struct("<QQq")
SYMBOL = struct.Struct("<IBBHQQ")
DWARF_NUMBER = (0, 2, 1, 3, 7, 6, 4, 5, *range(8, 16))
"""DWARF's numbers of the processor's registers (psABI, figure 3.36)."""
PRESERVED = frozenset({3, 6, 12, 13, 14, 15})
"""Those that a call leaves as they are, by DWARF's numbers."""


@dataclass(frozen=True)
class Load:
    """A function's address put into a register; ``trace`` is whether the function is KCOV's."""

    at: int
    register: int
    trace: bool


@dataclass
class Relocated:
    """A file with its debug information relocated, KCOV's direct calls (where they return to),
    loads of addresses, and where functions begin.
    """

    data: bytes = b""
    direct: set[int] = field(default_factory=set)
    loads: list[Load] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)


def relocate(data: bytes) -> Relocated:
    """Relocate a .ko for x86-64."""
    elf = ELFFile(BytesIO(data))
    sections = list(elf.iter_sections())
    content = {s.name: s.data() for s in sections if s.name in (".symtab", ".strtab")}
    symbols = list(SYMBOL.iter_unpack(content.get(".symtab", b"")))
    names, wanted = content.get(".strtab", b""), TRACE.encode() + b"\0"
    trace = {number for number, one in enumerate(symbols) if names.startswith(wanted, one[0])}
    code = [
        index
        for index, section in enumerate(sections)
        if section["sh_flags"] & SH_FLAGS.SHF_EXECINSTR and section["sh_size"]
    ]
    base = {index: number << SECTION_SHIFT for number, index in enumerate(code)}
    found = Relocated(
        starts=sorted(
            base[where] + value
            for _, info, _, where, value, _ in symbols
            if info & 15 == FUNCTION and where in base
        )
    )
    patched = bytearray(data)
    for section in sections:
        if not isinstance(section, RelocationSection):
            continue
        target, start = section["sh_info"], sections[section["sh_info"]]["sh_offset"]
        for offset, info, addend in RELOCATION.iter_unpack(section.data()):
            number, kind = info >> 32, info & 0xFFFFFFFF
            if target in base:
                head = data[start + offset - 2 : start + offset]
                _note_code(found, base[target] + offset, kind, head, number in trace)
            elif sections[target].name in READ:
                _, _, _, where, value, _ = symbols[number]
                if kind == R_64:
                    value += base.get(where, 0) + addend
                    struct.pack_into("<Q", patched, start + offset, value)
                elif kind == R_32:
                    struct.pack_into("<I", patched, start + offset, value + addend)
    found.data = bytes(patched)
    found.loads.sort(key=lambda load: load.at)
    return found


def _note_code(found: Relocated, at: int, kind: int, head: bytes, trace: bool) -> None:
    """Keep what a relocation in code at ``at`` says; ``head`` are the two bytes before it."""
    if kind in (R_PC32, R_PLT32) and trace:
        found.direct.add(at + 4)
    elif kind == R_64 and len(head) == 2 and head[0] | 1 == 0x49 and head[1] & 0xF8 == 0xB8:
        # movabs: REX.W, and B its lowest bit; opcode and register in one.
        number = DWARF_NUMBER[(head[0] & 1) << 3 | head[1] & 7]
        found.loads.append(Load(at, number, trace))


def through_registers(
    found: Relocated, calls: Iterable[tuple[int, int]], others: Collection[int]
) -> set[int]:
    """Those of ``calls`` (where they return to, and the register they use) that call KCOV.

    ``others`` are all known calls: a register that is not preserved serves the next one alone.
    """
    by_register: dict[int, list[Load]] = {}
    for load in found.loads:
        by_register.setdefault(load.register, []).append(load)
    order = sorted(others)
    sites = set()
    for back, register in calls:
        loads = by_register.get(register, [])
        last = bisect_right(loads, back, key=lambda load: load.at) - 1
        if last < 0 or not loads[last].trace:
            continue
        at = loads[last].at
        # The address is as old as the function at most, and lies before the call ends.
        begin = bisect_right(found.starts, at)
        if begin != bisect_right(found.starts, back - 1):
            continue
        spent = bisect_right(order, back - 1) - bisect_right(order, at)
        if register in PRESERVED or not spent:
            sites.add(back)
    return sites
