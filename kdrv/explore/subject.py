"""What is explored, made ready: the driver built and staged for one or both kernels."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from kdrv.build.module import module_place
from kdrv.core.context import Context
from kdrv.core.errors import UsageError, WorkFailed
from kdrv.core.events import Level
from kdrv.core.project import Project
from kdrv.explore.bench import Bench
from kdrv.explore.declare import Menu, Operation, declares, load_menu
from kdrv.explore.execute import Stand
from kdrv.explore.history import History
from kdrv.explore.plan import Plan
from kdrv.explore.properties import known, violations
from kdrv.explore.shown import Lookout, Shown, mined, operations
from kdrv.sim.alive import standing
from kdrv.sim.faults import CALM
from kdrv.sim.machine import SimMachine
from kdrv.testing.driver import Driver
from kdrv.testing.prepare import Preparation, Prepared, TestRequest, prepare_project
from kdrv.toolchain.base import MODULE, Toolchain

PARTING_REQUESTS = 16
"""So many ioctls are tried on a file whose device is gone; it is done in every run."""
HUNG = "sysctl.kernel.hung_task_timeout_secs=100"
"""A call that does not come back is told by its deadline; the kernel would say it once more."""


@dataclass(frozen=True)
class Subject:
    """A driver, ready to be run again and again; can be handed to other processes.

    ``files`` declare the user's operations. ``modules`` are the driver's own .ko files, by kind of
    kernel; ``sources`` is where they are built from, ``below`` the same directory in their debug
    information, ``tree`` the kernel's source. ``identity`` tells drivers and kernels apart.
    ``rivals`` are for the twin, if the driver is to be compared with one.
    """

    project: Project
    stands: dict[bool, Stand]
    modules: dict[bool, Path]
    files: tuple[Path, ...]
    identity: Identity
    toolchain: Toolchain
    rivals: dict[bool, Stand] = field(default_factory=dict)
    sources: Path | None = None
    below: str = MODULE
    tree: Path | None = None

    def bench(self, ctx: Context, shown: Shown) -> Bench:
        """A bench to run plans on, given what the driver shows."""
        return Bench(
            ctx,
            self.toolchain,
            _bound(self.stands, shown.bindings, shown),
            self.menu(shown),
            _bound(self.rivals, shown.rival_bindings, shown),
        )

    def menu(self, shown: Shown) -> Menu:
        """The user's operations and what belongs to every driver; without any, all that shows."""
        own = load_menu(self.files)
        found = operations(shown)
        if own.operations:
            found = [one for one in found if one.name in LIFE]
        by_name: dict[str, Operation] = {one.name: one for one in found}
        without = known(self.project.explore.without)
        return Menu({**by_name, **own.operations}, own.properties, without)

    def reconnoitre(self, ctx: Context) -> Shown:
        """Load the driver once, calmly, and see what it shows.

        On the checked kernel, see too that what watches it there is alive: it can die silently.
        Raises :class:`WorkFailed` when the driver cannot be loaded.
        """
        if True in self.stands:
            self._see_that_detectors_live(ctx)
        shown = self._look(ctx, rival=False)
        if self.rivals:
            shown = replace(shown, rival_bindings=self._look(ctx, rival=True).bindings)
        return shown

    def _see_that_detectors_live(self, ctx: Context) -> None:
        def look(machine: SimMachine, driver: Driver) -> None:
            for sign in standing(driver.guest):
                if not sign.alive:
                    ctx.events.note(f"on the checked kernel, {sign}", Level.WARNING)

        bench = Bench(ctx, self.toolchain, self.stands, Menu({}, {}))
        bench.run(Plan((), CALM, checked=True), look)

    def _look(self, ctx: Context, *, rival: bool) -> Shown:
        checked = min(self.stands)
        lookout = Lookout()
        seen: list[Shown] = []
        requests = mined(self.modules[checked]) if checked in self.modules else ()

        def look(machine: SimMachine, driver: Driver) -> None:
            seen.append(lookout.after(driver.guest, driver, requests))

        bench = Bench(ctx, self.toolchain, self.stands, Menu({}, {}), self.rivals)
        history = bench.run(Plan((), CALM, checked), look, lookout.before, rival=rival)
        if not seen:
            stand = (self.rivals if rival else self.stands)[checked]
            raise WorkFailed(
                f"driver {stand.driver.module} cannot be loaded in the simulator: {_why(history)}",
                detail=[line.text for line in history.console[-12:]],
                expected="a driver that loads while nothing is wrong",
                reproducer=shlex.join(("kdrv", "test", "--sim", str(self.project.root))),
            )
        return seen[0]


LIFE = frozenset(
    {
        *("unbind", "bind", "unload_and_load"),
        # A file that is held open while the driver comes and goes.
        *("open_file", "close_file", "read_file", "control_file"),
    }
)
"""What is done to every driver, whatever operations its own files declare."""


@dataclass(frozen=True)
class Identity:
    """Which driver and which kernel: digests and names, to be kept with a bug."""

    driver: str
    module: str
    kernel: str
    config: str

    def words(self) -> str:
        """In a line."""
        return f"{self.module} {self.driver}, Linux {self.kernel} ({self.config})"


def prepare(
    ctx: Context,
    request: TestRequest,
    scratch: Path,
    *,
    kinds: Sequence[bool] = (False, True),
    files: Sequence[Path] = (),
    ready: Preparation = prepare_project,
) -> Subject:
    """Build and stage the driver for the plain kernel (False) and the checked one (True).

    Raises :class:`WorkFailed` when something does not build.
    """
    project = request.project
    if project is None:
        raise UsageError(
            "there is no driver to explore",
            expected="a directory with a kdrv.toml, here or above",
            remedy="kdrv new NAME",
        )
    known(project.explore.without)
    stands: dict[bool, Stand] = {}
    rivals: dict[bool, Stand] = {}
    modules: dict[bool, Path] = {}
    last: Prepared | None = None
    for checked in kinds:
        place = scratch / ("checked" if checked else "plain")
        place.mkdir(exist_ok=True)
        one = replace(request, debug=checked, instrument=True)
        last = ready(ctx, one, place)
        assert last.driver
        patient = replace(last.spec, cmdline=(*last.spec.cmdline, HUNG))
        stands[checked] = Stand(patient, last.driver, bound=project.test.deadline)
        if request.against and last.twin:
            rivals[checked] = replace(stands[checked], driver=last.twin)
        if last.module:
            modules[checked] = last.module
    assert last
    folder = last.build.module.directory if last.build.module else None
    return Subject(
        project,
        stands,
        modules,
        tuple(files) or operation_files(project),
        _identity(project, last, modules),
        last.bench.toolchain,
        rivals,
        folder,
        module_place(folder, last.bench.tree) if folder else MODULE,
        last.bench.tree.path,
    )


def _bound(
    stands: dict[bool, Stand], bindings: tuple[tuple[str, str], ...], shown: Shown
) -> dict[bool, Stand]:
    return {
        checked: replace(
            stand,
            bindings=bindings,
            nodes=shown.opens,
            requests=shown.requests[:PARTING_REQUESTS],
            subsystems=shown.subsystems,
        )
        for checked, stand in stands.items()
    }


def operation_files(project: Project) -> tuple[Path, ...]:
    """The Python files of a project's tests that declare operations."""
    found = []
    for folder in project.test.paths:
        place = project.root / folder
        paths = sorted(place.glob("*.py")) if place.is_dir() else [place]
        found += [p for p in paths if p.suffix == ".py" and p.is_file() and declares(p)]
    return tuple(found)


def _identity(project: Project, prepared: Prepared, modules: dict[bool, Path]) -> Identity:
    data = b"".join(path.read_bytes() for _, path in sorted(modules.items()))
    image = prepared.spec.kernel
    config = (image.build / ".config").read_bytes()
    return Identity(
        hashlib.sha256(data).hexdigest()[:16],
        project.driver.module,
        image.release,
        hashlib.sha256(config).hexdigest()[:16],
    )


def _why(history: History) -> str:
    found = violations(history)
    if found:
        return found[0].words
    failed = [moment for moment in history.moments if moment.errno]
    return failed[0].errno if failed else history.ended or "no reason was given"
