"""What a loaded driver shows to the world, and the operations that follow from it.

They need no word from the user: character and block devices, attributes, binding and unloading.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from kdrv.explore.declare import Call, Operation
from kdrv.guest.files import GuestFile
from kdrv.guest.link import Pending
from kdrv.guest.session import Guest
from kdrv.testing.driver import Driver

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

T = TypeVar("T")
SLOTS = 3
PATIENCE = 5.0
"""How long, in virtual seconds, a call may wait for data before it is interrupted."""
IOCTL_LIMIT = 4096
MOST_REQUESTS = 64


@dataclass(frozen=True)
class Shown:
    """What there is to be tried. ``requests`` are ioctl numbers found in the driver's code.

    ``bindings`` are pairs of a bus driver's directory and a device's name, ``rival_bindings`` those
    of a driver to compare with.
    """

    nodes: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    readable: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    bindings: tuple[tuple[str, str], ...] = ()
    requests: tuple[int, ...] = ()
    rival_bindings: tuple[tuple[str, str], ...] = ()


@dataclass
class Lookout:
    """Looks at a guest before and after the driver is loaded."""

    nodes: set[str] = field(default_factory=set)

    def before(self, guest: Guest) -> None:
        """Remember what is there without the driver."""
        self.nodes = set(guest.listdir("/dev"))

    def after(self, guest: Guest, driver: Driver, requests: Sequence[int] = ()) -> Shown:
        """What the driver has added."""
        nodes, blocks = [], []
        for name in sorted(set(guest.listdir("/dev")) - self.nodes):
            mode = guest.stat(f"/dev/{name}").st_mode
            if stat.S_ISCHR(mode):
                nodes.append(f"/dev/{name}")
            elif stat.S_ISBLK(mode):
                blocks.append(f"/dev/{name}")
        readable, writable = [], []
        for place, device in bindings(driver):
            for path, mode in _attributes(guest, f"{place}/{device}"):
                if mode & 0o444:
                    readable.append(path)
                if mode & 0o222:
                    writable.append(path)
        return Shown(
            tuple(nodes),
            tuple(blocks),
            tuple(readable),
            tuple(writable),
            tuple(bindings(driver)),
            tuple(requests),
        )


def bindings(driver: Driver) -> list[tuple[str, str]]:
    """Pairs of a bus driver's directory and the name of a device bound to it."""
    pairs = []
    for place in driver.bus_drivers:
        for name in driver.guest.listdir(place):
            if name not in _COMMON and driver.guest.exists(f"{place}/{name}/uevent"):
                pairs.append((place, name))
    return pairs


_COMMON = {"bind", "unbind", "new_id", "remove_id", "module", "uevent"}
# What every PCI or platform device has, whatever its driver (drivers/pci/pci-sysfs.c).
_OF_THE_BUS = frozenset(
    """ari_enabled broken_parity_status class config consistent_dma_mask_bits d3cold_allowed device
    dma_mask_bits driver_override enable irq local_cpulist local_cpus modalias msi_bus numa_node
    power_state remove rescan reset reset_method revision subsystem_device subsystem_vendor uevent
    vendor waiting_for_supplier""".split()
)


def _attributes(guest: Guest, device: str) -> list[tuple[str, int]]:
    """The device's own attributes with their modes."""
    found = []
    for name in guest.listdir(device):
        if name in _OF_THE_BUS or name.startswith("resource"):
            continue
        status = guest.stat(f"{device}/{name}", follow=False)
        if stat.S_ISREG(status.st_mode):
            found.append((f"{device}/{name}", status.st_mode))
    return found


def mined(module: Path) -> tuple[int, ...]:
    """Numbers in a module's code that look like ioctl requests.

    See ``include/uapi/asm-generic/ioctl.h``. A request is compared with a constant,
    which the compiler puts into the code as it is.
    """
    from elftools.elf.elffile import ELFFile

    found: set[int] = set()
    with module.open("rb") as file:
        for section in ELFFile(file).iter_sections():
            if section.name.startswith(".text"):
                data = section.data()
                for at in range(2, len(data) - 3):
                    if _is_immediate(data[at - 2], data[at - 1]):
                        number = int.from_bytes(data[at : at + 4], "little")
                        if looks_like_request(number):
                            found.add(number)
    return tuple(sorted(found)[:MOST_REQUESTS])


def _is_immediate(before: int, last: int) -> bool:
    """Whether two bytes of x86 code come before a constant: of a comparison, or of a move."""
    return last == 0x3D or before == 0x81 or 0xB8 <= last <= 0xBF


def looks_like_request(number: int) -> bool:
    """Whether a number has a direction, a size that fits it, and a character for its type."""
    direction, size, kind = number >> 30, number >> 16 & 0x3FFF, number >> 8 & 0xFF
    if not 0x20 <= kind < 0x7F:
        return False
    return 0 < size <= IOCTL_LIMIT and direction != 0


def operations(shown: Shown) -> list[Operation]:
    """All operations that what is shown allows."""
    from hypothesis import strategies as st

    slot = st.integers(0, SLOTS - 1)
    size = st.one_of(st.integers(0, 64), st.sampled_from([4095, 4096, 4097, 65536]))
    data = st.one_of(st.binary(max_size=64), st.sampled_from([b"\xff" * 4096, b"a" * 4097]))
    offset = st.one_of(st.integers(0, 64), st.sampled_from([4096, 1 << 31, (1 << 63) - 1]))
    found: list[Operation] = []

    def add(run: Any, weight: int = 4, **arguments: SearchStrategy[Any]) -> None:
        found.append(Operation(run.__name__, run, arguments, weight=weight))

    paths = [*shown.nodes, *shown.blocks]
    if paths:
        flags = st.sampled_from([os.O_RDWR, os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_NONBLOCK])
        add(open_file, path=st.sampled_from(paths), flags=flags, slot=slot)
        add(close_file, slot=slot, weight=2)
        add(read_file, slot=slot, size=size)
        add(write_file, slot=slot, data=data)
        add(pread_file, slot=slot, size=size, offset=offset)
        add(pwrite_file, slot=slot, data=data, offset=offset)
        add(seek_file, slot=slot, offset=offset, whence=st.integers(0, 2), weight=1)
        add(poll_file, slot=slot, weight=2)
        add(map_file, slot=slot, length=st.sampled_from([4096, 8192]), weight=1)
        add(share_file, slot=slot, to=slot, weight=1)
        requests = st.sampled_from([*shown.requests, 0x5401])
        add(control_file, slot=slot, request=requests, content=st.binary(max_size=16))
    if shown.readable:
        add(read_attribute, path=st.sampled_from(shown.readable))
    if shown.writable:
        text = st.one_of(st.integers().map(str), st.text("abc \n", max_size=20))
        add(write_attribute, path=st.sampled_from(shown.writable), text=text)
    if shown.bindings:
        number = st.integers(0, len(shown.bindings) - 1)
        add(unbind, number=number, weight=1)
        add(bind, number=number, weight=1)
    add(unload_and_load, weight=1)
    return found


def _patiently(pending: Pending[T]) -> T:
    """Wait; a call that waits for data that does not come is interrupted."""
    if not pending.arrives(PATIENCE):
        pending.interrupt()
    return pending.result(PATIENCE)


def _file(call: Call, slot: int) -> GuestFile:
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
    return _patiently(call.guest.begin.read(_file(call, slot), size))


def write_file(call: Call, slot: int, data: bytes) -> int:
    """write(2)."""
    return _patiently(call.guest.begin.write(_file(call, slot), data))


def pread_file(call: Call, slot: int, size: int, offset: int) -> bytes:
    """pread(2)."""
    return _patiently(call.guest.begin.pread(_file(call, slot), size, offset))


def pwrite_file(call: Call, slot: int, data: bytes, offset: int) -> int:
    """pwrite(2)."""
    return _patiently(call.guest.begin.pwrite(_file(call, slot), data, offset))


def seek_file(call: Call, slot: int, offset: int, whence: int) -> int:
    """lseek(2)."""
    return _patiently(call.guest.begin.seek(_file(call, slot), offset, whence))


def poll_file(call: Call, slot: int) -> int:
    """poll(2), for a moment."""
    events = select.POLLIN | select.POLLOUT | select.POLLPRI
    return _patiently(call.guest.begin.poll(_file(call, slot), events, 10))


def map_file(call: Call, slot: int, length: int) -> bytes:
    """mmap(2), a look at the first bytes, munmap(2)."""
    file = GuestFile(call.guest.begin, _file(call, slot).fileno(), "")
    with file.mmap(length) as memory:
        return memory.read(0, 8)


def share_file(call: Call, slot: int, to: int) -> None:
    """dup(2), as a fork does: the file is closed when the last descriptor is."""
    number = _patiently(call.guest.begin.dup(_file(call, slot)))
    _put(call, to, GuestFile(call.guest.begin, number, ""))


def control_file(call: Call, slot: int, request: int, content: bytes) -> object:
    """ioctl(2) with a buffer of the size the request names."""
    size = request >> 16 & 0x3FFF
    if not size:
        number = int.from_bytes(content[:8], "little")
        return _patiently(call.guest.begin.ioctl(_file(call, slot), request, number))
    buffer = (content * size)[:size] if content else bytes(size)
    return _patiently(call.guest.begin.ioctl(_file(call, slot), request, buffer))


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
