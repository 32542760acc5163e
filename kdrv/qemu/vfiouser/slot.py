"""Where a device model is plugged in: its :class:`~kdrv.devices.host.Host` in QEMU.

Whatever the model raises becomes a :class:`~kdrv.devices.errors.DeviceFault`. No faults are
injected here, and nothing is recorded beyond the last accesses: times are the host's, so no two
runs are alike.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

from kdrv.devices.clock import Clock, Scheduled
from kdrv.devices.config import COMMAND_INTX_OFF, COMMAND_MEMORY, STATUS, STATUS_INTERRUPT
from kdrv.devices.errors import DeviceFault
from kdrv.devices.host import Value
from kdrv.devices.pci import ENTRY_BYTES, ENTRY_MASKED, PciDevice
from kdrv.qemu.vfiouser.irqs import Interrupts
from kdrv.qemu.vfiouser.memory import DmaMemory
from kdrv.qemu.vfiouser.wire import Irq

Result = TypeVar("Result")
RECENT = 8
"""How many accesses and events are kept for a diagnosis."""
STUCK_SECONDS = 1.0
_CONTROL = 12
"""Where the mask bit of an MSI-X table entry is."""


class BarAccess(NamedTuple):
    """A driver's access to a BAR."""

    name: str
    write: bool
    bar: int
    offset: int
    width: int
    value: int

    def __str__(self) -> str:
        place = f"BAR{self.bar}+{self.offset:#x}" + (f" {self.name}" if self.name else "")
        return f"{place}/{self.width} {'<-' if self.write else '->'} {self.value:#x}"


class Slot:
    """One model, its memory and its interrupts; ``clock`` is the machine's, in nanoseconds.

    Raises :class:`DeviceFault` when the model cannot even be made.
    """

    def __init__(
        self, name: str, clock: Clock, model: type[PciDevice], options: Mapping[str, object]
    ) -> None:
        self.name = name
        self.memory = DmaMemory()
        self.irqs = Interrupts(
            {
                Irq.INTX: 1 if model.identity.pin else 0,
                Irq.MSI: model.msi.vectors if model.msi else 0,
                Irq.MSIX: model.msix.vectors if model.msix else 0,
            }
        )
        self.gone = False
        """Whether QEMU has let go of the device: nothing happens in it from then on."""
        self._clock = clock
        self._recent: deque[BarAccess | str] = deque(maxlen=RECENT)
        self._doing = ""
        self._since = 0.0
        make: Callable[..., PciDevice] = model
        self.model = self.guard("power-on", lambda: make(self, **options))

    # --- Host

    @property
    def now(self) -> int:
        """See :class:`~kdrv.devices.host.Host`."""
        return self._clock.now

    def after(self, delay: int, callback: Callable[[], None]) -> Scheduled:
        """See :class:`~kdrv.devices.host.Host`."""
        what = f"timer {getattr(callback, '__qualname__', 'callback')}"
        return self._clock.after(delay, lambda: None if self.gone else self.guard(what, callback))

    def dma_read(self, address: int, length: int) -> bytes:
        """See :class:`~kdrv.devices.host.Host`."""
        return self.memory.read(address, length)

    def dma_write(self, address: int, data: bytes) -> None:
        """See :class:`~kdrv.devices.host.Host`."""
        self.memory.write(address, data)

    def message(self, vector: int) -> None:
        """See :class:`~kdrv.devices.host.Host`."""
        self.irqs.message(vector)

    def line(self, asserted: bool) -> None:
        """See :class:`~kdrv.devices.host.Host`."""
        self.irqs.line(asserted)

    def fault(self, kind: str) -> int | None:
        """See :class:`~kdrv.devices.host.Host`: faults are the simulator's business."""
        return None

    def note(self, event: str, values: Mapping[str, Value]) -> None:
        """See :class:`~kdrv.devices.host.Host`: kept for a diagnosis only."""
        self._recent.append(
            " ".join([event, *(f"{name}={value}" for name, value in values.items())])
        )

    # --- what QEMU asks for

    def read_bar(self, bar: int, offset: int, width: int) -> int:
        """A driver's read. Raises :class:`DeviceFault`."""
        doing = f"{width}-byte read at BAR {bar} + {offset:#x}"
        value = self.guard(doing, lambda: self.model.read(bar, offset, width))
        self._keep(False, bar, offset, width, value)
        return value

    def write_bar(self, bar: int, offset: int, width: int, value: int) -> None:
        """A driver's write. Raises :class:`DeviceFault`."""
        self._keep(True, bar, offset, width, value)
        doing = f"{width}-byte write of {value:#x} to BAR {bar} + {offset:#x}"
        self.guard(doing, lambda: self.model.write(bar, offset, width, value))

    def write_config(self, offset: int, width: int, value: int) -> None:
        """A write to config space. Raises :class:`DeviceFault`."""
        doing = f"{width}-byte write of {value:#x} to config space at {offset:#x}"
        self.guard(doing, lambda: self._write_config(offset, width, value))

    def _write_config(self, offset: int, width: int, value: int) -> None:
        self.model.config.write(offset, width, value)
        self._follow()

    def reset(self) -> None:
        """Power-on, as QEMU wants it when the machine starts. Raises :class:`DeviceFault`."""
        self.guard("reset", self._reset)

    def _reset(self) -> None:
        self.model.reset()
        self._follow()

    def set_irqs(
        self, index: int, flags: int, start: int, count: int, given: tuple[int, ...]
    ) -> None:
        """See :meth:`Interrupts.set`; raises :class:`DeviceFault`, too."""
        self.irqs.set(index, flags, start, count, given)
        self.guard("change of its interrupts", self._follow)

    def _follow(self) -> None:
        """Bring pin and vectors into step after what may have changed them from outside.

        A reset and the driver's own switch move the pin without a word of the model. And the MSI-X
        table the driver writes is QEMU's: the model's is told here which vectors are masked.
        """
        model, msix = self.model, self.model.msix
        asserted = model.config.get(STATUS, 2) & STATUS_INTERRUPT
        self.irqs.line(bool(asserted) and not model.config.command(COMMAND_INTX_OFF))
        if msix is None or not model.config.command(COMMAND_MEMORY):
            return
        wanted = self.irqs.open_vectors(Irq.MSIX)
        for vector in range(msix.vectors):
            place = msix.table + vector * ENTRY_BYTES + _CONTROL
            mask = 0 if vector in wanted else ENTRY_MASKED
            if model.read(msix.bar, place, 4) != mask:
                model.write(msix.bar, place, 4, mask)

    def guard(self, doing: str, action: Callable[[], Result]) -> Result:
        """Run the model's code; a :class:`DeviceFault` tells what it was doing if it raises."""
        self._doing, self._since = doing, time.monotonic()
        try:
            return action()
        except DeviceFault:
            raise
        except Exception as error:
            raise DeviceFault(self.name, doing, self.now, error) from error
        finally:
            self._doing = ""

    def _keep(self, write: bool, bar: int, offset: int, width: int, value: int) -> None:
        name = self.model.name_of(bar, offset)
        self._recent.append(BarAccess(name, write, bar, offset, width, value))

    # --- for people

    def stuck(self) -> str:
        """What the model has been at for more than a second; empty when it is not."""
        doing, seconds = self._doing, time.monotonic() - self._since
        if not doing or seconds < STUCK_SECONDS:
            return ""
        return f"{self.name}: the device model has been busy for {seconds:.0f} s with a {doing}"

    def recently(self) -> tuple[str, ...]:
        """The last accesses to its BARs and events of its own, oldest first."""
        return tuple(f"last on the bus: {self.name}: {event}" for event in tuple(self._recent))

    def close(self) -> None:
        """Let go of memory and interrupts: QEMU has closed the connection."""
        self.gone = True
        self.irqs.close()
        self.memory.clear()
