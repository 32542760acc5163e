"""What can be done to any driver, from the outside: files, attributes, binding, unloading."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from kdrv.explore.declare import Call
from kdrv.guest.files import GuestFile
from kdrv.guest.link import Pending
from kdrv.guest.session import Session

T = TypeVar("T")
PATIENCE = 5.0
"""How long, in virtual seconds, a call may wait for data before it is interrupted."""
GENTLY = os.O_RDONLY | os.O_NONBLOCK
PARTING = -1
"""The slot of the file that is open while its device goes."""
NO_REQUEST = 0x5401
"""An ioctl request (TCGETS) that drivers of devices do not know."""
MOST_BYTES = 0x3FFF
"""The largest size that a request's number can have (include/uapi/asm-generic/ioctl.h)."""
Usage = Iterator[tuple[Callable[..., object], dict[str, Any]]]
"""Acts, one after the other, with their arguments."""


def patiently(pending: Pending[T], calls: int = 1) -> T:
    """Wait; each of so many calls that waits for data that does not come is interrupted."""
    for _ in range(calls):
        if pending.arrives(PATIENCE):
            break
        pending.interrupt()
    return pending.result()


def size_of(request: int) -> int:
    """How many bytes an ioctl's number says that it takes or gives."""
    return request >> 16 & MOST_BYTES


def file_of(call: Call, slot: int) -> GuestFile:
    """A slot's file. Raises ``OSError`` as the kernel does for a number that is none."""
    try:
        return call.files[slot]
    except KeyError:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from None


def _put(call: Call, slot: int, file: GuestFile) -> None:
    """Fill a slot; the file that was there is closed by the acting process."""
    old = call.files.get(slot)
    call.files[slot] = file
    if old:
        call.guest.begin.close(old).result()


def open_file(call: Call, path: str, flags: int, slot: int) -> None:
    """Open a node; the slot's file before it is closed."""
    _put(call, slot, call.guest.open(path, flags))


def close_file(call: Call, slot: int) -> None:
    """Close a slot's file."""
    file = call.files.pop(slot, None)
    if file:
        # By the acting process: the one that opened it may be busy.
        call.guest.begin.close(file).result()


def read_file(call: Call, slot: int, size: int) -> bytes:
    """read(2)."""
    return patiently(call.guest.begin.read(file_of(call, slot), size))


def write_file(call: Call, slot: int, data: bytes) -> int:
    """write(2)."""
    return patiently(call.guest.begin.write(file_of(call, slot), data))


def pread_file(call: Call, slot: int, size: int, offset: int) -> bytes:
    """pread(2)."""
    return patiently(call.guest.begin.pread(file_of(call, slot), size, offset))


def pwrite_file(call: Call, slot: int, data: bytes, offset: int) -> int:
    """pwrite(2)."""
    return patiently(call.guest.begin.pwrite(file_of(call, slot), data, offset))


def seek_file(call: Call, slot: int, offset: int, whence: int) -> int:
    """lseek(2)."""
    return patiently(call.guest.begin.seek(file_of(call, slot), offset, whence))


def poll_file(call: Call, slot: int) -> int:
    """poll(2), for a moment."""
    events = select.POLLIN | select.POLLOUT | select.POLLPRI
    return patiently(call.guest.begin.poll(file_of(call, slot), events, 10))


def map_file(call: Call, slot: int, length: int) -> bytes:
    """mmap(2), a look at the first bytes, munmap(2)."""
    file = GuestFile(call.guest.begin, file_of(call, slot).fileno(), "")
    with file.mmap(length) as memory:
        return memory.read(0, 8)


def share_file(call: Call, slot: int, to: int) -> None:
    """dup(2), as a fork does: the file is closed when the last descriptor is."""
    number = patiently(call.guest.begin.dup(file_of(call, slot)))
    _put(call, to, GuestFile(call.guest.begin, number, ""))


def control_file(call: Call, slot: int, request: int, content: bytes) -> object:
    """ioctl(2) with a buffer of the size the request names."""
    size = size_of(request)
    if not size:
        number = int.from_bytes(content[:8], "little")
        return patiently(call.guest.begin.ioctl(file_of(call, slot), request, number))
    buffer = (content * size)[:size] if content else bytes(size)
    return patiently(call.guest.begin.ioctl(file_of(call, slot), request, buffer))


def open_and_close(call: Call, path: str) -> None:
    """Open a node and close it."""
    call.guest.open(path, GENTLY).close()


def make_item(call: Call, place: str, name: str) -> None:
    """Make an item in configfs; ``name`` may be a path."""
    call.guest.mkdir(f"{place}/{name}")


def remove_item(call: Call, place: str, name: str) -> None:
    """Remove an item in configfs."""
    call.guest.rmdir(f"{place}/{name}")


def configure_item(
    call: Call, place: str, name: str, number: int, text: str | None = None
) -> str | None:
    """Write one of an item's attributes, unless ``text`` is None, and read it.

    ``number`` picks it among those below the item; without a ``name`` the item is the subsystem.
    """
    path, mode = f"{place}/{name}".rstrip("/"), stat.S_IFDIR
    while stat.S_ISDIR(mode):
        entries = call.guest.listdir(path)
        if not entries:
            return None
        number, place_in = divmod(number, len(entries))
        path = f"{path}/{entries[place_in]}"
        mode = call.guest.stat(path).st_mode
    if text is not None and mode & 0o222:
        call.guest.write_text(path, text)
    return call.guest.read_text(path) if mode & 0o444 else None


def remove_items(guest: Session, place: str) -> None:
    """Remove all that was made below a directory of configfs, as far as it can be."""
    for name in guest.listdir(place):
        path = f"{place}/{name}"
        with contextlib.suppress(OSError):
            if stat.S_ISDIR(guest.stat(path).st_mode):
                remove_items(guest, path)
                guest.rmdir(path)


def read_attribute(call: Call, path: str) -> bytes:
    """Read an attribute in sysfs."""
    return call.guest.read_bytes(path)


def write_attribute(call: Call, path: str, text: str) -> None:
    """Write an attribute in sysfs."""
    call.guest.write_text(path, text)


def unbind(call: Call, number: int = 0) -> str | None:
    """Take a device from the driver; nothing when it is not bound."""
    place, device = call.bindings[number]
    if not call.guest.exists(f"{place}/{device}/uevent"):
        return None
    call.guest.write_text(f"{place}/unbind", device)
    return device


def bind(call: Call, number: int = 0) -> str | None:
    """Give a device to the driver; nothing when it is bound."""
    place, device = call.bindings[number]
    if call.guest.exists(f"{place}/{device}/uevent"):
        return None
    call.guest.write_text(f"{place}/bind", device)
    return device


def unload_and_load(call: Call) -> None:
    """Unload the module, as far as it is not in use, and load it again."""
    call.guest.unload(call.module.module)
    call.guest.load(call.module.path, call.module.params)


def parting(path: str, requests: Iterable[int]) -> Usage:
    """All that can be done to a file whose device is gone, and to one whose device is back."""
    file = {"slot": PARTING}
    yield open_file, {"path": path, "flags": os.O_RDWR, **file}
    yield unbind, {}
    for request in (NO_REQUEST, *requests):
        yield control_file, {**file, "request": request, "content": b""}
    yield pwrite_file, {**file, "data": b"gone", "offset": 0}
    yield poll_file, file
    yield read_file, {**file, "size": 16}
    yield bind, {}
    yield read_file, {**file, "size": 16}
    yield close_file, file
