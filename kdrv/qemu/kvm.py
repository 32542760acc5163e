"""Whether KVM really works: by running something, for on some machines guests just hang in it.

``/dev/kvm`` may open and answer every ioctl while the guest's instructions are emulated one by one:
a boot takes for ever. So a small guest, made here, goes through the firmware and the start of a
real kernel, counts as fast as it can in 64-bit mode, and has to end within a deadline.
"""

from __future__ import annotations

import json
import os
import struct
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from kdrv.core.context import Context
from kdrv.core.errors import DeadlineExceeded
from kdrv.core.store import digest, write_atomic
from kdrv.kernel.arch import Arch
from kdrv.qemu.boards import KVM, Board, board_of
from kdrv.toolchain.base import Bind, Toolchain

DEVICE = Path("/dev/kvm")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
DEADLINE = 5.0
MOUNT = "/run/kdrv/probe"
EXIT_PORT = 0xF4
EXIT_VALUE = 0x2A
LOAD_ADDRESS = 0x100000
COUNT = 0x2000000
"""Rounds of three instructions: 0.05 s under KVM, 0.3 s under TCG, minutes where it crawls."""


@dataclass(frozen=True)
class KvmProbe:
    """Whether a guest booted under KVM, and in words why not."""

    works: bool
    reason: str


def kvm_works(
    toolchain: Toolchain, ctx: Context, arch: Arch = Arch.X86_64, *, fresh: bool = False
) -> KvmProbe:
    """Run a small guest under KVM, at most 5 seconds.

    The answer is kept until the computer restarts or QEMU changes; ``fresh`` asks again.
    """
    board = board_of(arch)
    if not board.accelerable():
        return KvmProbe(False, f"this computer is {os.uname().machine}, the guest {arch}")
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        lack = "may not be opened by this user" if DEVICE.exists() else "does not exist"
        return KvmProbe(False, f"{DEVICE} {lack}")
    folder = ctx.cache / "kvm"
    memo = folder / digest("kvm-3", BOOT_ID.read_text(), toolchain.identity, arch)
    if not fresh and memo.exists():
        return KvmProbe(**json.loads(memo.read_text()))
    probe = try_accelerator(toolchain, ctx, board, KVM)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(memo, json.dumps(asdict(probe)))
    return probe


def try_accelerator(toolchain: Toolchain, ctx: Context, board: Board, accel: str) -> KvmProbe:
    """Boot the guest of :func:`guest` under ``accel``, asking no memory of earlier answers."""
    with tempfile.TemporaryDirectory(prefix="kdrv-") as folder:
        image = Path(folder) / "guest"
        image.write_bytes(guest(board.arch))
        argv = [board.program, *board.machine, "-accel", accel, "-cpu", board.cpu[accel]]
        argv += ["-m", "64M", "-nodefaults", "-no-user-config", "-display", "none"]
        argv += ["-nic", "none", "-kernel", f"{MOUNT}/guest"]
        if board.arch is Arch.X86_64:
            argv += ["-device", f"isa-debug-exit,iobase={EXIT_PORT:#x},iosize=1"]
        command = toolchain.command(
            argv,
            binds=(Bind(image, f"{MOUNT}/guest"),),
            devices=(str(DEVICE),) if accel == KVM else (),
        )
        try:
            done = ctx.runner.run(command, deadline=DEADLINE, check=False)
        except DeadlineExceeded:
            return KvmProbe(False, f"{DEVICE} opens, but a guest makes hardly a step in it")
    # isa-debug-exit makes QEMU end with status 2 * value + 1 (hw/misc/debugexit.c).
    expected = 2 * EXIT_VALUE + 1 if board.arch is Arch.X86_64 else 0
    if done.status == expected:
        return KvmProbe(True, "a guest booted")
    return KvmProbe(False, f"QEMU ended with status {done.status}: {' '.join(done.tail(2))}")


def guest(arch: Arch) -> bytes:
    """A kernel that counts down from :data:`COUNT` and ends its machine."""
    return _pvh_guest() if arch is Arch.X86_64 else _arm64_guest()


def _pvh_guest() -> bytes:
    """A 32-bit ELF with the PVH note that enters 64-bit mode and counts down in memory.

    Start: xen/include/public/arch-x86/hvm/start_info.h; 64-bit mode: Intel SDM volume 3, 11.8.5.
    """
    page, base = 4096, LOAD_ADDRESS
    # The counter has a page of its own: emulators take great care when code's page is written.
    tables, directory, leaf, code_at, counter = (base + n * page for n in (1, 2, 3, 4, 5))
    gdt, pointer = code_at + 0x200, code_at + 0x240
    le32 = struct.Struct("<I").pack
    enter = (
        *(b"\xb8", le32(tables), b"\x0f\x22\xd8"),  # cr3 = tables
        b"\x0f\x20\xe0\x83\xc8\x20\x0f\x22\xe0",  # cr4 |= PAE
        *(b"\xb9", le32(0xC0000080), b"\x0f\x32\x0d", le32(0x100), b"\x0f\x30"),  # EFER |= LME
        *(b"\x0f\x20\xc0\x0d", le32(1 << 31), b"\x0f\x22\xc0"),  # cr0 |= PG
        *(b"\x0f\x01\x15", le32(pointer)),  # lgdt
    )
    long_at = code_at + sum(map(len, enter)) + 7
    code = b"".join(
        (
            *enter,
            *(b"\xea", le32(long_at), b"\x08\x00"),  # jump into 64-bit code
            *(b"\xb9", le32(COUNT)),
            *(b"\x89\x0c\x25", le32(counter), b"\xff\xc9\x75\xf5"),  # store, decrement, again
            bytes((0xB0, EXIT_VALUE, 0xE6, EXIT_PORT, 0xF4, 0xEB, 0xFD)),  # out, hlt for ever
        )
    )
    # XEN_ELFNOTE_PHYS32_ENTRY (18): where the processor starts, in 32-bit mode without paging.
    note = struct.pack("<III4sI", 4, 4, 18, b"Xen\0", code_at)
    size = 6 * page
    header = struct.pack(
        "<16sHHIIIIIHHHHHH",
        b"\x7fELF\x01\x01\x01",
        *(2, 3, 1, code_at, 52, 0, 0, 52, 32, 2, 40, 0, 0),
    )
    load = struct.pack("<8I", 1, 0, base, base, size, size, 7, page)
    notes = struct.pack("<8I", 4, 116, base + 116, base + 116, len(note), len(note), 4, 4)
    present_writable, large = 3, 0x80
    image = bytearray(size)
    for at, data in (
        (base, header + load + notes + note),
        (tables, struct.pack("<Q", directory | present_writable)),
        (directory, struct.pack("<Q", leaf | present_writable)),
        (leaf, struct.pack("<512Q", *((n << 21) | present_writable | large for n in range(512)))),
        (code_at, code),
        (gdt, struct.pack("<QQ", 0, 0x00AF9A000000FFFF)),
        (pointer, struct.pack("<HI", 15, gdt)),
    ):
        image[at - base : at - base + len(data)] = data
    return bytes(image)


def _arm64_guest() -> bytes:
    """An Image (Documentation/arch/arm64/booting.rst) that counts down, then PSCI SYSTEM_OFF."""
    code = struct.pack(
        "<7I",
        0xD2A00001 | (COUNT >> 16) << 5,  # movz x1, #count, lsl #16
        0xF1000421,  # subs x1, x1, #1
        0x54FFFFE1,  # b.ne to it
        0x52800100,  # mov w0, #8
        0x72B08000,  # movk w0, #0x8400, lsl #16: SYSTEM_OFF
        0xD4000002,  # hvc #0
        0x14000000,  # b to itself
    )
    header = struct.pack("<IIQQQQQQ4sI", 0x14000010, 0, 0, 4096, 0xA, 0, 0, 0, b"ARM\x64", 0)
    return header + code
