"""What a driver must take along when it goes: interrupts, regions, nodes, memory.

Two looks at the guest, one before the driver is loaded and one after it was unloaded; what is in
the second only was left behind.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kdrv.guest.session import Guest
from kdrv.guest.together import list_small, read_files, write_and_sleep
from kdrv.kernel.modinfo import CodeSection

SLAB = "/sys/kernel/debug/slab"
SLABINFO = "/proc/slabinfo"
TRACKED = "kmalloc-"
LEAKED = "memory leaked: "
"""How a finding about memory begins; others are certain at once, these need a second look."""
LOOKED_AT = ("/proc/interrupts", "/proc/iomem", "/proc/modules")
DROP_CACHES = "/proc/sys/vm/drop_caches"
_INTERRUPT = re.compile(r"^\s*(\d+):(?:\s+\d+)+\s+(.*)$")
_NAMELESS = re.compile(r"(?<!\S)0x([0-9a-f]+)(?:/0x[0-9a-f]+)?(?!\S)")
_MOMENT = (0.01, 0.02, 0.04)
"""Pauses, in the guest's seconds, that what was only put off takes to go."""
_PATIENCE = (0.1, 0.2, 0.4, 0.8, 1.5, 3.0)
"""Pauses for what is slower than that; together longer than RCU keeps memory, asked or not."""
_ROOM = 1 << 20

Places = Counter[tuple[str, tuple[int, ...]]]
"""How many live objects of a slab cache were allocated through which nameless addresses."""


@dataclass(frozen=True)
class Code:
    """Where a module's sections of code lie (address of each), and what is in them."""

    module: str
    sections: tuple[tuple[int, CodeSection], ...]

    def __contains__(self, address: int) -> bool:
        return bool(self._name(address))

    def culprit(self, stack: Sequence[int]) -> str:
        """The function of a stack to name: the innermost of the driver's own source.

        Functions of Rust's kernel crate are compiled into the module, too, and are not to blame.
        """
        names = [self._name(address) for address in stack if address in self]
        own = [name for name in names if f"{self.module}::" in name.split("::<")[0]]
        return (own or names)[0]

    def _name(self, address: int) -> str:
        for start, section in self.sections:
            if start <= address < start + section.size:
                offset = address - start
                known = [name for at, name in section.functions if at <= offset]
                return known[-1] if known else f"{self.module}+{offset:#x}"
        return ""


@dataclass(frozen=True)
class Traces:
    """One look at the guest."""

    interrupts: frozenset[str]
    regions: frozenset[str]
    devices: frozenset[str]
    modules: frozenset[str]
    slabs: Mapping[str, int]
    """Live objects of each slab cache whose allocations are tracked."""

    def left_since(self, before: Traces) -> tuple[str, ...]:
        """What but memory is here and was not there ``before``, in words."""
        words = []
        for title, now, then in (
            ("interrupt handler still registered", self.interrupts, before.interrupts),
            ("memory region still claimed", self.regions, before.regions),
            ("device node still there", self.devices, before.devices),
            ("module still loaded", self.modules, before.modules),
        ):
            words += [f"{title}: {x}" for x in sorted(now - then)]
        return tuple(words)


def look(guest: Guest) -> Traces:
    """Look at the guest now."""
    try:
        *texts, slabs = read_files(guest, (*LOOKED_AT, SLABINFO))
    except FileNotFoundError:  # without CONFIG_SLUB_DEBUG
        texts, slabs = read_files(guest, LOOKED_AT), ""
    interrupts, regions, modules = texts
    return Traces(
        interrupts=frozenset(_interrupts(interrupts)),
        regions=frozenset(line.strip() for line in regions.splitlines()),
        devices=frozenset(f"/dev/{name}" for name in list_small(guest, "/dev")),
        modules=frozenset(line.split()[0] for line in modules.splitlines()),
        slabs=_slabs(slabs),
    )


@dataclass
class Inventory:
    """What was there before a driver came; asks what it left when it is gone.

    ``known`` are places of memory that earlier drivers left in this machine: a new module may be
    loaded at the address of an old one.
    """

    guest: Guest
    known: Places
    before: Traces
    _seen: Places = field(default_factory=Counter)

    @classmethod
    def take(cls, guest: Guest, known: Places) -> Inventory:
        """Look at the guest now."""
        return cls(guest, known, look(guest))

    def left_behind(self, code: Code | None, *, hasty: bool = False) -> tuple[str, ...]:
        """What is left, given the time the kernel may take to let go.

        ``hasty`` gives memory no more than a moment.
        """
        if self._settles():
            return ()
        left = self._left(code)
        for pause in _PATIENCE:
            if not left or (hasty and all(words.startswith(LEAKED) for words in left)):
                break
            self._reclaim(pause)
            left = self._left(code)
        return left

    def remember(self) -> None:
        """Count the memory that was seen last as known, so that it is told once."""
        self.known |= self._seen

    def _settles(self) -> bool:
        """Whether all is as before within a moment, which is cheaper to see than what is not."""
        for pause in _MOMENT:
            now = look(self.guest)
            if not now.left_since(self.before) and not self._grown(now):
                return True
            self._reclaim(pause)
        return False

    def _reclaim(self, pause: float) -> None:
        """Have the kernel free what it put off.

        Memory freed by RCU is kept for up to five seconds (mm/slab_common.c: KFREE_DRAIN_JIFFIES)
        unless the kernel needs it, so it is told that it does.
        """
        try:
            # "4": no message on the console (fs/drop_caches.c).
            write_and_sleep(self.guest, DROP_CACHES, ("4", "2"), pause)
        except FileNotFoundError:
            self.guest.sleep(pause)

    def _left(self, code: Code | None) -> tuple[str, ...]:
        now = look(self.guest)
        self._seen = _places(self.guest, self._grown(now)) if code else Counter()
        lost: Counter[str] = Counter()
        for (cache, stack), count in (self._seen - self.known).items():
            if code and any(address in code for address in stack):
                lost[f"allocated by {code.culprit(stack)} ({cache})"] += count
        memory = [
            f"{LEAKED}{count} object{'s' * (count > 1)} {what}"
            for what, count in sorted(lost.items())
        ]
        return (*now.left_since(self.before), *memory)

    def _grown(self, now: Traces) -> list[str]:
        """The slab caches with more objects than before."""
        return [name for name, count in now.slabs.items() if count > self.before.slabs.get(name, 0)]


def code_of(guest: Guest, module: str, sections: Sequence[CodeSection]) -> Code:
    """Where a loaded module's code lies, as far as the kernel tells (CONFIG_KALLSYMS)."""
    folder = f"/sys/module/{module}/sections"
    names = set(list_small(guest, folder))
    told = [section for section in sections if section.name in names]
    addresses = read_files(guest, [f"{folder}/{section.name}" for section in told])
    return Code(module, tuple((int(at, 16), one) for at, one in zip(addresses, told, strict=True)))


def _interrupts(text: str) -> list[str]:
    matches = (_INTERRUPT.match(line) for line in text.splitlines())
    return [f"{m[1]} {' '.join(m[2].split())}" for m in matches if m]


def _slabs(text: str) -> dict[str, int]:
    """``active_objs`` of /proc/slabinfo, exact for caches that are being debugged (mm/slub.c)."""
    rows = (line.split() for line in text.splitlines()[2:])
    return {row[0]: int(row[1]) for row in rows if row and row[0].startswith(TRACKED)}


def _places(guest: Guest, caches: Sequence[str]) -> Places:
    """Where live objects were allocated whose stack has an address without a name.

    ``alloc_traces`` (mm/slub.c: slab_debugfs_show) is a line "count caller …" followed by the
    indented stack. Addresses without names are those of modules that are gone.
    """
    found: Places = Counter()
    for cache in caches:
        count, stack = 0, list[int]()
        for line in _alloc_traces(guest, cache):
            first = line.split(maxsplit=1)[0] if line.strip() else ""
            if first.isdigit():
                _count(found, cache, stack, count)
                count, stack = int(first), []
            if match := _NAMELESS.search(line):
                stack.append(int(match[1], 16))
        _count(found, cache, stack, count)
    return found


def _alloc_traces(guest: Guest, cache: str) -> list[str]:
    """In one request: the kernel collects and sorts all of it whenever it is opened."""
    try:
        (text,) = read_files(guest, [f"{SLAB}/{cache}/alloc_traces"], _ROOM)
    except FileNotFoundError:
        return []
    return text.splitlines()


def _count(found: Places, cache: str, stack: list[int], count: int) -> None:
    if stack:
        found[cache, tuple(stack)] += count
