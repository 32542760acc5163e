"""What differs between the guest's architectures at the system call interface, as data.

Numbers are from ``arch/x86/entry/syscalls/syscall_64.tbl`` and, for arm64,
``scripts/syscall.tbl``; flags from ``arch/*/include/uapi/asm/fcntl.h``. Both are ABI: they do not
change between kernels.
"""

from __future__ import annotations

import os
import platform
import struct
from dataclasses import dataclass

_NUMBERS = {
    # name: (x86_64, arm64)
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "lseek": (8, 62),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "ioctl": (16, 29),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "dup": (32, 23),
    "nanosleep": (35, 101),
    "getpid": (39, 172),
    "uname": (63, 160),
    "fcntl": (72, 25),
    "fsync": (74, 82),
    "ftruncate": (77, 46),
    "syslog": (103, 116),
    "sync": (162, 81),
    "mount": (165, 40),
    "umount2": (166, 39),
    "reboot": (169, 142),
    "delete_module": (176, 106),
    "getdents64": (217, 61),
    "openat": (257, 56),
    "mkdirat": (258, 34),
    "mknodat": (259, 33),
    "unlinkat": (263, 35),
    "symlinkat": (266, 36),
    "readlinkat": (267, 78),
    "ppoll": (271, 73),
    "finit_module": (313, 273),
    "renameat2": (316, 276),
    "statx": (332, 291),
}

# O_DIRECTORY, O_NOFOLLOW, O_DIRECT, O_LARGEFILE: the four that arm64 numbers its own way.
_MOVED_FLAGS = {
    "x86_64": (0o200000, 0o400000, 0o40000, 0o100000),
    "aarch64": (0o40000, 0o100000, 0o200000, 0o400000),
}


@dataclass(frozen=True)
class Abi:
    """The system call interface of a guest, by the machine its ``uname(2)`` names."""

    machine: str

    def number(self, name: str) -> int:
        """The number of a system call. Raises ``ValueError`` for one that is not in the table."""
        if name not in _NUMBERS:
            raise ValueError(f"system call {name!r} is not in kdrv's table; give its number")
        return _NUMBERS[name][self.machine == "aarch64"]

    def open_flags(self, flags: int) -> int:
        """``os.O_*`` of this host, as the guest numbers them."""
        ours = _MOVED_FLAGS.get(platform.machine(), _MOVED_FLAGS["x86_64"])
        theirs = _MOVED_FLAGS.get(self.machine, _MOVED_FLAGS["x86_64"])
        moved = flags
        for bit in ours:
            moved &= ~bit
        for here, there in zip(ours, theirs, strict=True):
            if flags & here:
                moved |= there
        return moved


STATX_SIZE = 256
_STATX = struct.Struct("<IIQIIIHxxQQQQ" + "qIxxxx" * 4 + "IIII")


def decode_statx(data: bytes) -> os.stat_result:
    """A ``struct statx`` (``include/uapi/linux/stat.h``) as what ``os.stat`` gives."""
    fields = _STATX.unpack_from(data)
    _, block_size, _, links, uid, gid, mode, inode, size, blocks, _ = fields[:11]
    access, access_ns, _, _, change, change_ns, modify, modify_ns = fields[11:19]
    rdev_major, rdev_minor, dev_major, dev_minor = fields[19:23]
    device = os.makedev(dev_major, dev_minor)
    return os.stat_result(
        (mode, inode, device, links, uid, gid, size, access, modify, change),
        {
            "st_rdev": os.makedev(rdev_major, rdev_minor),
            "st_blksize": block_size,
            "st_blocks": blocks,
            "st_atime_ns": access * 10**9 + access_ns,
            "st_mtime_ns": modify * 10**9 + modify_ns,
            "st_ctime_ns": change * 10**9 + change_ns,
        },
    )


_DIRENT = struct.Struct("<QqHB")


def decode_dirents(data: bytes) -> list[str]:
    """The names of ``struct linux_dirent64`` entries, without ``.`` and ``..``."""
    names = []
    while len(data) >= _DIRENT.size:
        length = _DIRENT.unpack_from(data)[2]
        name = data[_DIRENT.size : length].split(b"\0", 1)[0]
        if name not in (b".", b".."):
            names.append(os.fsdecode(name))
        data = data[max(length, _DIRENT.size) :]
    return names
