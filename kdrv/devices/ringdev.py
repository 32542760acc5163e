"""``ringdev``: a small storage device with rings in the machine's memory, as NICs and NVMe have.

This text is its programmer's manual. Words are little-endian; addresses are bus addresses.

**Identity.** PCI vendor 0x1234, device 0x72d0, class 0xff0000, a PCI Express endpoint with function
level reset and the power states D0 and D3hot. BAR 0 (4 KiB) has the registers, BAR 1 (4 KiB) the
MSI-X structures. MSI-X only, two vectors: 0 says that completions were posted, 1 that the device
has stopped with an error.

**Registers** (BAR 0; 32 bits wide, those marked 64 also in two halves):

========  =========  ======  ==========================================================
0x00      ID         ro      0x474e4952, "RING"
0x04      VERSION    ro      1
0x08      CAPS       ro      15:0 most entries of a ring; 31:16 store size in KiB
0x0c      CONTROL    rw      bit 0 ENABLE, bit 1 RESET (clears itself)
0x10      STATUS     ro      bit 0 READY, bit 1 BUSY (DMA may happen), bit 2 FAILED
0x14      ERROR      ro      why FAILED is set, see :class:`Error`
0x18      SQ_SIZE    rw      entries of the submission ring, a power of two, at least 2
0x1c      CQ_SIZE    rw      entries of the completion ring, likewise
0x20      SQ_BASE    rw 64   address of the submission ring, a multiple of 64
0x28      CQ_BASE    rw 64   address of the completion ring, likewise
0x30      SQ_TAIL    wo      doorbell: one past the last submission, as a ring index
0x34      CQ_HEAD    wo      doorbell: the first completion the driver has not consumed
0x38      SQ_HEAD    ro      the next submission the device will fetch
0x3c      IRQ_CAUSE  w1c     bit 0 completions were posted, bit 1 the device has failed
0x40      IRQ_ENABLE rw      which causes signal their vector; a cause set meanwhile fires then
========  =========  ======  ==========================================================

**Life.** Write the ring registers, then ENABLE. The device takes some time, checks them and sets
READY or FAILED. To stop, clear ENABLE and wait until READY *and* BUSY are 0: only then is no DMA
under way and may the rings and buffers be freed. What was submitted and is not completed is dropped
without a completion. RESET (or a function level reset) returns to power-on, the store included,
drops all DMA at once, and leaves every register at its reset value. FAILED lasts until RESET.

**Submissions**, 32 bytes each: ``u8`` opcode, ``u8`` flags (0), ``u16`` tag, ``u32`` length,
``u64`` buffer address, ``u64`` offset in the store, ``u64`` reserved (0). The driver fills some,
then writes SQ_TAIL. A ring is full when advancing the tail would meet the head: one entry stays
unused. A tail outside the ring, or one that passes the head, is the error ``BAD_DOORBELL``.

**Completions**, 16 bytes each: ``u16`` tag, ``u16`` status (see :class:`Status`), ``u32`` result,
``u16`` the device's SQ_HEAD, ``u16`` phase (bit 0), ``u32`` zero. The driver clears the ring before
ENABLE; the device writes phase 1 on its first pass over the ring, 0 on the second, and so on: an
entry is new when its phase is the one expected. The driver writes CQ_HEAD after consuming; while
the ring is full the device waits. Commands complete in the order of submission.

**Opcodes** (:class:`Opcode`): ``NOP``; ``WRITE`` copies the buffer into the store; ``READ`` copies
from the store into the buffer; ``CHECKSUM`` gives the CRC-32 of a piece of the store as the result
and touches no buffer. The result is otherwise the number of bytes moved. Length 0, or more than
the store holds from the offset on, completes with ``BAD_RANGE``; an unknown opcode or nonzero flags
with ``BAD_COMMAND``, a sound command that the device could not do with ``BROKEN``. Nothing is
moved then. Time passes per command and per byte.
"""

from __future__ import annotations

import struct
import zlib
from collections import deque
from dataclasses import dataclass
from enum import IntEnum

from kdrv.devices.config import Express, Identity, Msix, Power
from kdrv.devices.host import Host
from kdrv.devices.model import Device
from kdrv.devices.pci import PciDevice
from kdrv.devices.register import Access, Register

MOST_ENTRIES, STORE_KIB = 256, 64
ENABLE, RESET = 1, 2
READY, BUSY, FAILED = 1, 2, 4
CAUSE_COMPLETION, CAUSE_ERROR = 1, 2
VECTOR_COMPLETION, VECTOR_ERROR = 0, 1
ENABLE_NS, COMMAND_NS, BYTE_NS = 50_000, 8_000, 1
HOLD_NS = 500_000
"""How long a completion that a fault holds back waits for a later one to pass it."""
SUBMISSION = struct.Struct("<BBHIQQQ")
COMPLETION = struct.Struct("<HHIHHI")
ALIGNMENT = 64


class Opcode(IntEnum):
    """What a submission asks for."""

    NOP = 0
    WRITE = 1
    READ = 2
    CHECKSUM = 3


class Status(IntEnum):
    """How a command went."""

    OK = 0
    BAD_COMMAND = 1
    BAD_RANGE = 2
    BROKEN = 3


class Error(IntEnum):
    """Why the device has stopped."""

    NONE = 0
    BAD_RING = 1
    BAD_DOORBELL = 2
    INTERNAL = 3


@dataclass(frozen=True)
class Command:
    """A submission as fetched."""

    opcode: int
    flags: int
    tag: int
    length: int
    address: int
    offset: int


@dataclass(frozen=True)
class Outcome:
    """A completion that is still to be written: it may have to wait for room in the ring."""

    tag: int
    status: Status
    result: int


class RingDev(PciDevice):
    """The device. ``store`` is its memory; ``completed`` counts completions since reset."""

    identity = Identity(vendor=0x1234, device=0x72D0, class_code=0xFF0000)
    regions = (0x1000, 0x1000)
    msix = Msix(vectors=2, bar=1)
    express = Express()
    # By CHECKSUM.
    telling = frozenset({"dma_late", "dma_corrupt"})
    power = Power()

    ident = Register(0x00, access=Access.RO, reset=0x474E4952)
    version = Register(0x04, access=Access.RO, reset=1)
    caps = Register(0x08, access=Access.RO, reset=STORE_KIB << 16 | MOST_ENTRIES)
    control = Register(0x0C)
    status = Register(0x10, access=Access.RO)
    error = Register(0x14, access=Access.RO)
    sq_size = Register(0x18)
    cq_size = Register(0x1C)
    sq_base = Register(0x20, width=8, widths=(4, 8))
    cq_base = Register(0x28, width=8, widths=(4, 8))
    sq_tail = Register(0x30, access=Access.WO)
    cq_head = Register(0x34, access=Access.WO)
    sq_head = Register(0x38, access=Access.RO)
    irq_cause = Register(0x3C, access=Access.W1C)
    irq_enable = Register(0x40)

    def __init__(self, host: Host) -> None:
        self.store = bytearray()
        self.completed = 0
        self._cq_tail = 0
        self._phase = 1
        self._life = 0
        self._blocked: deque[Outcome] = deque()
        self._held: Outcome | None = None
        super().__init__(host)

    def restart(self) -> None:
        """An empty store and empty rings."""
        self.store = bytearray(STORE_KIB * 1024)
        self.completed = 0
        self._rewind()

    def _rewind(self) -> None:
        self.sq_head = self.sq_tail = self.cq_head = self._cq_tail = 0
        self._phase = 1
        self._life += 1
        self._blocked.clear()
        self._held = None

    # --- life

    @control.on_write
    def _set_control(self, value: int) -> None:
        if value & RESET:
            if self.fault("reset_fail") is not None:
                return
            # The device, not its config space: that is for a function level reset.
            Device.reset(self)
            return
        was, self.control = self.control, value & ENABLE
        if self.control and not was:
            self._rewind()
            life = self._life
            self.after(ENABLE_NS, lambda: self._check_rings(life))
        elif was and not self.control:
            self.status &= ~READY

    def _check_rings(self, life: int) -> None:
        if life != self._life or not self.control & ENABLE or self.status & FAILED:
            return
        sizes_fit = all(
            2 <= size <= MOST_ENTRIES and size & (size - 1) == 0
            for size in (self.sq_size, self.cq_size)
        )
        if sizes_fit and not (self.sq_base | self.cq_base) % ALIGNMENT:
            self.status |= READY
        else:
            self._fail(Error.BAD_RING)

    def _fail(self, why: Error) -> None:
        self.error = why
        self.status = self.status & BUSY | FAILED
        self._cause(CAUSE_ERROR)

    # --- interrupts

    def _cause(self, bits: int) -> None:
        self.irq_cause |= bits
        self._signal(bits & self.irq_enable)

    def _signal(self, bits: int) -> None:
        if bits & CAUSE_COMPLETION:
            self.irq(VECTOR_COMPLETION)
        if bits & CAUSE_ERROR:
            self.irq(VECTOR_ERROR)

    @irq_enable.on_write
    def _set_enable(self, value: int) -> None:
        newly = value & ~self.irq_enable
        self.irq_enable = value & (CAUSE_COMPLETION | CAUSE_ERROR)
        self._signal(newly & self.irq_cause)

    # --- the submission side

    @sq_tail.on_write
    def _ring_submissions(self, tail: int) -> None:
        if not self.status & READY:
            return
        size = self.sq_size
        announced = (tail - self.sq_head) % size
        if tail >= size or announced < (self.sq_tail - self.sq_head) % size:
            self._fail(Error.BAD_DOORBELL)
            return
        self.sq_tail = tail
        self._go_on()

    def _go_on(self) -> None:
        """Fetch the next command, unless one is being carried out or waits for room."""
        if self.status & BUSY or self._blocked or not self.status & READY:
            return
        if self.sq_head == self.sq_tail:
            return
        self.status |= BUSY
        raw = self.dma.read(self.sq_base + SUBMISSION.size * self.sq_head, SUBMISSION.size)
        opcode, flags, tag, length, address, offset, _ = SUBMISSION.unpack(raw)
        self.sq_head = (self.sq_head + 1) % self.sq_size
        command = Command(opcode, flags, tag, length, address, offset)
        if self.fault("fw_error") is not None:
            self.status &= ~BUSY
            self._fail(Error.INTERNAL)
            return
        moved = length if opcode != Opcode.NOP else 0
        delay = COMMAND_NS + BYTE_NS * min(moved, len(self.store))
        life = self._life
        self.after(delay, lambda: self._carry_out(command, life))

    def _carry_out(self, command: Command, life: int) -> None:
        outcome = self._perform(command)
        self.status &= ~BUSY
        # Stopped meanwhile, even if started again since: the command is dropped.
        if life == self._life and self.status & READY:
            self._finish(outcome)
        self._go_on()

    def _finish(self, outcome: Outcome) -> None:
        if self._held is None and self.fault("completion_reorder") is not None:
            self._held = outcome
            life = self._life
            self.after(HOLD_NS, lambda: self._release(life))
            return
        self._blocked.append(outcome)
        self._release(self._life)

    def _release(self, life: int) -> None:
        """Post what is ready; after it what a fault has held back."""
        if life != self._life or not self.status & READY:
            return
        if self._held:
            self._blocked.append(self._held)
            self._held = None
        self._post()
        self._go_on()

    def _perform(self, command: Command) -> Outcome:
        tag, length, start = command.tag, command.length, command.offset
        if command.flags or command.opcode not in list(Opcode):
            return Outcome(tag, Status.BAD_COMMAND, 0)
        if command.opcode == Opcode.NOP:
            return Outcome(tag, Status.OK, 0)
        if not 0 < length <= len(self.store) - start:
            return Outcome(tag, Status.BAD_RANGE, 0)
        if self.fault("command_error") is not None:
            return Outcome(tag, Status.BROKEN, 0)
        if command.opcode == Opcode.WRITE:
            self.store[start : start + length] = self.dma.read(command.address, length)
        elif command.opcode == Opcode.READ:
            self.dma.write(command.address, bytes(self.store[start : start + length]))
        else:
            return Outcome(tag, Status.OK, zlib.crc32(self.store[start : start + length]))
        return Outcome(tag, Status.OK, length)

    # --- the completion side

    @cq_head.on_write
    def _consume(self, head: int) -> None:
        if not self.status & READY:
            return
        used = (self._cq_tail - self.cq_head) % self.cq_size
        if head >= self.cq_size or (head - self.cq_head) % self.cq_size > used:
            self._fail(Error.BAD_DOORBELL)
            return
        self.cq_head = head
        self._post()
        self._go_on()

    def _post(self) -> None:
        """Write completions as far as the ring has room: one entry stays unused."""
        posted = False
        while self._blocked and (self._cq_tail + 1) % self.cq_size != self.cq_head:
            outcome = self._blocked.popleft()
            self.dma.write(self.cq_base + COMPLETION.size * self._cq_tail, self._entry(outcome))
            self._cq_tail = (self._cq_tail + 1) % self.cq_size
            if self._cq_tail == 0:
                self._phase ^= 1
            self.completed += 1
            posted = True
        if posted:
            self._cause(CAUSE_COMPLETION)

    def _entry(self, outcome: Outcome) -> bytes:
        tag, result, phase = outcome.tag, outcome.result, self._phase
        bad = self.fault("desc_bad")
        if bad is not None:
            # By as many bits as dice say: a little is as likely as a lot, and harder to notice.
            wrong, bits = divmod(bad // 3, 31)
            wrong &= (1 << bits) - 1
            if bad % 3 == 0:
                tag = (tag + 1 + wrong) & 0xFFFF
            elif bad % 3 == 1:
                result = (result + 1 + wrong) & 0xFFFF_FFFF
            else:
                phase ^= 1
        return COMPLETION.pack(tag, outcome.status, result, self.sq_head, phase, 0)

    def inspect(self) -> dict[str, object]:
        """The store, the completion ring's tail, and how many commands have completed."""
        return {
            "store": bytes(self.store),
            "cq_tail": self._cq_tail,
            "completed": self.completed,
        }

    def restless(self) -> tuple[str, ...]:
        """Whether it is enabled, or has interrupts enabled."""
        words = ("the device is still enabled",) if self.control & ENABLE else ()
        return (*words, "interrupts are still enabled") if self.irq_enable else words

    def unanswered(self) -> tuple[str, ...]:
        """The bits of ``irq_cause`` that are enabled."""
        causes = self.irq_cause & self.irq_enable
        return (f"irq_cause is {causes:#x}",) if causes else ()
