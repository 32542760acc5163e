"""One test run's machine and driver: what the plugin's fixtures stand on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path

from kdrv.core.context import Context
from kdrv.core.errors import UsageError
from kdrv.guest.session import TIMEOUT
from kdrv.machine.contract import Machine, World
from kdrv.sim.machine import SimMachine
from kdrv.sim.shortage import Scarcity
from kdrv.testing.driver import Driver
from kdrv.testing.prepare import Preparation, Prepared, TestRequest, prepare_project
from kdrv.testing.room import BOOT_DEADLINE, Room
from kdrv.testing.traces import Places
from kdrv.testing.worlds import Simulated, excused, make_world, told

DEBUG_FACTOR = 4.0
"""How much longer a debug kernel may take for everything."""


class Hall:
    """The :class:`Room` and the driver of a prepared run."""

    def __init__(self, prepared: Prepared, world: World) -> None:
        self.prepared = prepared
        request = prepared.request
        slower = DEBUG_FACTOR if request.debug else 1.0
        self.room = Room(
            world,
            prepared.spec,
            deadline=BOOT_DEADLINE * slower,
            patience=(request.project.test.deadline if request.project else TIMEOUT) * slower,
            reproducer=request.command(),
            on_end=self._keep,
            excused=excused,
        )
        self.simulated: list[Simulated] = []
        """What every simulated machine has told."""
        self._known: Places = Counter()
        self._scarcity: Scarcity | None = None
        self._boots = 0

    @contextmanager
    def driver(self, params: str | None = None) -> Iterator[Driver]:
        """The driver, loaded for the length of the block, then unloaded and checked."""
        if self.prepared.driver is None:
            raise UsageError(
                "there is no driver under test",
                expected="a project with a kdrv.toml",
                remedy="kdrv new NAME",
            )
        scarcity = self._arrive()
        driver = Driver(
            # A guest of its own: what looks after the driver suffers no faults of the test's.
            copy(self.room.guest),
            self.prepared.driver,
            self._known,
            scarcity=scarcity,
        )
        with self.room.watched():
            driver.load(params)
        boots = self.room.boots
        try:
            yield driver
        finally:
            # After a crash the machine is gone and with it the driver.
            if driver.loaded and self.room.running and self.room.boots == boots:
                with self.room.watched():
                    driver.unload()

    @contextmanager
    def scarce(self) -> Iterator[None]:
        """Let memory run out in calls into the guest, where the profile says so."""
        scarcity = self._arrive() if self.room.running else None
        if scarcity is None:
            yield
            return
        with scarcity.over(self.room.guest):
            yield

    def _arrive(self) -> Scarcity | None:
        """Get to know a machine that is new; how its memory runs out if it is simulated."""
        guest, machine = self.room.guest, self.room.machine
        if self._boots != self.room.boots:
            self._boots, self._known = self.room.boots, Counter()
            self._scarcity = Scarcity(machine) if isinstance(machine, SimMachine) else None
            if self._scarcity:
                self._scarcity.prepare(guest)
        return self._scarcity

    def _keep(self, machine: Machine) -> None:
        if facts := told(machine, self.prepared.request):
            self.simulated.append(facts)

    def last_console(self) -> tuple[str, ...]:
        """The console of the present machine, or of the last one if it was given up."""
        return self.room.console()


@contextmanager
def open_hall(
    ctx: Context,
    request: TestRequest,
    scratch: Path,
    prepare: Preparation = prepare_project,
) -> Iterator[Hall]:
    """Make the project ready, and end its machines afterwards."""
    prepared = prepare(ctx, request, scratch)
    world = make_world(ctx, request, prepared.bench)
    world.check(prepared.spec)
    hall = Hall(prepared, world)
    try:
        yield hall
    finally:
        hall.room.discard()
