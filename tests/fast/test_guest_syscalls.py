"""What differs between architectures, against the headers of this machine where it has them."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

import pytest

from kdrv.guest.syscalls import _NUMBERS, Abi, decode_dirents, decode_statx

X86_64 = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
GENERIC = Path("/usr/include/asm-generic/unistd.h")


@pytest.mark.parametrize(("header", "column"), [(X86_64, 0), (GENERIC, 1)], ids=["x86_64", "arm64"])
def test_the_numbers_are_those_of_the_headers(header: Path, column: int) -> None:
    if not header.is_file():
        pytest.skip(f"no {header}")
    text = header.read_text()
    pattern = r"^#define __NR(?:3264)?_(\w+) (\d+)$"
    numbers = {name: int(number) for name, number in re.findall(pattern, text, re.MULTILINE)}
    assert {name: numbers[name] for name in _NUMBERS} == {
        name: row[column] for name, row in _NUMBERS.items()
    }


def test_an_unknown_system_call_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="give its number"):
        Abi("x86_64").number("frobnicate")


def test_flags_of_open_are_translated_for_the_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    directory, direct = 0o200000, 0o40000
    assert Abi("x86_64").open_flags(directory | direct | os.O_RDWR) == directory | direct | 2
    assert Abi("aarch64").open_flags(directory | os.O_RDWR) == 0o40000 | 2
    assert Abi("aarch64").open_flags(direct) == 0o200000


def test_a_statx_becomes_what_os_stat_gives() -> None:
    head = struct.pack("<IIQIIIHxxQQQQ", 0x7FF, 512, 0, 2, 3, 4, 0o20644, 5, 6, 7, 0)
    times = b"".join(struct.pack("<qIxxxx", second, 500) for second in (10, 20, 30, 40))
    found = decode_statx((head + times + struct.pack("<IIII", 10, 200, 0, 9)).ljust(256, b"\0"))
    assert (found.st_mode, found.st_ino, found.st_nlink) == (0o20644, 5, 2)
    assert (found.st_uid, found.st_gid, found.st_size) == (3, 4, 6)
    assert (found.st_atime, found.st_ctime, found.st_mtime) == (10, 30, 40)
    assert found.st_mtime_ns == 40 * 10**9 + 500
    assert (found.st_rdev, found.st_dev) == (os.makedev(10, 200), os.makedev(0, 9))
    assert (found.st_blksize, found.st_blocks) == (512, 7)


def test_names_of_a_directory_without_itself_and_its_parent() -> None:
    data = b""
    for name in (b".", b"..", b"kmsg", "größe".encode(), b"\xff"):
        entry = struct.pack("<QqHB", 1, 1, (19 + len(name) + 8) // 8 * 8, 0) + name
        data += entry.ljust((19 + len(name) + 8) // 8 * 8, b"\0")
    assert decode_dirents(data) == ["kmsg", "größe", "\udcff"]


def test_entries_that_claim_no_length_end() -> None:
    assert decode_dirents(bytes(100)) == ["", "", "", "", ""]
