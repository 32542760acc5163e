"""Runs a plan: a fresh kernel, the driver, the steps, then the reckoning."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from kdrv.core.errors import DeadlineExceeded, WorkFailed
from kdrv.devices.errors import DeviceFault
from kdrv.explore.acts import remove_items
from kdrv.explore.coverage import offsets
from kdrv.explore.declare import Call, Menu
from kdrv.explore.history import PROBING, History, Line, Moment, Outcome, Unrest
from kdrv.explore.plan import Plan, Step
from kdrv.explore.stage import Stage
from kdrv.explore.values import assertion, plain, simplest
from kdrv.guest.errors import GuestCallDied, GuestGone, GuestSilent
from kdrv.guest.files import GuestFile
from kdrv.guest.session import Guest, Session
from kdrv.machine.contract import BootSpec, MachineEnded
from kdrv.machine.reports import Report, judge, parse_kmemleak
from kdrv.sim import dmamap, removal
from kdrv.sim.excuses import STARVED
from kdrv.sim.faults import FaultKind
from kdrv.sim.kcov import Recorder
from kdrv.sim.machine import SimMachine
from kdrv.sim.shortage import Scarcity, Shortage
from kdrv.testing.driver import Driver, DriverFile, LeftTraces
from kdrv.testing.scripts import KMEMLEAK, KMEMLEAK_AGE

BOOT_SECONDS = 60.0
BOUND_SECONDS = 30.0
"""How much virtual time one call into the driver may take."""
SETTLE_SECONDS = 15.0
"""How long a device may need to be itself again once nothing goes wrong any more."""
RETRY_SECONDS = 1.0
SERVE_TRIES = 3
LEAK_PLANS = 4
"""One seed in so many has kmemleak on the checked kernel."""
PARTING = -1
"""The slot of the file that is open while its device goes."""
NO_REQUEST = 0x5401
"""An ioctl request (TCGETS) that drivers of devices do not know."""


@dataclass(frozen=True)
class Stand:
    """A kernel with the driver staged, ready to boot again and again.

    ``bindings`` are as in :class:`~kdrv.explore.declare.Call`; ``nodes`` can be opened,
    ``subsystems`` are directories of configfs.
    """

    spec: BootSpec
    driver: DriverFile
    bound: float = BOUND_SECONDS
    bindings: tuple[tuple[str, str], ...] = ()
    nodes: tuple[str, ...] = ()
    subsystems: tuple[str, ...] = ()


class Run:
    """A plan being carried out in a machine."""

    def __init__(self, machine: SimMachine, stand: Stand, menu: Menu, plan: Plan) -> None:
        self._machine = machine
        self._scarcity = Scarcity(machine)
        self._stand = stand
        self._menu = menu
        self._plan = plan
        self._moments: list[Moment] = []
        self._baseline: tuple[str, ...] = ()
        self._leaks: tuple[Report, ...] = ()
        self._left: tuple[str, ...] = ()
        self._covered: frozenset[int] = frozenset()
        self._loaded = False
        self._maps = False
        self._stray: tuple[str, ...] = ()
        self._unrest: list[Unrest] = []
        self._unanswered: tuple[str, ...] = ()
        self._serves: bool | None = None
        self._fault: tuple[str, str, tuple[str, ...]] | None = None
        self._ended = ""
        self._count = 0
        self._recorders: list[Recorder] = []
        self._memory: dict[str, Any] = {}
        self._files: dict[int, GuestFile] = {}
        self._suffered: list[tuple[Shortage, Step]] = []

    def live(
        self,
        look: Callable[[SimMachine, Driver], None] | None,
        before: Callable[[Guest], None] | None,
    ) -> None:
        """From boot to the reckoning, as far as the machine lives."""
        try:
            self._live(look, before)
        except DeviceFault as fault:
            self._fault = (fault.message, fault.blame.value, tuple(fault.detail))
        except (GuestGone, MachineEnded) as gone:
            self._ended = str(gone)
        except (GuestSilent, GuestCallDied, DeadlineExceeded) as error:
            self._ended = self._ended or str(error)

    def _live(
        self,
        look: Callable[[SimMachine, Driver], None] | None,
        before: Callable[[Guest], None] | None,
    ) -> None:
        machine = self._machine
        guest = Guest.of(machine, boot_timeout=BOOT_SECONDS, timeout=self._stand.bound)
        self._baseline = machine.console.since()
        if before:
            before(guest)
        if self._plan.checked and guest.exists(dmamap.TRACING):
            dmamap.start(guest)
            self._maps = True
        self._scarcity.prepare(guest)
        driver = Driver(guest, self._stand.driver, scarcity=self._scarcity)
        self._perform(guest, Step("load", {}), "load", driver.load)
        self._loaded = driver.loaded
        if not self._loaded:
            return
        if look:
            look(machine, driver)
        places: set[int] = set()
        with contextlib.ExitStack() as sessions:
            actors = self._actors(guest, driver, sessions)
            stage = Stage(guest.link)
            stage.play([self._actor(stage, *actor) for actor in actors])
            machine.schedule.quiesce()
            if self._hung():
                return
            self._settle(guest)
            self._serve(self._call(guest, driver))
            self._part(self._call(guest, driver))
            self._settle(guest)
            self._unanswered = tuple(
                f"{name}: {words}"
                for name, device in machine.devices.items()
                for words in device.unanswered()
            )
            for recorder in self._recorders:
                recorder.stop()
                places |= recorder.places
            self._let_go(guest)
        if driver.loaded:
            if driver.code:
                self._covered = offsets(places, driver.code)
            self._unload(guest, driver)
        self._scan(guest)
        if self._maps:
            events = dmamap.read(guest)
            if not events.lost:
                findings = dmamap.judge(events.events, machine.trace, machine.addresses)
                self._stray = tuple(str(found) for found in findings.stray)

    # --- the plan's steps

    def _actors(
        self, guest: Guest, driver: Driver, sessions: contextlib.ExitStack
    ) -> list[tuple[Call, list[Step]]]:
        by_actor: dict[int, list[Step]] = {}
        for step in self._plan.steps:
            by_actor.setdefault(step.actor, []).append(step)
        found = []
        for _, steps in sorted(by_actor.items()):
            session = sessions.enter_context(guest.session())
            recorder = Recorder(session)
            if recorder.start():
                self._recorders.append(recorder)
            found.append((self._call(session, driver), steps))
        return found

    def _call(self, session: Session, driver: Driver) -> Call:
        stand = self._stand
        return Call(
            session,
            driver,
            self._machine.devices,
            stand.driver,
            self._memory,
            self._files,
            stand.bindings,
        )

    def _actor(self, stage: Stage, call: Call, steps: list[Step]) -> Callable[[], None]:
        def act() -> None:
            for step in steps:
                if step.pause:
                    stage.pause(step.pause / 1e6)
                operation = self._menu[step.does]
                action = partial(operation.run, call, **step.arguments)
                self._perform(call.guest, step, "plan", action)
                if self._hung():
                    return

        return act

    def _perform(
        self,
        session: Session,
        step: Step,
        phase: str,
        action: Callable[[], object],
    ) -> Moment:
        """One operation and how it went. Raises what ends the run."""
        index, self._count = self._count, self._count + 1
        began = self._machine.now
        moment = Moment(
            index, step.does, step.arguments, step.actor, began, began, Outcome.OK, phase
        )
        try:
            with self._armed(session, phase, step):
                moment = replace(moment, value=plain(action()))
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, str(error.errno))
            moment = replace(moment, outcome=Outcome.ERROR, errno=name)
        except AssertionError as error:
            moment = replace(moment, outcome=Outcome.WRONG, words=assertion(error))
        except GuestSilent as silent:
            stuck = silent.inspection
            free = stuck is not None and stuck.state.startswith("S")
            where = "; ".join(stuck.stack[:4]) if stuck else "the guest hangs"
            outcome = Outcome.BLOCKED if free else Outcome.HUNG
            moment = replace(moment, outcome=outcome, words=where)
        except GuestCallDied as died:
            moment = replace(moment, outcome=Outcome.DIED, words=str(died))
        except LeftTraces as left:
            self._left = (left.message, *left.detail)
        except (DeviceFault, GuestGone, MachineEnded) as end:
            self._moments.append(
                replace(moment, outcome=Outcome.DIED, words=str(end), ended=self._machine.now)
            )
            raise
        except WorkFailed as failed:
            moment = replace(moment, outcome=Outcome.WRONG, words=failed.message)
        except Exception as error:
            # An operation that cannot make sense of what the driver gave it.
            words = f"{type(error).__name__}: {error}"
            moment = replace(moment, outcome=Outcome.WRONG, words=words)
        moment = replace(moment, ended=self._machine.now)
        self._moments.append(moment)
        # An unbinding that found nothing to unbind may have met another one under way.
        parted = moment.does == "unload" or (moment.does == "unbind" and moment.value is not None)
        if parted and moment.outcome is Outcome.OK:
            self._unrest += [
                Unrest(moment.ended, name, words)
                for name, device in self._machine.devices.items()
                for words in device.restless()
            ]
        return moment

    @contextlib.contextmanager
    def _armed(self, session: Session, phase: str, step: Step) -> Iterator[None]:
        """Let an allocation of a plan's operation fail where the schedule says so."""
        probes = step.does in PROBING
        kind = FaultKind.PROBE_FAIL_NTH if probes else FaultKind.ALLOC_FAIL_NTH
        loads = step.does == "unload_and_load"
        shortage = self._scarcity.draw(kind, loads=loads) if phase == "plan" else None
        try:
            with shortage.on(session) if shortage else contextlib.nullcontext():
                yield
        finally:
            if shortage and shortage.happened and probes:
                self._suffered.append((shortage, step))

    def _hung(self) -> bool:
        """Whether a call did not come back: what follows would wait as long, and tell no more."""
        return any(m.outcome in (Outcome.HUNG, Outcome.BLOCKED) for m in self._moments)

    # --- the reckoning

    def _settle(self, guest: Guest) -> None:
        """Give what is still on its way, in this plan's own time, time to arrive."""
        faults = self._plan.faults
        guest.sleep(SETTLE_SECONDS * max(1.0, faults.pace) * (1 + faults.jitter))

    def _serve(self, call: Call) -> None:
        """After faults have stopped, the device must be bound, or bind, and serve again."""
        if self._machine.pulled:
            step = Step("remove", {})
            gone = partial(removal.announce, self._machine, call.guest)
            self._perform(call.guest, step, "serve", gone)
        file = self._stand.driver
        if file.path and file.module not in {module.name for module in call.guest.modules()}:
            # A step has unloaded it and failed to load it again.
            load = partial(call.guest.load, file.path, file.params)
            self._perform(call.guest, Step("load", {}), "serve", load)
        if self._machine.pulled:
            return
        if rebind := self._menu.operations.get("bind"):
            self._insist(call, "bind", {}, partial(rebind.run, call))
        for operation in self._menu.operations.values():
            if operation.serves and not self._hung():
                arguments = simplest(operation.name, self._menu)
                action = partial(operation.run, call, **arguments)
                moment = self._insist(call, operation.name, arguments, action)
                self._serves = moment.outcome is Outcome.OK and self._serves is not False

    def _insist(
        self, call: Call, name: str, arguments: dict[str, Any], action: Callable[[], object]
    ) -> Moment:
        """An operation of the serve phase, tried again while it fails; the last try."""
        for _ in range(SERVE_TRIES):
            moment = self._perform(call.guest, Step(name, arguments), "serve", action)
            if moment.outcome is Outcome.OK or self._hung():
                break
            call.guest.sleep(RETRY_SECONDS)
        return moment

    def _part(self, call: Call) -> None:
        """Take the device away while a file is open, use that file, and give the device back."""
        menu = self._menu.operations
        if self._machine.pulled or self._hung() or not {"open_file", "unbind"} <= menu.keys():
            return
        for path in self._stand.nodes if self._stand.bindings else ():
            for name, arguments in (
                ("open_file", {"path": path, "flags": os.O_RDWR, "slot": PARTING}),
                ("unbind", {}),
                ("read_file", {"slot": PARTING, "size": 16}),
                ("control_file", {"slot": PARTING, "request": NO_REQUEST, "content": b""}),
                ("bind", {}),
                ("read_file", {"slot": PARTING, "size": 16}),
                ("close_file", {"slot": PARTING}),
            ):
                action = partial(menu[name].run, call, **arguments)
                step = Step(name, arguments)
                self._perform(call.guest, step, "part", action)
                if self._hung():
                    return

    def _let_go(self, guest: Guest) -> None:
        """Close and remove what the plan has left and what keeps the driver in use."""
        for slot in sorted(self._files):
            with contextlib.suppress(OSError):
                guest.begin.close(self._files[slot]).result()
        self._files.clear()
        for place in self._stand.subsystems:
            with contextlib.suppress(OSError):
                remove_items(guest, place)

    def _unload(self, guest: Guest, driver: Driver) -> None:
        suffer = partial(self._suffer_again, self._call(guest, driver))
        self._perform(guest, Step("unload", {}), "unload", lambda: driver.unload(suffer))

    def _suffer_again(self, call: Call) -> None:
        """Have every probe that failed for want of memory fail once more, alike.

        What is lost again then is lost each time; what the kernel keeps for ever is kept once.
        """
        menu = self._menu.operations
        for shortage, step in self._suffered:
            with contextlib.suppress(OSError):
                if step.does == "bind" and "unbind" in menu:
                    menu["unbind"].run(call, **step.arguments)
            with contextlib.suppress(OSError), shortage.on(call.guest):
                menu[step.does].run(call, **step.arguments)

    def _scan(self, guest: Guest) -> None:
        """What kmemleak finds, where there is one; two scans must agree."""
        if not scans(self._plan) or not guest.exists(KMEMLEAK):
            return
        guest.sleep(KMEMLEAK_AGE)
        try:
            for _ in range(2):
                guest.write_text(KMEMLEAK, "scan")
        except PermissionError:
            return  # it has switched itself off, for want of memory
        self._leaks = parse_kmemleak(guest.read_text(KMEMLEAK))

    def history(self) -> History:
        """All of it, as data."""
        machine = self._machine
        machine.watch()
        lines = machine.console.since()
        times = [*machine.line_times, *[machine.now] * len(lines)][: len(lines)]
        return History(
            moments=tuple(self._moments),
            trace=tuple(machine.trace),
            console=tuple(Line(at, text) for at, text in zip(times, lines, strict=True)),
            reports=(*judge(lines[len(self._baseline) :], self._baseline), *self._leaks),
            fired=tuple(machine.schedule.fired),
            silent=tuple(machine.schedule.silent()),
            left=self._left,
            stray=self._stray,
            unrest=tuple(self._unrest),
            unanswered=self._unanswered,
            telling=frozenset(k for d in machine.devices.values() for k in d.telling),
            prompt=self._plan.faults.pace <= 1 and self._plan.faults.jitter < 1,
            hash=machine.history(),
            seconds=machine.clock(),
            loaded=self._loaded,
            ended=self._ended,
            fault=self._fault,
            serves=self._serves,
            covered=self._covered,
            states={name: plain(dict(d.state())) for name, d in machine.devices.items()},
        )


def scans(plan: Plan) -> bool:
    """Whether kmemleak is on: it doubles the time of a run, so only where leaks are likely."""
    starved = any(rule.kind in STARVED for rule in plan.faults.rules)
    return plan.checked and (starved or plan.seed % LEAK_PLANS == 0)
