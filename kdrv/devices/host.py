"""What a device model may ask of the world around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

Value = int | str


class Timer(Protocol):
    """A callback that has not run yet."""

    def cancel(self) -> None:
        """Never run the callback. Harmless when it ran or was cancelled before."""
        ...


class Host(Protocol):
    """The machine a device is plugged into. Times are nanoseconds of the machine's own clock."""

    @property
    def now(self) -> int:
        """Nanoseconds since the machine started."""
        ...

    def after(self, delay: int, callback: Callable[[], None]) -> Timer:
        """Run ``callback`` ``delay`` nanoseconds from now, after everything due before."""
        ...

    def dma_read(self, address: int, length: int) -> bytes:
        """Memory of the machine at a bus address. Raises :class:`~kdrv.devices.errors.Misuse`."""
        ...

    def dma_write(self, address: int, data: bytes) -> None:
        """Change memory of the machine. Raises :class:`~kdrv.devices.errors.Misuse`."""
        ...

    def message(self, vector: int) -> None:
        """Deliver the message-signalled interrupt (MSI, MSI-X) of ``vector``."""
        ...

    def line(self, asserted: bool) -> None:
        """Drive the legacy interrupt pin (INTx)."""
        ...

    def fault(self, kind: str) -> int | None:
        """Whether a fault that only the device can act out is to happen now.

        A number settles its details; None, nearly always, says that all is well.
        """
        ...

    def note(self, event: str, values: Mapping[str, Value]) -> None:
        """Put an event of the device's own on record."""
        ...
