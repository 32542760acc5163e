"""Archives for the kernel's initramfs, in the "newc" format, the same bytes for the same content.

Format: Documentation/driver-api/early-userspace/buffer-format.rst. Written here because cpio(1)
takes owners, times and inode numbers from the host, and needs root for device nodes.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Self

_TRAILER = "TRAILER!!!"
_ALIGN = 4


@dataclass(frozen=True)
class _Entry:
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


@dataclass
class Archive:
    """Files to be, by absolute path; everything belongs to root and dates from 1970.

    Directories on the way to a file are made. The methods give the archive back, so that calls can
    be chained. Raises ``ValueError`` for a path that is not absolute or is there already as
    something else.
    """

    _entries: dict[str, _Entry] = field(default_factory=dict)

    def directory(self, path: str, mode: int = 0o755) -> Self:
        """Add a directory."""
        return self._add(path, _Entry(stat.S_IFDIR | mode))

    def file(self, path: str, data: bytes, mode: int = 0o644) -> Self:
        """Add a regular file."""
        return self._add(path, _Entry(stat.S_IFREG | mode, data))

    def symlink(self, path: str, target: str) -> Self:
        """Add a symbolic link at ``path``."""
        return self._add(path, _Entry(stat.S_IFLNK | 0o777, target.encode()))

    def character_device(self, path: str, major: int, minor: int, mode: int = 0o600) -> Self:
        """Add the node of a character device."""
        return self._add(path, _Entry(stat.S_IFCHR | mode, device=(major, minor)))

    def pack(self) -> bytes:
        """The archive. Packed archives can be joined; later ones add to earlier ones."""
        packed = bytearray()
        for number, (path, entry) in enumerate(self._entries.items(), 1):
            packed += _member(number, path.lstrip("/"), entry)
        packed += _member(0, _TRAILER, _Entry(0))
        return bytes(packed)

    def _add(self, path: str, entry: _Entry) -> Self:
        pure = PurePosixPath(path)
        name = str(pure)
        if not pure.is_absolute() or ".." in pure.parts or "\0" in path or name.strip("/") == "":
            raise ValueError(f"{path!r} is no absolute path of a file")
        for parent in reversed(pure.parents[:-1]):
            self._put(str(parent), _Entry(stat.S_IFDIR | 0o755), implied=True)
        self._put(name, entry, implied=False)
        return self

    def _put(self, name: str, entry: _Entry, implied: bool) -> None:
        present = self._entries.get(name)
        if present is None:
            self._entries[name] = entry
        elif not (stat.S_ISDIR(present.mode) and stat.S_ISDIR(entry.mode)):
            raise ValueError(f"{name!r} is in the archive already")
        elif not implied:
            self._entries[name] = entry


def _member(number: int, name: str, entry: _Entry) -> bytes:
    encoded = name.encode(errors="surrogateescape") + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (
        *(number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device),
        *(len(encoded), 0),
    )
    header = b"070701" + b"".join(b"%08X" % value for value in fields) + encoded
    return _aligned(header) + _aligned(entry.data)


def _aligned(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGN)
