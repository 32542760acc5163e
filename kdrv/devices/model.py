"""The base of every device model: register access, timers, DMA, state, reset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from itertools import pairwise
from typing import ClassVar

from kdrv.devices.errors import Misuse
from kdrv.devices.host import Host, Timer, Value
from kdrv.devices.register import WIDTHS, Register


class Dma:
    """The device's way into the machine's memory, by bus address."""

    def __init__(self, host: Host, allowed: Callable[[], bool]) -> None:
        self._host = host
        self._allowed = allowed

    def read(self, address: int, length: int) -> bytes:
        """Memory at ``address``; all ones while the device may not master the bus."""
        if not self._allowed():
            self._host.note("dma blocked", {"address": address, "length": length})
            return b"\xff" * length
        return self._host.dma_read(address, length)

    def write(self, address: int, data: bytes) -> None:
        """Change memory at ``address``; nothing happens while the device may not master the bus."""
        if not self._allowed():
            self._host.note("dma blocked", {"address": address, "length": len(data)})
            return
        self._host.dma_write(address, data)


class Device:
    """A device with registers in one or more regions.

    A subclass declares ``regions`` (the size in bytes of each, 0 where there is none; of a PCI
    device: its BARs) and :class:`~kdrv.devices.register.Register` attributes, and may override
    :meth:`restart`, :meth:`inspect` and the ``unassigned`` pair. Options of a machine's device
    become keyword arguments of ``__init__``.
    """

    regions: ClassVar[tuple[int, ...]] = ()
    registers: ClassVar[tuple[Register, ...]] = ()
    telling: ClassVar[frozenset[str]] = frozenset()
    """Kinds of faults that this device lets its driver notice, as by a checksum."""
    _slots: ClassVar[Mapping[tuple[int, int], Register]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        found: dict[str, Register] = {}
        for base in reversed(cls.__mro__):
            found |= {n: r for n, r in vars(base).items() if isinstance(r, Register)}
        ordered = sorted(found.values(), key=lambda register: (register.bar, register.offset))
        for one, two in pairwise(ordered):
            if one.bar == two.bar and one.offset + one.width > two.offset:
                raise TypeError(f"{cls.__name__}: {one!r} overlaps {two!r}")
        for register in ordered:
            size = cls.regions[register.bar] if register.bar < len(cls.regions) else 0
            if register.offset + register.width > size:
                raise TypeError(f"{cls.__name__}: {register!r} is outside its region")
        cls.registers = tuple(ordered)
        # One slot per byte: an access is found in constant time.
        cls._slots = {(r.bar, r.offset + byte): r for r in ordered for byte in range(r.width)}

    def __init__(self, host: Host) -> None:
        self.host = host
        self.dma = Dma(host, self.may_master)
        self.values: dict[str, int] = {}
        self._timers: set[Timer] = set()
        self.reset()

    def reset(self) -> None:
        """Back to power-on: registers at their reset values, no timer pending."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self.values = {register.name: register.reset for register in self.registers}
        self.restart()

    def restart(self) -> None:
        """Set the state that is not in registers; called by every reset."""

    def read(self, region: int, offset: int, width: int) -> int:
        """A driver's read of ``width`` bytes. Raises :class:`Misuse`."""
        self.check(region, offset, width)
        register = self._slots.get((region, offset))
        if register is None or not register.covers(offset, width):
            return self.unassigned_read(region, offset, width)
        return register.read(self, offset, width)

    def write(self, region: int, offset: int, width: int, value: int) -> None:
        """A driver's write of ``width`` bytes. Raises :class:`Misuse`."""
        self.check(region, offset, width)
        register = self._slots.get((region, offset))
        if register is None or not register.covers(offset, width):
            self.unassigned_write(region, offset, width, value)
        else:
            register.write(self, offset, width, value)

    def check(self, region: int, offset: int, width: int) -> None:
        """Raise :class:`Misuse` for an access no bus would carry."""
        size = self.regions[region] if 0 <= region < len(self.regions) else 0
        if not size:
            raise Misuse(f"there is no BAR {region}")
        if width not in WIDTHS:
            raise Misuse(f"an access of {width} bytes at BAR {region} + {offset:#x}")
        if not 0 <= offset <= size - width:
            raise Misuse(f"BAR {region} + {offset:#x} is outside the BAR ({size:#x} bytes)")

    def unassigned_read(self, region: int, offset: int, width: int) -> int:
        """Answer a read where no register allows it; by default that is :class:`Misuse`."""
        raise Misuse(f"no register allows a {width}-byte read at BAR {region} + {offset:#x}")

    def unassigned_write(self, region: int, offset: int, width: int, value: int) -> None:
        """Take a write where no register allows it; by default that is :class:`Misuse`."""
        raise Misuse(f"no register allows a {width}-byte write at BAR {region} + {offset:#x}")

    def name_of(self, region: int, offset: int) -> str:
        """The name of the register at ``offset``, or an empty string."""
        register = self._slots.get((region, offset))
        return register.name if register else ""

    @property
    def now(self) -> int:
        """Nanoseconds since the machine started."""
        return self.host.now

    def after(self, delay: int, callback: Callable[[], None]) -> Timer:
        """Run ``callback`` in ``delay`` nanoseconds; a reset cancels it."""

        @wraps(callback)
        def fire() -> None:
            self._timers.discard(timer)
            callback()

        timer = self.host.after(delay, fire)
        self._timers.add(timer)
        return timer

    def fault(self, kind: str) -> int | None:
        """See :meth:`Host.fault`."""
        return self.host.fault(kind)

    def note(self, event: str, **values: Value) -> None:
        """Put an event on the machine's device trace."""
        self.host.note(event, values)

    def may_master(self) -> bool:
        """Whether the device may use DMA and message-signalled interrupts now."""
        return True

    def state(self) -> dict[str, object]:
        """Everything a test may want to see: register values, then what :meth:`inspect` adds."""
        return {**self.values, **self.inspect()}

    def inspect(self) -> dict[str, object]:
        """State beside the registers, by name."""
        return {}

    def restless(self) -> tuple[str, ...]:
        """What the device goes on doing, or may do by itself, in words.

        A driver must have ended all of it when it lets go of the device.
        """
        return ()

    def unanswered(self) -> tuple[str, ...]:
        """Causes of interrupts that the driver has not acknowledged, in words."""
        return ()
