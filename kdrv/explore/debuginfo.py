"""A module's debug information: whose source each address belongs to.

Addresses are those of :mod:`kdrv.explore.sites`.
"""

from __future__ import annotations

import posixpath
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from elftools.dwarf.ranges import BaseAddressEntry
from elftools.elf.elffile import ELFFile

from kdrv.explore.sites import TRACE, relocate, through_registers

REGISTER = 0x50
"""DW_OP_reg0: the others follow (DWARF 5, section 7.7.1)."""
MOST_REFERENCES = 16
"""A function refers to its declaration by a few steps; more go in a circle."""


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
    found = relocate(data)
    elf = ELFFile(BytesIO(found.data))
    info = DebugInfo()
    if not elf.has_dwarf_info():
        return info
    dwarf = elf.get_dwarf_info(relocate_dwarf_sections=False)
    units = [_Unit(dwarf, cu) for cu in dwarf.iter_CUs()]
    through = [call for unit in units for call in unit.through_registers]
    calls = {back for unit in units for back in unit.calls}
    sites = found.direct.union(also, *(unit.sites for unit in units))
    info.sites = sorted(sites | through_registers(found, through, calls))
    for unit in units:
        info.rows += unit.rows()
        unit.enter(info)
    info.rows.sort(key=lambda row: row.begin)
    return info


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
        self.calls: set[int] = set()
        self.through_registers: list[tuple[int, int]] = []
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
        """Note the spans of functions and of inlined calls, and calls; gcc names KCOV's."""
        named: list[tuple[int, int]] = []
        trace: set[int] = set()
        for die in self._cu.iter_DIEs():
            if die.tag in ("DW_TAG_subprogram", "DW_TAG_inlined_subroutine"):
                self._spans += [(begin, end, die) for begin, end in self._ranges(die)]
                name = die.attributes.get("DW_AT_linkage_name")
                if name and name.value == TRACE.encode():
                    trace.add(die.offset)
            elif die.tag == "DW_TAG_call_site":
                back = die.attributes.get("DW_AT_call_return_pc")
                if back is None:
                    continue
                self.calls.add(back.value)
                origin = die.attributes.get("DW_AT_call_origin")
                target = die.attributes.get("DW_AT_call_target")
                if origin:
                    named.append((back.value, origin.value + self._cu.cu_offset))
                elif target and len(target.value) == 1 and 0 <= target.value[0] - REGISTER < 16:
                    self.through_registers.append((back.value, target.value[0] - REGISTER))
        self.sites = {back for back, origin in named if origin in trace}

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
        for _ in range(MOST_REFERENCES):
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
