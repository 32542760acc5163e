"""Interrupts: eventfds that QEMU hands over, and the level of the pin.

QEMU keeps the MSI-X table itself. A vector it has given no eventfd for is masked.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Collection, Mapping

from kdrv.qemu.vfiouser.wire import Irq, IrqSet, Refused


class Interrupts:
    """The interrupts of one device; ``vectors`` is how many of each kind it has."""

    def __init__(self, vectors: Mapping[Irq, int]) -> None:
        self.vectors = vectors
        self._eventfds: dict[Irq, dict[int, int]] = {index: {} for index in Irq}
        self._early: set[int] = set()
        self._level = False
        self._masked = False

    def open_vectors(self, index: Irq) -> Collection[int]:
        """The vectors that QEMU wants to hear of."""
        return self._eventfds[index].keys()

    def set(self, index: int, flags: int, start: int, count: int, given: tuple[int, ...]) -> None:
        """Do what ``VFIO_USER_DEVICE_SET_IRQS`` asks for; takes over the descriptors ``given``.

        Raises :class:`Refused`, and then takes none.
        """
        if index not in list(Irq) or start + count > self.vectors[Irq(index)]:
            raise Refused(errno.EINVAL)
        kind = Irq(index)
        match flags & ~(IrqSet.NONE | IrqSet.EVENTFD):
            case IrqSet.TRIGGER if flags & IrqSet.EVENTFD:
                if len(given) not in (0, count):
                    raise Refused(errno.EINVAL)
                self._assign(kind, start, count, given)
            case IrqSet.TRIGGER if count:
                for vector in range(start, start + count):
                    self._signal(kind, vector)
            case IrqSet.TRIGGER:
                self._assign(kind, 0, self.vectors[kind], ())
            case IrqSet.MASK if kind is Irq.INTX:
                self._masked = True
            case IrqSet.UNMASK if kind is Irq.INTX:
                self._masked = False
                self._drive()
            case _:
                raise Refused(errno.EINVAL)

    def _assign(self, kind: Irq, start: int, count: int, given: tuple[int, ...]) -> None:
        eventfds = self._eventfds[kind]
        for vector in range(start, start + count):
            if (old := eventfds.pop(vector, None)) is not None:
                os.close(old)
        if not given and not eventfds:
            self._early.clear()
        for vector, descriptor in enumerate(given, start):
            os.set_blocking(descriptor, False)
            eventfds[vector] = descriptor
        if kind is Irq.INTX:
            self._masked = False
            self._drive()
            return
        for vector in self._early & eventfds.keys():
            self._early.discard(vector)
            self._signal(kind, vector)

    def message(self, vector: int) -> None:
        """Deliver a message-signalled interrupt.

        One that comes before QEMU has handed over its eventfd is delivered then: the driver's
        write that turns vectors on reaches the device first.
        """
        kind = Irq.MSIX if self._eventfds[Irq.MSIX] else Irq.MSI
        if not self._signal(kind, vector):
            self._early.add(vector)

    def line(self, asserted: bool) -> None:
        """Drive the interrupt pin."""
        if asserted == self._level:
            return
        self._level = asserted
        if asserted:
            self._drive()
        elif (eventfd := self._eventfds[Irq.INTX].get(0)) is not None:
            # Takes back what QEMU has not looked at yet: the guest then has no spurious interrupt.
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(eventfd)
                self._masked = False

    def _drive(self) -> None:
        """A high level interrupts once; QEMU unmasks when the guest has dealt with it."""
        if self._level and not self._masked:
            self._masked = self._signal(Irq.INTX, 0)

    def _signal(self, kind: Irq, vector: int) -> bool:
        eventfd = self._eventfds[kind].get(vector)
        if eventfd is None:
            return False
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(eventfd, 1)
        return True

    def close(self) -> None:
        """Give all eventfds back."""
        for eventfds in self._eventfds.values():
            for eventfd in eventfds.values():
                os.close(eventfd)
            eventfds.clear()
        self._early.clear()
