"""What a loaded driver shows to the world, and the operations that follow from it.

They need no word from the user: character and block devices, attributes, binding and unloading.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdrv.core.inside import understood
from kdrv.explore import acts
from kdrv.explore.declare import Operation
from kdrv.guest.session import Guest
from kdrv.testing.driver import Driver

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

SLOTS = 3
IOCTL_LIMIT = 4096
MOST_REQUESTS = 64
CONFIGFS = "/sys/kernel/config"


@dataclass(frozen=True)
class Shown:
    """What there is to be tried. ``requests`` are ioctl numbers found in the driver's code.

    ``opens`` are the nodes that can be opened while nothing is wrong, ``subsystems`` directories of
    configfs. ``bindings`` are pairs of a bus driver's directory and a device's name,
    ``rival_bindings`` those of a driver to compare with.
    """

    nodes: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    readable: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    bindings: tuple[tuple[str, str], ...] = ()
    requests: tuple[int, ...] = ()
    subsystems: tuple[str, ...] = ()
    opens: tuple[str, ...] = ()
    rival_bindings: tuple[tuple[str, str], ...] = ()


@dataclass
class Lookout:
    """Looks at a guest before and after the driver is loaded."""

    nodes: set[str] = field(default_factory=set)
    subsystems: set[str] = field(default_factory=set)

    def before(self, guest: Guest) -> None:
        """Remember what is there without the driver."""
        self.nodes = set(guest.listdir("/dev"))
        self.subsystems = set(_listed(guest, CONFIGFS))

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
        fresh = sorted(set(_listed(guest, CONFIGFS)) - self.subsystems)
        return Shown(
            nodes=tuple(nodes),
            blocks=tuple(blocks),
            readable=tuple(readable),
            writable=tuple(writable),
            bindings=tuple(bindings(driver)),
            requests=tuple(requests),
            subsystems=tuple(f"{CONFIGFS}/{name}" for name in fresh),
            opens=tuple(node for node in (*nodes, *blocks) if _opens(guest, node)),
        )


def _listed(guest: Guest, folder: str) -> list[str]:
    return guest.listdir(folder) if guest.exists(folder) else []


def _opens(guest: Guest, node: str) -> bool:
    try:
        guest.open(node, acts.GENTLY).close()
    except OSError:
        return False
    return True


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
    with understood(module.name), module.open("rb") as file:
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
    direction, size, kind = number >> 30, acts.size_of(number), number >> 8 & 0xFF
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

    def add(
        run: Any, weight: int = 4, serves: bool = False, **arguments: SearchStrategy[Any]
    ) -> None:
        found.append(Operation(run.__name__, run, arguments, serves, weight))

    paths = [*shown.nodes, *shown.blocks]
    if paths:
        flags = st.sampled_from([os.O_RDWR, os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_NONBLOCK])
        add(acts.open_file, path=st.sampled_from(paths), flags=flags, slot=slot)
        add(acts.close_file, slot=slot, weight=2)
        add(acts.read_file, slot=slot, size=size)
        add(acts.write_file, slot=slot, data=data)
        add(acts.pread_file, slot=slot, size=size, offset=offset)
        add(acts.pwrite_file, slot=slot, data=data, offset=offset)
        add(acts.seek_file, slot=slot, offset=offset, whence=st.integers(0, 2), weight=1)
        add(acts.poll_file, slot=slot, weight=2)
        add(acts.map_file, slot=slot, length=st.sampled_from([4096, 8192]), weight=1)
        add(acts.share_file, slot=slot, to=slot, weight=1)
        requests = st.sampled_from([*shown.requests, 0x5401])
        add(acts.control_file, slot=slot, request=requests, content=st.binary(max_size=16))
    if shown.opens:
        add(acts.open_and_close, serves=True, path=st.sampled_from(shown.opens), weight=1)
    if shown.subsystems:
        place, name = st.sampled_from(shown.subsystems), st.sampled_from(["a", "b", "a/a"])
        number, some = st.integers(0, 99), st.text("abc \n", max_size=20)
        text = st.one_of(st.none(), st.integers(0, 1).map(str), st.integers().map(str), some)
        where = st.one_of(name, st.just(""))
        add(acts.make_item, place=place, name=name)
        add(acts.remove_item, place=place, name=name, weight=2)
        add(acts.configure_item, place=place, name=where, number=number, text=text)
    if shown.readable:
        add(acts.read_attribute, path=st.sampled_from(shown.readable))
    if shown.writable:
        text = st.one_of(st.integers().map(str), st.text("abc \n", max_size=20))
        add(acts.write_attribute, path=st.sampled_from(shown.writable), text=text)
    if shown.bindings:
        number = st.integers(0, len(shown.bindings) - 1)
        add(acts.unbind, number=number, weight=1)
        add(acts.bind, number=number, weight=1)
    add(acts.unload_and_load, weight=1)
    return found
