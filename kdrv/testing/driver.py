"""The driver under test, as a test's fixture: loaded, bound, unloaded, and gone without a trace."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

from kdrv.core.errors import WorkFailed
from kdrv.guest.session import Guest
from kdrv.guest.together import list_small
from kdrv.kernel.modinfo import CodeSection
from kdrv.sim.faults import FaultKind
from kdrv.sim.shortage import Scarcity, Shortage
from kdrv.testing.ktap import parse
from kdrv.testing.traces import LEAKED, Code, Inventory, Places, code_of

KUNIT = "/sys/kernel/debug/kunit"


class LeftTraces(WorkFailed):
    """The driver was unloaded and left something behind."""


class UnitTestsFailed(WorkFailed):
    """A KUnit suite that ran when the module was loaded has failures."""


@dataclass(frozen=True)
class DriverFile:
    """Where the driver is in the guest.

    ``module`` is its name in /proc/modules; ``path`` its .ko, empty for a driver that is built in;
    ``requires`` are .ko files to load before it; ``code`` is in it, to name what leaked.
    """

    module: str
    path: str = ""
    params: str = ""
    requires: tuple[str, ...] = ()
    code: tuple[CodeSection, ...] = ()


class Driver:
    """The driver in a guest. ``name`` is the module's name.

    ``known`` is the memory that drivers before it left in this machine. ``scarcity`` says where
    memory is to run out while it is loaded or bound.
    """

    def __init__(
        self,
        guest: Guest,
        file: DriverFile,
        known: Places | None = None,
        *,
        scarcity: Scarcity | None = None,
    ) -> None:
        self.guest = guest
        self.name = file.module
        self.loaded = False
        self._file = file
        self._params = file.params
        self._known = Counter() if known is None else known
        self._scarcity = scarcity
        self._inventory: Inventory | None = None
        self._code: Code | None = None

    @property
    def code(self) -> Code | None:
        """Where a loaded module's code lies."""
        return self._code if self.loaded else None

    @property
    def devices(self) -> list[str]:
        """The names of the devices that are bound to the driver, for example ``0000:00:03.0``."""
        return [device for driver in self.bus_drivers for device in self._bound(driver)]

    @property
    def bus_drivers(self) -> list[str]:
        """The driver's directories below ``/sys/bus``: one for each bus it registered with."""
        if not self._file.path:
            names = {self.name, self.name.replace("_", "-")}
            buses = list_small(self.guest, "/sys/bus")
            places = [f"/sys/bus/{bus}/drivers/{name}" for bus in buses for name in names]
            return [place for place in places if self.guest.exists(place)]
        folder = f"/sys/module/{self.name}/drivers"
        links = [entry.split(":", 1) for entry in list_small(self.guest, folder)]
        return [f"/sys/bus/{bus}/drivers/{name}" for bus, name in links]

    def load(self, params: str | None = None) -> None:
        """Load the module, with its project's parameters unless others are given.

        Where memory is to run out it does so in a try of its own, which must leave nothing behind.
        Raises :class:`OSError` as ``init_module`` does, with the kernel's last words;
        :class:`LeftTraces`; and :class:`UnitTestsFailed` when KUnit suites of the module ran and
        failed.
        """
        for path in self._file.requires:
            try:
                self.guest.load(path)
            except OSError as error:
                if error.errno != errno.EEXIST:
                    raise
        if not self._file.path:
            self.loaded = True
            return
        suites = self._suites()
        self._params = self._file.params if params is None else params
        self._load()
        if shortage := self._shortage(loads=True):
            self._unload(hasty=True)
            self._suffer(shortage)
            self._load()
        for suite in sorted(self._suites() - suites):
            judge_unit_tests(self.guest, suite)

    def unload(self, again: Callable[[], None] = lambda: None) -> None:
        """Unload the module and see that nothing of it is left.

        ``again`` does once more, with the driver loaded anew, what may have lost memory. Raises
        :class:`LeftTraces`, naming everything that is left.
        """
        if not self._file.path:
            self.loaded = False
            return
        left = self._unload(hasty=True)
        if _leaked(left):
            # What the kernel allocates once, on behalf of the first driver that comes along, is
            # no leak. What is left again by a second round is.
            self._load()
            again()
            left = self._unload()
        self._judge(left, "was unloaded")

    def _judge(self, left: tuple[str, ...], what: str) -> None:
        if left:
            raise LeftTraces(
                f"driver {self.name} {what} and left behind: {left[0]}",
                detail=left[1:],
                expected="interrupts, regions, nodes and memory as before it was loaded",
            )

    def _load(self) -> None:
        self._inventory = Inventory.take(self.guest, self._known)
        with self._scarcity.counting(self.guest) if self._scarcity else nullcontext():
            self.guest.load(self._file.path, self._params)
        self.loaded = True
        self._code = code_of(self.guest, self.name, self._file.code)

    def _shortage(self, *, loads: bool = False) -> Shortage | None:
        """The shortage of memory that is to strike now, if any."""
        scarcity = self._scarcity
        return scarcity.draw(FaultKind.PROBE_FAIL_NTH, loads=loads) if scarcity else None

    def _suffer(self, shortage: Shortage) -> None:
        """Load while memory runs out, and see that nothing is left."""
        left = self._try(shortage, hasty=True)
        if _leaked(left):
            left = self._try(shortage)
        self._judge(left, f"found no memory (allocation {shortage.nth} while it was loaded)")

    def _try(self, shortage: Shortage, *, hasty: bool = False) -> tuple[str, ...]:
        """Load while memory runs out, and unload; what is left then."""
        self._inventory = Inventory.take(self.guest, self._known)
        self._code = None
        try:
            with shortage.on(self.guest):
                self.guest.load(self._file.path, self._params)
        except OSError:
            if not shortage.happened:
                raise
            return self._inventory.left_behind(None, hasty=hasty)
        self.loaded = True
        self._code = code_of(self.guest, self.name, self._file.code)
        return self._unload(hasty=hasty)

    def _unload(self, *, hasty: bool = False) -> tuple[str, ...]:
        assert self._inventory is not None
        self.guest.unload(self.name)
        self.loaded = False
        left = self._inventory.left_behind(self._code, hasty=hasty)
        if left:
            self._inventory.remember()
        return left

    def bind(self, device: str) -> None:
        """Bind a device by its name on the driver's bus; as in :meth:`load` memory may run out."""
        place = f"{self._only_bus_driver()}/bind"
        if shortage := self._shortage():
            try:
                with shortage.on(self.guest):
                    self.guest.write_text(place, device)
            except OSError:
                if not shortage.happened:
                    raise
            else:
                if not shortage.happened:
                    return
                self.unbind(device)
        self.guest.write_text(place, device)

    def unbind(self, device: str) -> None:
        """Unbind a device by its name on the driver's bus."""
        self.guest.write_text(f"{self._only_bus_driver()}/unbind", device)

    def _only_bus_driver(self) -> str:
        places = self.bus_drivers
        if len(places) != 1:
            raise LookupError(f"{self.name} has {len(places)} bus drivers: {places}")
        return places[0]

    def _bound(self, driver: str) -> list[str]:
        special = {"bind", "unbind", "new_id", "remove_id", "module", "uevent"}
        entries = (entry for entry in list_small(self.guest, driver) if entry not in special)
        return [entry for entry in entries if self.guest.exists(f"{driver}/{entry}/uevent")]

    def _suites(self) -> set[str]:
        return set(list_small(self.guest, KUNIT))


def _leaked(left: tuple[str, ...]) -> bool:
    """Whether memory was left, and nothing else."""
    return bool(left) and all(finding.startswith(LEAKED) for finding in left)


def judge_unit_tests(guest: Guest, suite: str) -> None:
    """Read a KUnit suite's results. Raises :class:`UnitTestsFailed` when any failed."""
    results = parse(guest.read_text(f"{KUNIT}/{suite}/results").splitlines())
    bad = [leaf for leaf in results.flatten() if leaf.outcome.bad]
    if bad or not results.passed:
        first = f": {len(bad)} failed, first {'/'.join(bad[0].path)}" if bad else " has no results"
        raise UnitTestsFailed(
            f"KUnit suite {suite}{first}",
            detail=[*results.problems, *(bad[0].detail.splitlines() if bad else ())],
        )
