"""Carries faults out on the bus, between a device model and the kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kdrv.devices.clock import Clock
from kdrv.sim.faults import FaultKind, Schedule
from kdrv.sim.trace import Trace

STORM = 100
"""How many interrupts an ``irq_storm`` has."""

HALVES = (0, 3, 5, 6, 7, 7, 8, 8, 9, 9, 10, 10)
"""How often the time by which a device is late may be halved: most drivers give up soon."""


@dataclass(frozen=True)
class Place:
    """A register as the bus sees it."""

    bar: int
    offset: int
    width: int
    register: str


class Interference:
    """What goes wrong around one device.

    ``deliver`` hands an interrupt to the kernel, ``store`` puts bytes into memory and is
    told whether a fault has put it off; both act now.
    ``gone`` says that the device was pulled out, ``silent`` that it does not answer now.
    """

    def __init__(
        self,
        device: str,
        clock: Clock,
        trace: Trace,
        schedule: Schedule,
        deliver: Callable[[int], None],
        store: Callable[[int, bytes, bool], None],
    ) -> None:
        self.gone = False
        self._device = device
        self._clock = clock
        self._trace = trace
        self._schedule = schedule
        self._deliver = deliver
        self._store = store
        self._stuck: dict[Place, tuple[int, int]] = {}
        self._last_read: Place | None = None
        self._last_vector = 0
        self._dead_until = 0

    @property
    def silent(self) -> bool:
        """Whether the device neither answers nor does anything on the bus now."""
        return self.gone or self._clock.now < self._dead_until

    def draw(self, kind: FaultKind, register: str = "") -> tuple[int, int] | None:
        """For a fault that happens now: how long it lasts, and a number to settle its details."""
        drawn = self._schedule.draw(kind, self._device, self._clock.now, register)
        if drawn is None:
            return None
        note = {"register": register} if register else {}
        self._trace.note(self._clock.now, self._device, f"fault {kind}", note)
        return drawn.lasts, drawn.dice.getrandbits(31)

    def delay(self, nominal: int) -> int:
        """How long something takes in this run."""
        late = None if self.silent else self.draw(FaultKind.DEVICE_LATE)
        takes = self._schedule.delay(self._device, nominal)
        if late:
            takes += late[0] >> HALVES[late[1] % len(HALVES)]
            self._schedule.busy_until = max(self._schedule.busy_until, self._clock.now + takes)
        return takes

    # --- interrupts

    def interrupt(self, vector: int) -> None:
        """The device signals ``vector``."""
        self._last_vector = vector
        if self.silent or self.draw(FaultKind.IRQ_LOST):
            return
        late = self.draw(FaultKind.IRQ_LATE)
        self._later(late[0] if late else 0, vector)
        if again := self.draw(FaultKind.IRQ_DUPLICATE):
            self._later((late[0] if late else 0) + again[0], vector)

    def _later(self, delay: int, vector: int) -> None:
        self._clock.after(delay, lambda: None if self.silent else self._deliver(vector))

    # --- accesses to a BAR

    def access(self) -> None:
        """The driver is about to access a BAR."""
        if self.silent:
            return
        if self.draw(FaultKind.SURPRISE_REMOVE):
            self.gone = True
            return
        if spurious := self.draw(FaultKind.IRQ_SPURIOUS):
            self._later(spurious[0], self._last_vector)
        if storm := self.draw(FaultKind.IRQ_STORM):
            for number in range(1, STORM + 1):
                self._later(number * storm[0], self._last_vector)

    def written(self) -> None:
        """The driver has written to a BAR."""
        self._last_read = None

    def read(self, place: Place, value: int) -> int:
        """What a read gives, where the device says ``value``."""
        ones = (1 << 8 * place.width) - 1
        if self.silent:
            return ones
        repeated, self._last_read = self._last_read == place, place
        until, kept = self._stuck.get(place, (0, 0))
        if self._clock.now < until:
            return kept
        if stuck := self.draw(FaultKind.REG_STUCK, place.register):
            self._stuck[place] = (self._clock.now + stuck[0], value)
        if self.draw(FaultKind.REG_ALL_ONES, place.register):
            return ones
        flip = self.draw(FaultKind.REG_BITFLIP, place.register)
        if not flip and repeated:
            flip = self.draw(FaultKind.REG_TOCTOU, place.register)
        return value ^ 1 << flip[1] % (8 * place.width) if flip else value

    def power(self) -> None:
        """The kernel looks at the device's power state, or asks for D0."""
        if not self.silent and (dead := self.draw(FaultKind.PM_FAIL)):
            self._dead_until = self._clock.now + dead[0]

    # --- DMA

    def dma_write(self, address: int, data: bytes) -> None:
        """The device writes to memory."""
        if self.silent:
            return
        if data and (corrupt := self.draw(FaultKind.DMA_CORRUPT)):
            spoiled = bytearray(data)
            spoiled[corrupt[1] // 8 % len(data)] ^= 1 << corrupt[1] % 8
            data = bytes(spoiled)
        if late := self.draw(FaultKind.DMA_LATE):
            self._store_later(late[0], address, data)
        else:
            self._store(address, data, False)
        if again := self.draw(FaultKind.DMA_AFTER_FREE):
            self._store_later(again[0], address, data)

    def _store_later(self, delay: int, address: int, data: bytes) -> None:
        self._clock.after(delay, lambda: None if self.silent else self._store(address, data, True))
