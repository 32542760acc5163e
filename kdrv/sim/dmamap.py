"""Which memory the kernel had mapped for a device when, and what the device did with it.

The kernel's own trace events tell (Linux ``include/trace/events/dma.h``): :func:`start` turns them
on in a guest, :func:`read` gives them as records, and :func:`judge` holds them against what the
device did. On ``ARCH=um`` a bus address is a physical one, so the addresses are the same.

**Time.** The kernel stamps its events in whole microseconds by its monotonic clock, which is
virtual time to within one of them; no virtual time passes while it computes. So what lies within
:data:`GRACE` of the moment of a mapping's end or beginning counts as inside: a device that ends a
transfer in the very moment in which the driver unmaps its memory is not accused. Coherent memory
gets no more than that: where the driver asked for 100 bytes, the rest of the page is not the
device's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from kdrv.core.errors import UsageError
from kdrv.guest.session import Session
from kdrv.sim.trace import DmaAccess, Record

GRACE = 2_000
"""Nanoseconds: the resolution of the kernel's stamps on both sides."""
TRACING = "/sys/kernel/tracing"
BUFFER_KIB = 512
MOST = 4 << 20


class Direction(StrEnum):
    """``enum dma_data_direction``, as the trace spells it."""

    BOTH = "BIDIRECTIONAL"
    TO_DEVICE = "TO_DEVICE"
    FROM_DEVICE = "FROM_DEVICE"
    NONE = "NONE"

    def allows(self, *, write: bool) -> bool:
        """Whether the device may write memory so mapped, or read it."""
        return self in (Direction.BOTH, Direction.FROM_DEVICE if write else Direction.TO_DEVICE)


@dataclass(frozen=True, slots=True)
class MapEvent:
    """Memory was mapped for a device, or unmapped.

    ``at`` is virtual time in nanoseconds, ``device`` the PCI address or the platform device's name,
    ``length`` in bytes (0: that of the mapping). ``coherent`` memory was allocated for DMA.
    """

    at: int
    device: str
    address: int
    length: int
    direction: Direction
    mapped: bool
    coherent: bool


@dataclass(frozen=True)
class MapTrace:
    """What the kernel's trace holds. ``lost`` events did not fit: then nothing can be judged."""

    events: tuple[MapEvent, ...]
    lost: int = 0


class Why(StrEnum):
    """What is wrong with an access."""

    UNMAPPED = "memory that was never mapped for it"
    TOO_EARLY = "memory that was not mapped yet"
    TOO_LATE = "memory that was not mapped any more"
    BEYOND = "memory beyond the end of a mapping"
    DIRECTION = "memory mapped for the other direction"


@dataclass(frozen=True)
class Stray:
    """A device's access to memory that was not its own at that time."""

    access: DmaAccess
    why: Why
    nearest: MapEvent | None

    def __str__(self) -> str:
        verb = "wrote" if self.access.write else "read"
        where = f"{len(self.access.data)} bytes at {self.access.address:#x}"
        near = ""
        if self.nearest:
            one = self.nearest
            near = f" (mapped {one.address:#x}/{one.length} at {one.at / 1e9:.6f} s)"
        at = f"{self.access.at / 1e9:.9f} s"
        return f"{at}: {self.access.device} {verb} {where}, {self.why.value}{near}"


@dataclass(frozen=True)
class Findings:
    """All stray accesses in order, and the mappings that were never undone."""

    stray: tuple[Stray, ...]
    left: tuple[MapEvent, ...]


def start(session: Session) -> None:
    """Turn the events on. Raises :class:`UsageError` for a kernel without them."""
    for name, value in (
        ("trace_clock", "mono"),
        ("buffer_size_kb", str(BUFFER_KIB)),
        ("events/dma/enable", "1"),
    ):
        try:
            session.write_text(f"{TRACING}/{name}", value)
        except FileNotFoundError as error:
            raise UsageError(
                f"the guest's kernel does not trace its DMA mappings: it has no {name}",
                expected="CONFIG_ENABLE_DEFAULT_TRACERS",
                remedy="leave out --config, or add it with --fragment FILE",
            ) from error


def read(session: Session) -> MapTrace:
    """All events since :func:`start`."""
    return parse(session.read_text(f"{TRACING}/trace"))


_WRITTEN = re.compile(r"# entries-in-buffer/entries-written: (\d+)/(\d+)")
_EVENT = re.compile(r"\s(\d+)\.(\d{6}): (dma_\w+): (\S+) dir=(\w+) (.*)")
_NUMBER = r"(?:0x)?([0-9a-f]+)"
_ONE = re.compile(rf"dma_addr={_NUMBER} size=(\d+)")
_MANY = re.compile(r"dma_addrs=\{([^}]*)\} sizes=\{([^}]*)\}")
_ADDRESSES = re.compile(r"phys_addrs=\{([^}]*)\}")
_MAPS = {"dma_map_phys": False, "dma_alloc": True, "dma_alloc_pages": True, "dma_alloc_sgt": True}
_UNMAPS = {"dma_unmap_phys": False, "dma_free": True, "dma_free_pages": True, "dma_free_sgt": True}


def parse(text: str) -> MapTrace:
    """The events in a tracefs ``trace`` file; other events and failed mappings are left out."""
    events: list[MapEvent] = []
    lost = 0
    for line in text.splitlines():
        if written := _WRITTEN.match(line):
            lost = int(written[2]) - int(written[1])
        elif (event := _EVENT.search(line)) and event[5] in list(Direction):
            seconds, micro, name, device, direction, rest = event.groups()
            at = int(seconds) * 10**9 + int(micro) * 1000
            for address, length, mapped, coherent in _pieces(name, rest):
                way = Direction(direction)
                events.append(MapEvent(at, device, address, length, way, mapped, coherent))
    return MapTrace(tuple(events), lost)


def _pieces(name: str, rest: str) -> Iterator[tuple[int, int, bool, bool]]:
    """Address, length, mapped, coherent: of one event, of a list of pieces one for each."""
    one = _ONE.match(rest)
    if one and (name in _MAPS or name in _UNMAPS):
        address, length = int(one[1], 16), int(one[2])
        # A failed allocation has the address 0.
        if address:
            yield address, length, name in _MAPS, (_MAPS | _UNMAPS)[name]
    elif name == "dma_map_sg" and (many := _MANY.search(rest)):
        for address, length in zip(_numbers(many[1]), _numbers(many[2]), strict=False):
            yield address, length, True, False
    elif name == "dma_unmap_sg" and (addresses := _ADDRESSES.search(rest)):
        for address in _numbers(addresses[1]):
            yield address, 0, False, False


def _numbers(text: str) -> list[int]:
    return [int(number, 16) for number in text.split(",") if number]


@dataclass
class _Span:
    """A mapping from its beginning to its end; ``end`` is None while it lasts."""

    event: MapEvent
    end: int | None = None

    def holds(self, access: DmaAccess) -> bool:
        one = self.event
        return (
            one.address <= access.address
            and access.address + len(access.data) <= one.address + one.length
        )

    def touches(self, access: DmaAccess) -> bool:
        one = self.event
        return (
            one.address < access.address + len(access.data)
            and access.address < one.address + one.length
        )

    def lasts(self, now: int) -> bool:
        return self.event.at - GRACE <= now and (self.end is None or now <= self.end + GRACE)


def judge(
    events: Sequence[MapEvent], trace: Iterable[Record], addresses: Mapping[str, str]
) -> Findings:
    """Hold what the devices did against what was mapped.

    ``addresses`` gives the kernel's name of each device by its name in ``trace``
    (:attr:`kdrv.sim.machine.SimMachine.addresses`); other devices are left alone, and so is what
    faults made of an access (``dma_late``, ``dma_after_free``), for which no driver can be blamed.
    """
    spans: dict[str, list[_Span]] = {}
    for event in sorted(events, key=lambda each: each.at):
        mine = spans.setdefault(event.device, [])
        if event.mapped:
            mine.append(_Span(event))
        elif span := _open(mine, event):
            span.end = event.at
    stray = [
        found
        for record in trace
        if isinstance(record, DmaAccess) and record.data and not record.injected
        if record.device in addresses
        if (found := _stray(record, spans.get(addresses[record.device], [])))
    ]
    left = [span.event for mine in spans.values() for span in mine if span.end is None]
    return Findings(tuple(stray), tuple(left))


def _open(spans: list[_Span], event: MapEvent) -> _Span | None:
    """The mapping that an unmapping ends: of several alike the oldest."""
    alike = [s for s in spans if s.end is None and s.event.address == event.address]
    fitting = [s for s in alike if event.length in (0, s.event.length)]
    return next(iter(fitting or alike), None)


def _stray(access: DmaAccess, spans: list[_Span]) -> Stray | None:
    """What is wrong with an access, by the mapping that comes nearest to allowing it."""
    holding = [span for span in spans if span.holds(access)]
    alive = [span for span in holding if span.lasts(access.at)]
    if any(span.event.direction.allows(write=access.write) for span in alive):
        return None
    if alive:
        return Stray(access, Why.DIRECTION, alive[-1].event)
    if over := [span for span in holding if span.event.at <= access.at]:
        return Stray(access, Why.TOO_LATE, over[-1].event)
    if holding:
        return Stray(access, Why.TOO_EARLY, holding[0].event)
    if beside := [span for span in spans if span.touches(access)]:
        return Stray(access, Why.BEYOND, beside[-1].event)
    return Stray(access, Why.UNMAPPED, None)
