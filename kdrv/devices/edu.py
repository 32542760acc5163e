"""QEMU's ``edu`` device, register for register: identification, factorial, interrupts, DMA.

Source: QEMU ``docs/specs/edu.rst`` and ``hw/misc/edu.c``. It differs where QEMU only logs a guest
error: a DMA transfer beyond the device's buffer is the driver's bug and ends the run. The time a
factorial takes, which in QEMU depends on the host, is a fixed function of the number.
"""

from __future__ import annotations

from kdrv.devices.config import Identity, Msi
from kdrv.devices.errors import Misuse
from kdrv.devices.host import Host
from kdrv.devices.pci import PciDevice
from kdrv.devices.register import Access, Register

COMPUTING, RAISE_WHEN_DONE = 0x01, 0x80
FACTORIAL_IRQ, DMA_IRQ = 0x001, 0x100
DMA_RUN, DMA_TO_HOST, DMA_RAISE = 0x1, 0x2, 0x4
BUFFER, BUFFER_BYTES = 0x40000, 4096
DMA_NS = 100_000_000
FACTORIAL_NS, FACTORIAL_STEP_NS = 10_000, 10
GIVEN_UP_NS = 10_000_000_000
"""How long a unit whose command the firmware has given up stays busy: it has no reset."""
STEPS = 100_000
"""More multiplications than this take no longer: a product of 34 factors is 0 modulo 2**32."""


class Edu(PciDevice):
    """The device; ``dma_mask`` is the highest address it can reach, as in QEMU's option."""

    identity = Identity(vendor=0x1234, device=0x11E8, class_code=0x00FF00, revision=0x10, pin=1)
    regions = (0x100000,)
    msi = Msi(vectors=1)

    ident = Register(0x00, access=Access.RO, reset=0x010000ED)
    liveness = Register(0x04)
    factorial = Register(0x08)
    status = Register(0x20)
    irq_status = Register(0x24, access=Access.RO)
    irq_raise = Register(0x60, access=Access.WO)
    irq_ack = Register(0x64, access=Access.WO)
    dma_source = Register(0x80, width=8, widths=(4, 8), zero_extend=True)
    dma_target = Register(0x88, width=8, widths=(4, 8), zero_extend=True)
    dma_count = Register(0x90, width=8, widths=(4, 8), zero_extend=True)
    dma_command = Register(0x98, width=8, widths=(4, 8), zero_extend=True)

    def __init__(self, host: Host, dma_mask: int = (1 << 28) - 1) -> None:
        self.dma_mask = dma_mask
        self.buffer = bytearray()
        super().__init__(host)

    def restart(self) -> None:
        """An empty DMA buffer."""
        self.buffer = bytearray(BUFFER_BYTES)

    @liveness.on_write
    def _invert(self, value: int) -> None:
        self.liveness = ~value

    @factorial.on_write
    def _compute(self, value: int) -> None:
        if self.status & COMPUTING:
            return
        self.factorial = value
        self.status |= COMPUTING
        if self.fault("fw_error") is None:
            self.after(FACTORIAL_NS + FACTORIAL_STEP_NS * min(value, STEPS), self._computed)
        else:
            self.after(GIVEN_UP_NS, self._give_up_computing)

    def _computed(self) -> None:
        product = 1
        for factor in range(2, self.factorial + 1):
            product = product * factor & 0xFFFF_FFFF
            if not product:
                break
        self.factorial = product
        self.status &= ~COMPUTING
        if self.status & RAISE_WHEN_DONE:
            self._raise(FACTORIAL_IRQ)

    @status.on_write
    def _choose(self, value: int) -> None:
        self.status = self.status & ~RAISE_WHEN_DONE | value & RAISE_WHEN_DONE

    @irq_raise.on_write
    def _raise(self, bits: int) -> None:
        self.irq_status |= bits
        if not self.irq_status:
            return
        if self.msi_enabled:
            self.irq()
        else:
            self.intx(True)

    @irq_ack.on_write
    def _lower(self, bits: int) -> None:
        self.irq_status &= ~bits
        if not self.irq_status and not self.msi_enabled:
            self.intx(False)

    @dma_source.on_write
    def _set_source(self, value: int) -> None:
        if not self.dma_command & DMA_RUN:
            self.dma_source = value

    @dma_target.on_write
    def _set_target(self, value: int) -> None:
        if not self.dma_command & DMA_RUN:
            self.dma_target = value

    @dma_count.on_write
    def _set_count(self, value: int) -> None:
        if not self.dma_command & DMA_RUN:
            self.dma_count = value

    @dma_command.on_write
    def _start(self, value: int) -> None:
        if value & DMA_RUN and not self.dma_command & DMA_RUN:
            self.dma_command = value
            if self.fault("fw_error") is None:
                self.after(DMA_NS, self._transfer)
            else:
                self.after(GIVEN_UP_NS, self._give_up_transfer)

    def _give_up_computing(self) -> None:
        self.status &= ~COMPUTING

    def _give_up_transfer(self) -> None:
        self.dma_command &= ~DMA_RUN

    def _transfer(self) -> None:
        if self.dma_command & DMA_TO_HOST:
            inner = self._inside(self.dma_source)
            data = bytes(self.buffer[inner : inner + self.dma_count])
            self.dma.write(self.dma_target & self.dma_mask, data)
        else:
            inner = self._inside(self.dma_target)
            data = self.dma.read(self.dma_source & self.dma_mask, self.dma_count)
            self.buffer[inner : inner + self.dma_count] = data
        self.dma_command &= ~DMA_RUN
        if self.dma_command & DMA_RAISE:
            self._raise(DMA_IRQ)

    def _inside(self, start: int) -> int:
        """Where in the buffer the transfer starts. Raises :class:`Misuse` when not all inside."""
        end = start + self.dma_count
        if not BUFFER <= start <= end <= BUFFER + BUFFER_BYTES:
            raise Misuse(f"a DMA transfer at {start:#x}-{end:#x}, outside the device's buffer")
        return start - BUFFER

    def unassigned_read(self, region: int, offset: int, width: int) -> int:
        """All ones, as QEMU answers."""
        return (1 << 8 * width) - 1

    def unassigned_write(self, region: int, offset: int, width: int, value: int) -> None:
        """Ignored, as QEMU does."""

    def inspect(self) -> dict[str, object]:
        """The DMA buffer."""
        return {"buffer": bytes(self.buffer)}

    def restless(self) -> tuple[str, ...]:
        """A transfer that runs, and an interrupt that a factorial would raise."""
        words = ("a DMA transfer runs",) if self.dma_command & DMA_RUN else ()
        raises = self.status & RAISE_WHEN_DONE
        return (*words, "the factorial's interrupt is still enabled") if raises else words

    def unanswered(self) -> tuple[str, ...]:
        """The bits of ``irq_status``."""
        return (f"irq_status is {self.irq_status:#x}",) if self.irq_status else ()
