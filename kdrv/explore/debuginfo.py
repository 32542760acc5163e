"""A module's debug information: where KCOV calls are, and whose source each address belongs to.

A .ko is relocatable: its addresses begin at 0 in every section. Here a section of code lies at its
number, in the order of :func:`~kdrv.kernel.modinfo.code_sections`, times 2^32: addresses are the
places of :mod:`kdrv.explore.coverage`. pyelftools relocates debug information, too, but takes 2 s
for a Rust driver, one by one; what is read here takes 20 ms.
"""

from __future__ import annotations

import posixpath
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from elftools.dwarf.ranges import BaseAddressEntry
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection

SECTION_SHIFT = 32
TRACE = "__sanitizer_cov_trace_pc"
READ = (".debug_info", ".debug_line", ".debug_ranges", ".debug_rnglists", ".debug_addr")
R_64, R_PC32, R_PLT32, R_32 = 1, 2, 4, 10
"""x86-64's relocations (its psABI, table 4.9); User Mode Linux has no other architecture here."""
RELOCATION = struct.Struct("<QQq")
SYMBOL = struct.Struct("<IBBHQQ")


@dataclass(frozen=True)
class Function:
    """A function of the source: its linkage name, its file and the line where it begins."""

    symbol: str
    file: str
    line: int


@dataclass(frozen=True)
class Scope:
    """A function's code, or that of a call that was inlined at ``line`` of ``file``."""

    function: Function
    file: str = ""
    line: int = 0


@dataclass(frozen=True)
class Row:
    """Code from ``begin`` up to ``end`` that comes from a line."""

    begin: int
    end: int
    file: str
    line: int


@dataclass
class DebugInfo:
    """``rows`` are in the order of addresses, ``sites`` the return addresses of KCOV's calls, and
    ``scopes`` those that each site lies in, outermost first.
    """

    rows: list[Row] = field(default_factory=list)
    sites: list[int] = field(default_factory=list)
    scopes: dict[int, list[Scope]] = field(default_factory=dict)

    def row(self, address: int) -> Row | None:
        """The row that an address lies in."""
        at = bisect_right(self.rows, address, key=lambda row: row.begin) - 1
        return self.rows[at] if at >= 0 and address < self.rows[at].end else None


def read_debug_info(data: bytes, also: frozenset[int] = frozenset()) -> DebugInfo:
    """Read a .ko for x86-64. ``also`` are sites that are known otherwise: a run reported them."""
    patched, calls = _relocated(data)
    elf = ELFFile(BytesIO(patched))
    info = DebugInfo()
    if not elf.has_dwarf_info():
        return info
    dwarf = elf.get_dwarf_info(relocate_dwarf_sections=False)
    units = [_Unit(dwarf, cu) for cu in dwarf.iter_CUs()]
    info.sites = sorted(set(calls).union(also, *(unit.sites for unit in units)))
    for unit in units:
        info.rows += unit.rows()
        unit.enter(info)
    info.rows.sort(key=lambda row: row.begin)
    return info


def _relocated(data: bytes) -> tuple[bytes, list[int]]:
    """The file with its debug information relocated, and KCOV's direct calls."""
    elf = ELFFile(BytesIO(data))
    sections = list(elf.iter_sections())
    content = {s.name: s.data() for s in sections if s.name in (".symtab", ".strtab")}
    symbols = list(SYMBOL.iter_unpack(content.get(".symtab", b"")))
    names = content.get(".strtab", b"")
    wanted = TRACE.encode() + b"\0"
    trace = {number for number, one in enumerate(symbols) if names.startswith(wanted, one[0])}
    code = [
        index
        for index, section in enumerate(sections)
        if section["sh_flags"] & SH_FLAGS.SHF_EXECINSTR and section["sh_size"]
    ]
    base = {index: number << SECTION_SHIFT for number, index in enumerate(code)}
    patched, calls = bytearray(data), []
    for section in sections:
        if not isinstance(section, RelocationSection):
            continue
        target = section["sh_info"]
        if target in base:
            calls += [
                base[target] + offset + 4
                for offset, kind, _ in RELOCATION.iter_unpack(section.data())
                if kind & 0xFFFFFFFF in (R_PC32, R_PLT32) and kind >> 32 in trace
            ]
        if sections[target].name not in READ:
            continue
        start = sections[target]["sh_offset"]
        for offset, kind, addend in RELOCATION.iter_unpack(section.data()):
            _, _, _, where, value, _ = symbols[kind >> 32]
            value += addend
            if kind & 0xFFFFFFFF == R_64:
                struct.pack_into("<Q", patched, start + offset, base.get(where, 0) + value)
            elif kind & 0xFFFFFFFF == R_32:
                struct.pack_into("<I", patched, start + offset, value)
    return bytes(patched), calls


class _Unit:
    """One compilation unit."""

    def __init__(self, dwarf: Any, cu: Any) -> None:
        self._dwarf = dwarf
        self._cu = cu
        self._program = dwarf.line_program_for_CU(cu)
        self._files = self._names()
        self._functions: dict[int, Function] = {}
        self._spans: list[tuple[int, int, Any]] = []
        self.sites: set[int] = set()
        self._walk()

    def _names(self) -> dict[int, str]:
        """Files by number. Numbers begin at 0 in DWARF 5, at 1 before (section 6.2.4)."""
        if self._program is None:
            return {}
        where = self._cu.get_top_DIE().attributes.get("DW_AT_comp_dir")
        home = where.value.decode(errors="replace") if where else ""
        header = self._program.header
        folders = [name.decode(errors="replace") for name in header["include_directory"]]
        modern = header["version"] >= 5
        folders = folders if modern else [home, *folders]
        files = {}
        for number, entry in enumerate(header["file_entry"], start=0 if modern else 1):
            folder = folders[entry.dir_index] if entry.dir_index < len(folders) else ""
            name = posixpath.join(home, folder, entry.name.decode(errors="replace"))
            files[number] = posixpath.normpath(name)
        return files

    def rows(self) -> Iterator[Row]:
        """What the line program says."""
        last = None
        for entry in self._program.get_entries() if self._program else ():
            state = entry.state
            if state is None:
                continue
            if last is not None and last.address < state.address and last.line:
                file = self._files.get(last.file, "")
                yield Row(last.address, state.address, file, last.line)
            last = None if state.end_sequence else state

    def _walk(self) -> None:
        """Note the spans of functions and of inlined calls, and gcc's record of KCOV's calls."""
        calls: list[tuple[int, int]] = []
        trace: set[int] = set()
        for die in self._cu.iter_DIEs():
            if die.tag in ("DW_TAG_subprogram", "DW_TAG_inlined_subroutine"):
                self._spans += [(begin, end, die) for begin, end in self._ranges(die)]
                name = die.attributes.get("DW_AT_linkage_name")
                if name and name.value == TRACE.encode():
                    trace.add(die.offset)
            elif die.tag == "DW_TAG_call_site":
                back = die.attributes.get("DW_AT_call_return_pc")
                origin = die.attributes.get("DW_AT_call_origin")
                if back and origin:
                    calls.append((back.value, origin.value + self._cu.cu_offset))
        self.sites = {back for back, origin in calls if origin in trace}

    def _ranges(self, die: Any) -> Iterator[tuple[int, int]]:
        attributes = die.attributes
        if "DW_AT_low_pc" in attributes and "DW_AT_high_pc" in attributes:
            low, high = attributes["DW_AT_low_pc"].value, attributes["DW_AT_high_pc"]
            yield low, high.value if high.form == "DW_FORM_addr" else low + high.value
        elif "DW_AT_ranges" in attributes:
            low = self._cu.get_top_DIE().attributes.get("DW_AT_low_pc")
            base = low.value if low else 0
            lists = self._dwarf.range_lists()
            for entry in lists.get_range_list_at_offset(attributes["DW_AT_ranges"].value, self._cu):
                if isinstance(entry, BaseAddressEntry):
                    base = entry.base_address
                    continue
                shift = 0 if entry.is_absolute else base
                yield entry.begin_offset + shift, entry.end_offset + shift

    def enter(self, info: DebugInfo) -> None:
        """Put the scopes of this unit where their sites are. Outer ones come before inner ones."""
        for begin, end, die in self._spans:
            # The call ends at the site: what it belongs to lies just before.
            inside = info.sites[bisect_right(info.sites, begin) : bisect_left(info.sites, end + 1)]
            if not inside:
                continue
            scope = self._scope(die)
            for site in inside:
                info.scopes.setdefault(site, []).append(scope)

    def _scope(self, die: Any) -> Scope:
        function = self._function(die)
        if die.tag == "DW_TAG_subprogram":
            return Scope(function)
        file = die.attributes.get("DW_AT_call_file")
        line = die.attributes.get("DW_AT_call_line")
        name = self._files.get(file.value, "") if file else ""
        return Scope(function, name, line.value if line else 0)

    def _function(self, die: Any) -> Function:
        """The function that a span is an instance of, by following its references."""
        known = self._functions.get(die.offset)
        if known:
            return known
        found: dict[str, Any] = {}
        at = die
        while True:
            found = {**at.attributes, **found}
            for link in ("DW_AT_abstract_origin", "DW_AT_specification"):
                if link in at.attributes:
                    at = at.get_DIE_from_attribute(link)
                    break
            else:
                break
        name = found.get("DW_AT_linkage_name") or found.get("DW_AT_name")
        file, line = found.get("DW_AT_decl_file"), found.get("DW_AT_decl_line")
        function = Function(
            name.value.decode(errors="replace") if name else "",
            self._files.get(file.value, "") if file else "",
            line.value if line else 0,
        )
        self._functions[die.offset] = function
        return function
