"""What a driver leaves behind, seen in a guest that is a few files."""

from __future__ import annotations

import contextlib
import errno
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from kdrv.kernel.modinfo import CodeSection
from kdrv.sim.faults import FaultKind
from kdrv.testing import driver as drivers
from kdrv.testing import traces
from kdrv.testing.driver import Driver, DriverFile, LeftTraces

BASE = 0xC0000000
CODE = (CodeSection(".text", 0x100, ((0, "widget::probe"), (0x40, "widget::leaky"))),)
CALM = {
    "/proc/interrupts": "           CPU0\n  4:     12  IO-APIC  4-edge  ttyS0\nNMI: 0 Nothing\n",
    "/proc/iomem": "00000000-0009fbff : System RAM\n",
    "/proc/modules": "",
}


@dataclass
class Slab:
    """Objects of kmalloc-64: how many, and how many each address of the driver's allocated."""

    others: int = 100
    ours: Counter[int] = field(default_factory=Counter)
    late: int = 0
    """Objects that go only when the kernel is told to free what it put off."""

    def info(self) -> str:
        count = self.others + sum(self.ours.values()) + self.late
        return f"slabinfo - version: 2.1\n# name\nkmalloc-64 {count} {count} 64\n"

    def traces(self) -> str:
        rows = [f"{self.others} kobject_init+0x10/0x20 age=1\n    kobject_init+0x10/0x20\n"]
        rows += [
            f"{count} {at:#x} age=1\n    __kmalloc+0x10/0x20\n    {at:#x}\n"
            for at, count in self.ours.items()
        ]
        return "\n".join(rows)


@dataclass
class FakeGuest:
    """Files, a clock, and what loading and unloading the driver does."""

    on_load: Callable[[FakeGuest], None] = lambda guest: None
    on_unload: Callable[[FakeGuest], None] = lambda guest: None
    files: dict[str, str] = field(default_factory=lambda: dict(CALM))
    nodes: list[str] = field(default_factory=lambda: ["console"])
    slab: Slab = field(default_factory=Slab)
    rounds: int = 0
    slept: float = 0.0
    goes_late: Callable[[FakeGuest], None] = lambda guest: None

    def read(self, paths: Sequence[str]) -> list[str]:
        files = {
            **self.files,
            "/proc/slabinfo": self.slab.info(),
            "/sys/kernel/debug/slab/kmalloc-64/alloc_traces": self.slab.traces(),
            "/sys/module/widget/sections/.text": f"{BASE:#x}\n",
        }
        return [files[path] for path in paths]

    def list(self, folder: str) -> list[str]:
        return {"/dev": self.nodes, "/sys/module/widget/sections": [".text"]}.get(folder, [])

    def reclaim(self, seconds: float) -> None:
        self.slept += seconds
        self.slab.late = 0
        self.goes_late(self)

    def load(self, path: str, params: str) -> None:
        self.rounds += 1
        self.on_load(self)

    def unload(self, name: str) -> None:
        self.on_unload(self)


@pytest.fixture(autouse=True)
def patched(monkeypatch: pytest.MonkeyPatch) -> None:
    def read_files(guest: FakeGuest, paths: Sequence[str], room: int = 0) -> list[str]:
        return guest.read(paths)

    def list_small(guest: FakeGuest, folder: str) -> list[str]:
        return guest.list(folder)

    def write_and_sleep(guest: FakeGuest, path: str, words: Iterable[str], pause: float) -> None:
        assert (path, *words) == ("/proc/sys/vm/drop_caches", "4", "2")
        guest.reclaim(pause)

    monkeypatch.setattr(traces, "read_files", read_files)
    monkeypatch.setattr(traces, "list_small", list_small)
    monkeypatch.setattr(traces, "write_and_sleep", write_and_sleep)
    monkeypatch.setattr(drivers, "list_small", list_small)


def driver_in(guest: FakeGuest) -> Driver:
    return Driver(guest, DriverFile("widget", "/widget.ko", code=CODE))  # type: ignore[arg-type]


def left_by(guest: FakeGuest) -> tuple[str, ...]:
    driver = driver_in(guest)
    driver.load()
    with pytest.raises(LeftTraces) as caught:
        driver.unload()
    assert caught.value.message.startswith("driver widget was unloaded and left behind: ")
    return (caught.value.message.split(": ", 1)[1], *caught.value.detail)


def leak(guest: FakeGuest) -> None:
    guest.slab.ours[BASE + 0x44] += 1


def leak_once(guest: FakeGuest) -> None:
    if guest.rounds == 1:
        leak(guest)


def put_off(guest: FakeGuest) -> None:
    guest.slab.late = 3


def test_a_driver_that_leaves_nothing_is_looked_at_once() -> None:
    guest = FakeGuest()
    driver = driver_in(guest)
    driver.load()
    driver.unload()
    assert (guest.rounds, guest.slept) == (1, 0.0)


def test_what_the_kernel_only_put_off_is_no_trace() -> None:
    guest = FakeGuest(on_unload=put_off)
    driver = driver_in(guest)
    driver.load()
    driver.unload()
    assert guest.rounds == 1
    assert 0 < guest.slept < 0.1


def test_memory_that_is_lost_each_time_is_a_leak_and_has_a_name() -> None:
    guest = FakeGuest(on_load=leak)
    assert left_by(guest) == ("memory leaked: 1 object allocated by widget::leaky (kmalloc-64)",)
    assert guest.rounds == 2


def test_memory_the_kernel_allocates_once_is_none_and_costs_a_moment() -> None:
    guest = FakeGuest(on_load=leak_once)
    driver = driver_in(guest)
    driver.load()
    driver.unload()
    assert guest.rounds == 2
    assert guest.slept < 0.2


def test_a_leak_of_an_earlier_driver_is_told_once() -> None:
    guest = FakeGuest(on_load=leak)
    known: traces.Places = Counter()
    first = Driver(guest, DriverFile("widget", "/widget.ko", code=CODE), known)  # type: ignore[arg-type]
    first.load()
    with pytest.raises(LeftTraces):
        first.unload()
    guest.on_load = lambda guest: None
    guest.on_unload = lambda guest: setattr(guest.slab, "others", guest.slab.others + 1)
    second = Driver(guest, DriverFile("widget", "/widget.ko", code=CODE), known)  # type: ignore[arg-type]
    second.load()
    second.unload()


class Shortage:
    """Memory that runs out in the driver's probe, or never does."""

    nth = 7

    def __init__(self, happens: bool = True, error: OSError | None = None) -> None:
        self.happens, self.error = happens, error
        self.happened = False

    @contextlib.contextmanager
    def on(self, guest: FakeGuest) -> Iterator[None]:
        yield
        self.happened = self.happens
        if self.error:
            raise self.error


class Scarcity:
    """Draws one shortage, always the same."""

    def __init__(self, shortage: Shortage) -> None:
        self.shortage = shortage

    def counting(self, guest: FakeGuest) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def draw(self, kind: FaultKind, *, loads: bool) -> Shortage:
        assert (kind, loads) == (FaultKind.PROBE_FAIL_NTH, True)
        return self.shortage


def starved(guest: FakeGuest, shortage: Shortage) -> Driver:
    file = DriverFile("widget", "/widget.ko", code=CODE)
    return Driver(guest, file, scarcity=Scarcity(shortage))  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [None, OSError(errno.ENOMEM, "Cannot allocate memory")])
def test_a_driver_without_memory_goes_and_comes_again(error: OSError | None) -> None:
    guest = FakeGuest()
    driver = starved(guest, Shortage(error=error))
    driver.load()
    assert driver.loaded
    assert guest.rounds == 3


def test_memory_that_did_not_run_out_changes_nothing() -> None:
    guest = FakeGuest()
    driver = starved(guest, Shortage(happens=False))
    driver.load()
    driver.unload()
    assert guest.rounds == 3


def test_a_probe_without_memory_that_leaks_is_told() -> None:
    guest = FakeGuest(on_load=leak)
    driver = starved(guest, Shortage())
    with pytest.raises(LeftTraces, match="found no memory .allocation 7 .*: memory leaked: 1 obj"):
        driver.load()
    assert guest.rounds == 3


def test_a_leak_that_takes_a_failure_is_seen_when_it_is_brought_about_again() -> None:
    guest = FakeGuest()
    driver = driver_in(guest)
    driver.load()
    leak(guest)
    driver.unload()
    driver.load()
    leak(guest)
    with pytest.raises(LeftTraces, match="widget::leaky"):
        driver.unload(lambda: leak(guest))


def test_an_error_that_is_not_for_want_of_memory_is_the_driver_s_own() -> None:
    driver = starved(FakeGuest(), Shortage(happens=False, error=OSError(errno.EBUSY, "busy")))
    with pytest.raises(OSError, match="busy"):
        driver.load()


def test_interrupts_regions_nodes_and_modules_are_told_together() -> None:
    def clutter(guest: FakeGuest) -> None:
        guest.files["/proc/interrupts"] += " 24:      0  PCI-MSI  0-edge   widget\n"
        guest.files["/proc/iomem"] += "fe000000-fe0fffff : widget\n"
        guest.files["/proc/modules"] = "widget_helper 4096 0 - Live 0x0\n"
        guest.nodes.append("widget")

    assert left_by(FakeGuest(on_load=clutter)) == (
        "interrupt handler still registered: 24 PCI-MSI 0-edge widget",
        "memory region still claimed: fe000000-fe0fffff : widget",
        "device node still there: /dev/widget",
        "module still loaded: widget_helper",
    )


def test_a_node_that_goes_late_is_waited_for() -> None:
    def appear(guest: FakeGuest) -> None:
        guest.nodes = ["console", "widget"]

    def go(guest: FakeGuest) -> None:
        if guest.slept > 1.0:
            guest.nodes = ["console"]

    guest = FakeGuest(on_load=appear, goes_late=go)
    driver = driver_in(guest)
    driver.load()
    driver.unload()
    assert guest.rounds == 1
