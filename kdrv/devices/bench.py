"""A bench to run one device model on, without any kernel.

bench = Bench(Edu)
bench.enable()
bench.device.write(0, 0x08, 4, 5)
bench.run(1_000_000)
assert bench.device.read(0, 0x08, 4) == 120
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from kdrv.devices.clock import Clock, Scheduled
from kdrv.devices.config import COMMAND, COMMAND_MASTER, COMMAND_MEMORY
from kdrv.devices.errors import Misuse
from kdrv.devices.host import Host, Value
from kdrv.devices.model import Device
from kdrv.devices.pci import PciDevice

Model = TypeVar("Model", bound=Device)


class BenchHost:
    """A machine of a clock, some memory from address 0, and a list of what the device did."""

    def __init__(self, memory: int = 1 << 20) -> None:
        self.clock = Clock()
        self.memory = bytearray(memory)
        self.messages: list[int] = []
        """Vectors of the message-signalled interrupts, in order."""
        self.pin = False
        """The level of the interrupt pin."""
        self.notes: list[tuple[str, dict[str, Value]]] = []
        self.faults: dict[str, list[int | None]] = {}
        """By kind of fault: what the next questions for it are answered with."""

    @property
    def now(self) -> int:
        """See :class:`Host`."""
        return self.clock.now

    def after(self, delay: int, callback: Callable[[], None]) -> Scheduled:
        """See :class:`Host`."""
        return self.clock.after(delay, callback)

    def dma_read(self, address: int, length: int) -> bytes:
        """See :class:`Host`."""
        self._check(address, length)
        return bytes(self.memory[address : address + length])

    def dma_write(self, address: int, data: bytes) -> None:
        """See :class:`Host`."""
        self._check(address, len(data))
        self.memory[address : address + len(data)] = data

    def _check(self, address: int, length: int) -> None:
        if not 0 <= address <= len(self.memory) - length:
            raise Misuse(f"DMA of {length} bytes at {address:#x}, outside memory")

    def message(self, vector: int) -> None:
        """See :class:`Host`."""
        self.messages.append(vector)

    def line(self, asserted: bool) -> None:
        """See :class:`Host`."""
        self.pin = asserted

    def fault(self, kind: str) -> int | None:
        """See :class:`Host`."""
        answers = self.faults.get(kind)
        return answers.pop(0) if answers else None

    def note(self, event: str, values: Mapping[str, Value]) -> None:
        """See :class:`Host`."""
        self.notes.append((event, dict(values)))


class Bench(Generic[Model]):
    """One device plugged into a :class:`BenchHost`; ``options`` go to the model."""

    def __init__(self, model: type[Model], memory: int = 1 << 20, **options: Any) -> None:
        self.host = BenchHost(memory)
        host: Host = self.host
        self.device: Model = model(host, **options)

    def enable(self) -> None:
        """Turn memory space and bus mastering on, as a driver's probe does."""
        assert isinstance(self.device, PciDevice)
        self.device.config.write(COMMAND, 2, COMMAND_MEMORY | COMMAND_MASTER)

    def run(self, duration: int) -> None:
        """Let ``duration`` nanoseconds pass."""
        clock = self.host.clock
        until = clock.now + duration
        while (due := clock.due()) is not None and due <= until:
            clock.step()
        clock.now = until
