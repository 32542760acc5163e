"""Registers, declared in the body of a device model's class.

    class Blinker(Device):
        control = Register(0x00, reset=1)
        status = Register(0x04, access=Access.W1C)

        @control.on_write
        def _start(self, value: int) -> None:
            self.control = value & 1
            self.after(1_000, self._blink)

Inside the model ``self.control`` reads and sets the raw value: access rules bind the driver only.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar, overload

if TYPE_CHECKING:
    from kdrv.devices.model import Device

WIDTHS = (1, 2, 4, 8)
_Reader = TypeVar("_Reader", bound=Callable[[Any], int])
_Writer = TypeVar("_Writer", bound=Callable[[Any, int], None])


class Access(StrEnum):
    """What a driver may do with a register.

    A write to a read-only register is ignored, as hardware does; a write-only register reads as
    zero; of a ``W1C`` register a written 1 clears the bit.
    """

    RO = "ro"
    RW = "rw"
    WO = "wo"
    W1C = "w1c"


class Register:
    """One register: ``offset`` in ``bar``, ``width`` in bytes, ``access``, value after ``reset``.

    ``widths`` are the access widths allowed, by default the full one only. A narrow access may
    start at any multiple of its width and leaves the other bytes alone; with ``zero_extend`` it
    must start at the register's first byte, and a write clears the rest.
    """

    def __init__(
        self,
        offset: int,
        *,
        width: int = 4,
        access: Access = Access.RW,
        reset: int = 0,
        bar: int = 0,
        widths: tuple[int, ...] = (),
        zero_extend: bool = False,
    ) -> None:
        self.name = ""
        self.offset = offset
        self.width = width
        self.access = access
        self.reset = reset
        self.bar = bar
        self.widths = widths or (width,)
        self.zero_extend = zero_extend
        self.mask = (1 << (8 * width)) - 1
        self._reader: str | None = None
        self._writer: str | None = None
        if not set(self.widths) <= set(WIDTHS) or width not in WIDTHS or offset % min(width, 4):
            raise TypeError(f"a register at {offset:#x} cannot have widths {self.widths}")

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, device: None, owner: type) -> Register: ...

    @overload
    def __get__(self, device: Device, owner: type) -> int: ...

    def __get__(self, device: Device | None, owner: type) -> Register | int:
        return self if device is None else device.values[self.name]

    def __set__(self, device: Device, value: int) -> None:
        device.values[self.name] = value & self.mask

    def on_read(self, method: _Reader) -> _Reader:
        """Let ``method(self)`` answer reads in place of the stored value."""
        self._reader = method.__name__
        return method

    def on_write(self, method: _Writer) -> _Writer:
        """Let ``method(self, value)`` handle writes in place of the plain store."""
        self._writer = method.__name__
        return method

    def covers(self, offset: int, width: int) -> bool:
        """Whether a driver may access ``width`` bytes at ``offset`` here."""
        inner = offset - self.offset
        if width not in self.widths or not 0 <= inner <= self.width - width:
            return False
        return inner == 0 if self.zero_extend else inner % width == 0

    def read(self, device: Device, offset: int, width: int) -> int:
        """What a driver's read gives."""
        if self.access is Access.WO:
            return 0
        whole = device.values[self.name]
        if self._reader:
            whole = int(getattr(device, self._reader)()) & self.mask
        return (whole >> 8 * (offset - self.offset)) & ((1 << 8 * width) - 1)

    def write(self, device: Device, offset: int, width: int, value: int) -> None:
        """What a driver's write does."""
        if self.access is Access.RO:
            return
        shift = 8 * (offset - self.offset)
        value <<= shift
        if not self.zero_extend and self.access is not Access.W1C:
            value |= device.values[self.name] & ~(((1 << 8 * width) - 1) << shift)
        if self._writer:
            getattr(device, self._writer)(value)
        elif self.access is Access.W1C:
            device.values[self.name] &= ~value
        else:
            device.values[self.name] = value & self.mask

    def __repr__(self) -> str:
        return f"{self.name} (BAR {self.bar} + {self.offset:#x}, {self.access})"
