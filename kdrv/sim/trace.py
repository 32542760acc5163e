"""What the devices did, as typed records in virtual time, and the hash that two runs share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from kdrv.devices.host import Value


@dataclass(frozen=True, slots=True)
class Record:
    """Something on a device's bus. ``at`` is nanoseconds of virtual time."""

    at: int
    device: str

    def words(self) -> str:
        """The record without its time and device, for people and for the hash."""
        raise NotImplementedError

    def __str__(self) -> str:
        return f"{self.at / 1e9:.9f} {self.device}: {self.words()}"


@dataclass(frozen=True, slots=True)
class Access(Record):
    """A driver's access to a BAR. ``register`` is empty where the model has none."""

    write: bool
    bar: int
    offset: int
    width: int
    value: int
    register: str

    def words(self) -> str:
        """See :class:`Record`."""
        arrow = "<-" if self.write else "->"
        place = f"BAR{self.bar}+{self.offset:#x}" + (f" {self.register}" if self.register else "")
        return f"{place}/{self.width} {arrow} {self.value:#x}"


@dataclass(frozen=True, slots=True)
class ConfigAccess(Record):
    """The kernel's or the driver's access to config space."""

    write: bool
    offset: int
    width: int
    value: int

    def words(self) -> str:
        """See :class:`Record`."""
        return (
            f"config+{self.offset:#x}/{self.width} {'<-' if self.write else '->'} {self.value:#x}"
        )


@dataclass(frozen=True, slots=True)
class DmaAccess(Record):
    """The device's access to memory; ``write`` is towards memory.

    ``injected`` says that it happened there and then because of a fault, not by the device's doing.
    """

    write: bool
    address: int
    data: bytes
    injected: bool = False

    def words(self) -> str:
        """See :class:`Record`."""
        shown = self.data[:16].hex() + ("..." if len(self.data) > 16 else "")
        digest = hashlib.sha256(self.data).hexdigest()[:8]
        arrow = "<-" if self.write else "->"
        return f"dma {self.address:#x}/{len(self.data)} {arrow} {shown} ({digest})"


@dataclass(frozen=True, slots=True)
class Interrupt(Record):
    """An interrupt that reached the kernel."""

    vector: int

    def words(self) -> str:
        """See :class:`Record`."""
        return f"interrupt {self.vector}"


@dataclass(frozen=True, slots=True)
class Pin(Record):
    """The interrupt pin changed its level. The simulator's kernel has no handler for it."""

    asserted: bool

    def words(self) -> str:
        """See :class:`Record`."""
        return f"pin {'high' if self.asserted else 'low'}"


@dataclass(frozen=True, slots=True)
class Note(Record):
    """An event of the model's own, or an injected fault."""

    event: str
    values: tuple[tuple[str, Value], ...]

    def words(self) -> str:
        """See :class:`Record`."""
        return " ".join([self.event, *(f"{name}={value}" for name, value in self.values)])


class Trace:
    """A growing list of records."""

    def __init__(self) -> None:
        self._records: list[Record] = []

    def add(self, record: Record) -> None:
        """Put a record at the end."""
        self._records.append(record)

    def note(self, at: int, device: str, event: str, values: Mapping[str, Value]) -> None:
        """Put a :class:`Note` at the end."""
        self.add(Note(at, device, event, tuple(values.items())))

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    def since(self, mark: int) -> tuple[Record, ...]:
        """The records after the first ``mark``."""
        return tuple(self._records[mark:])

    def of(self, device: str) -> tuple[Record, ...]:
        """The records of one device."""
        return tuple(record for record in self._records if record.device == device)


def history_hash(console: Iterable[str], trace: Iterable[Record]) -> str:
    """One hash over everything a run showed: equal hashes mean equal histories."""
    digest = hashlib.sha256()
    for line in console:
        digest.update(line.encode() + b"\n")
    digest.update(b"\0")
    for record in trace:
        digest.update(f"{record.at} {record.device} {record.words()}\n".encode())
    return digest.hexdigest()
