"""Where a device model is plugged in: its :class:`~kdrv.devices.host.Host` in the simulator.

Everything a model does or is asked passes here: it is recorded, what the fault plan says is done to
it, and whatever the model raises becomes a :class:`~kdrv.devices.errors.DeviceFault`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from kdrv.devices.clock import Clock, Scheduled
from kdrv.devices.errors import DeviceFault, Misuse
from kdrv.devices.host import Value
from kdrv.devices.model import Device
from kdrv.sim.faults import FaultKind, Schedule
from kdrv.sim.interference import Interference, Place
from kdrv.sim.memory import GuestMemory
from kdrv.sim.trace import Access, DmaAccess, Pin, Trace
from kdrv.sim.vhost import VhostServer

Model = TypeVar("Model", bound=Device)
Result = TypeVar("Result")
WIDTHS = (8, 4, 2, 1)


class Attachment(Generic[Model]):
    """One model, built by ``make`` from its host, behind ``server``.

    ``deliver`` hands an interrupt to the kernel at once; ``bus`` is what goes wrong around the
    device.
    """

    def __init__(
        self,
        name: str,
        clock: Clock,
        trace: Trace,
        schedule: Schedule,
        server: VhostServer,
        make: Callable[[Attachment[Model]], Model],
        deliver: Callable[[int], None],
    ) -> None:
        self.name = name
        self.clock = clock
        self.trace = trace
        self.bus = Interference(name, clock, trace, schedule, deliver, self._store)
        self._server = server
        self.model = self.guard("power-on", lambda: make(self))

    # --- Host

    @property
    def now(self) -> int:
        """See :class:`~kdrv.devices.host.Host`."""
        return self.clock.now

    def after(self, delay: int, callback: Callable[[], None]) -> Scheduled:
        """See :class:`~kdrv.devices.host.Host`."""
        what = getattr(callback, "__qualname__", "callback")

        def fire() -> None:
            if not self.bus.gone:
                self.guard(f"timer {what}", callback)

        return self.clock.after(self.bus.delay(delay), fire)

    def dma_read(self, address: int, length: int) -> bytes:
        """See :class:`~kdrv.devices.host.Host`."""
        if self.bus.silent:
            return b"\xff" * length
        data = self._memory().read(address, length)
        self.trace.add(DmaAccess(self.now, self.name, False, address, data))
        return data

    def dma_write(self, address: int, data: bytes) -> None:
        """See :class:`~kdrv.devices.host.Host`."""
        self.bus.dma_write(address, data)

    def message(self, vector: int) -> None:
        """See :class:`~kdrv.devices.host.Host`.

        Delivered as an event of its own: an interrupt reaches only a kernel that waits.
        """
        self.bus.interrupt(vector)

    def line(self, asserted: bool) -> None:
        """See :class:`~kdrv.devices.host.Host`."""
        if not self.bus.silent:
            self.trace.add(Pin(self.now, self.name, asserted))

    def fault(self, kind: str) -> int | None:
        """See :class:`~kdrv.devices.host.Host`."""
        drawn = self.bus.draw(FaultKind(kind))
        return drawn[1] if drawn else None

    def note(self, event: str, values: Mapping[str, Value]) -> None:
        """See :class:`~kdrv.devices.host.Host`."""
        self.trace.note(self.now, self.name, event, values)

    def _store(self, address: int, data: bytes, injected: bool) -> None:
        def store() -> None:
            self._memory().write(address, data)
            self.trace.add(DmaAccess(self.now, self.name, True, address, data, injected))

        self.guard(f"DMA write of {len(data)} bytes to {address:#x}", store)

    def _memory(self) -> GuestMemory:
        if not self._server.memory:
            raise Misuse("DMA before the kernel has told where its memory is")
        return self._server.memory

    # --- the driver's accesses to a BAR

    def read(self, bar: int, offset: int, size: int) -> bytes:
        """A block, read as a bus would carry it."""
        return b"".join(
            self._read_one(bar, offset + inner, width).to_bytes(width, "little")
            for inner, width in pieces(offset, size)
        )

    def write(self, bar: int, offset: int, data: bytes) -> None:
        """A block, written as a bus would carry it."""
        for inner, width in pieces(offset, len(data)):
            value = int.from_bytes(data[inner : inner + width], "little")
            self._write_one(bar, offset + inner, width, value)

    def _read_one(self, bar: int, offset: int, width: int) -> int:
        name = self.model.name_of(bar, offset)
        doing = f"{width}-byte read of {_words(bar, offset, name)}"
        self.bus.access()
        value = 0
        if not self.bus.silent:
            value = self.guard(doing, lambda: self.model.read(bar, offset, width))
        value = self.bus.read(Place(bar, offset, width, name), value)
        self.trace.add(Access(self.now, self.name, False, bar, offset, width, value, name))
        return value

    def _write_one(self, bar: int, offset: int, width: int, value: int) -> None:
        name = self.model.name_of(bar, offset)
        # First the cause, then what it brings about.
        self.trace.add(Access(self.now, self.name, True, bar, offset, width, value, name))
        doing = f"{width}-byte write of {value:#x} to {_words(bar, offset, name)}"
        self.bus.access()
        self.bus.written()
        if not self.bus.silent:
            self.guard(doing, lambda: self.model.write(bar, offset, width, value))

    def guard(self, doing: str, action: Callable[[], Result]) -> Result:
        """Run the model's code; a :class:`DeviceFault` tells what it was doing if it raises."""
        try:
            return action()
        except DeviceFault:
            raise
        except Exception as error:
            raise DeviceFault(self.name, doing, self.now, error) from error


def _words(bar: int, offset: int, register: str) -> str:
    place = f"BAR {bar} + {offset:#x}"
    return f"{register} ({place})" if register else place


def pieces(offset: int, size: int) -> list[tuple[int, int]]:
    """How a bus carries a block: (place in the block, width), each piece aligned to its width.

    A block of one register's size stays whole; a longer one goes by four bytes, as x86's
    ``memcpy_fromio`` does (``arch/x86/lib/iomem.c``).
    """
    if size in WIDTHS and offset % size == 0:
        return [(0, size)]
    found: list[tuple[int, int]] = []
    inner = 0
    while inner < size:
        width = next(w for w in (4, 2, 1) if inner + w <= size and (offset + inner) % w == 0)
        found.append((inner, width))
        inner += width
    return found
