"""Runs a plan: a fresh kernel, the driver, the steps, then the reckoning."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from kdrv.core.errors import DeadlineExceeded
from kdrv.devices.errors import DeviceFault
from kdrv.explore.acts import Usage, parting, remove_items
from kdrv.explore.coverage import offsets
from kdrv.explore.declare import Call, Menu
from kdrv.explore.edges import at_the_edge
from kdrv.explore.history import EDGE, History, Line, Moment, Outcome
from kdrv.explore.perform import Performance
from kdrv.explore.plan import Plan, Step
from kdrv.explore.stage import Stage
from kdrv.explore.values import plain
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
from kdrv.sim.shortage import GUEST_DEVICE, Scarcity
from kdrv.testing.driver import Driver, DriverFile
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
HALVES = 12
"""How often the time after which a signal comes may be halved."""
MOST_REQUESTS = 24
"""So many ioctl requests are tried in every run beside the plan's own."""
EDGE_PLANS = 4
"""After one seed in so many the driver is given memory that ends too early."""


@dataclass(frozen=True)
class Stand:
    """A kernel with the driver staged, ready to boot again and again.

    ``bound`` is how long a call may take, in virtual seconds, for each of those that may stand
    before it. ``bindings`` are as in :class:`~kdrv.explore.declare.Call`; ``nodes`` can be opened,
    ``requests`` are ioctl numbers, ``subsystems`` directories of configfs.
    """

    spec: BootSpec
    driver: DriverFile
    bound: float = BOUND_SECONDS
    bindings: tuple[tuple[str, str], ...] = ()
    nodes: tuple[str, ...] = ()
    requests: tuple[int, ...] = ()
    subsystems: tuple[str, ...] = ()


class Run:
    """A plan being carried out in a machine."""

    def __init__(self, machine: SimMachine, stand: Stand, menu: Menu, plan: Plan) -> None:
        self._machine = machine
        self._scarcity = Scarcity(machine)
        self._done = Performance(machine, self._scarcity)
        self._stand = stand
        self._menu = menu
        self._plan = plan
        self._baseline: tuple[str, ...] = ()
        self._leaks: tuple[Report, ...] = ()
        self._covered: frozenset[int] = frozenset()
        self._loaded = False
        self._maps = False
        self._stray: tuple[str, ...] = ()
        self._unanswered: tuple[str, ...] = ()
        self._serves: bool | None = None
        self._fault: tuple[str, str, tuple[str, ...]] | None = None
        self._ended = ""
        self._recorders: list[Recorder] = []
        self._memory: dict[str, Any] = {}
        self._files: dict[int, GuestFile] = {}

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
        # Whoever comes last waits until all before it have given up.
        bound = self._stand.bound * max(1, len({step.actor for step in self._plan.steps}))
        guest = Guest.of(machine, boot_timeout=BOOT_SECONDS, timeout=bound)
        self._baseline = machine.console.since()
        if before:
            before(guest)
        if self._plan.checked and guest.exists(dmamap.TRACING):
            dmamap.start(guest)
            self._maps = True
        self._scarcity.prepare(guest)
        driver = Driver(guest, self._stand.driver, scarcity=self._scarcity)
        self._done.perform(guest, Step("load", {}), "load", driver.load)
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
            if self._done.hung():
                return
            self._settle(guest)
            self._serve(self._call(guest, driver))
            self._settle(guest)
            # Now, and after the parting: a probe may acknowledge what stood there.
            self._unanswered = self._causes()
            calm, requests = self._call(guest, driver), self._requests(guest, actors)
            if self._plan.seed % EDGE_PLANS == 0:
                self._use(calm, EDGE, partial(at_the_edge, requests=requests))
            if self._stand.bindings:
                self._use(calm, "part", partial(parting, requests=requests))
            self._settle(guest)
            self._unanswered = self._unanswered or self._causes()
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
                with self._signalled(stage, call.guest):
                    self._done.perform(call.guest, step, "plan", action)
                if self._done.hung():
                    return

        return act

    @contextlib.contextmanager
    def _signalled(self, stage: Stage, session: Session) -> Iterator[None]:
        """Have a signal come while an operation is under way, where the schedule says so."""
        schedule = self._machine.schedule
        drawn = schedule.draw(FaultKind.SIGNAL, GUEST_DEVICE, self._machine.now)
        if drawn is None:
            yield
            return

        def ring() -> None:
            self._machine.trace.note(self._machine.now, GUEST_DEVICE, "fault signal", {})
            session.begin.signal()

        with stage.alarm((drawn.lasts >> drawn.dice.randrange(HALVES)) / 1e9, ring) as alarm:
            yield
        if not alarm.rang:
            schedule.take_back(drawn)

    # --- the reckoning

    def _settle(self, guest: Guest) -> None:
        """Give what is still on its way, in this plan's own time, time to arrive."""
        faults, busy = self._plan.faults, self._machine.schedule.busy_until - self._machine.now
        usual = SETTLE_SECONDS * max(1.0, faults.pace) * (1 + faults.jitter)
        guest.sleep(usual + max(0, busy) / 1e9)

    def _causes(self) -> tuple[str, ...]:
        """Interrupts that devices raised and that nobody has acknowledged."""
        return tuple(
            f"{name}: {words}"
            for name, device in self._machine.devices.items()
            for words in device.unanswered()
        )

    def _serve(self, call: Call) -> None:
        """After faults have stopped, the device must be bound, or bind, and serve again."""
        if self._machine.pulled:
            step = Step("remove", {})
            gone = partial(removal.announce, self._machine, call.guest)
            self._done.perform(call.guest, step, "serve", gone)
        if self._lacking(call.guest):
            # A step has unloaded it and failed to load it again.
            file = self._stand.driver
            load = partial(call.guest.load, file.path, file.params)
            self._done.perform(call.guest, Step("load", {}), "serve", load)
        if self._machine.pulled:
            return
        if rebind := self._menu.operations.get("bind"):
            self._insist(call, "bind", {}, partial(rebind.run, call))
        for operation in self._menu.operations.values():
            if operation.serves and not self._done.hung():
                arguments = operation.simplest
                action = partial(operation.run, call, **arguments)
                moment = self._insist(call, operation.name, arguments, action)
                self._serves = moment.outcome is Outcome.OK and self._serves is not False

    def _lacking(self, guest: Session) -> bool:
        """Whether the module is not loaded."""
        file = self._stand.driver
        return bool(file.path) and file.module not in {module.name for module in guest.modules()}

    def _insist(
        self, call: Call, name: str, arguments: dict[str, Any], action: Callable[[], object]
    ) -> Moment:
        """An operation of the serve phase, tried again while it fails; the last try."""
        for _ in range(SERVE_TRIES):
            moment = self._done.perform(call.guest, Step(name, arguments), "serve", action)
            if moment.outcome is Outcome.OK or self._done.hung():
                break
            call.guest.sleep(RETRY_SECONDS)
        return moment

    def _requests(self, guest: Guest, actors: Iterable[tuple[Call, object]]) -> dict[int, bytes]:
        """The ioctl requests that are known, and those that were made, with what was given."""
        found = dict.fromkeys(self._stand.requests, b"")
        for session in (*(call.guest for call, _ in actors), guest):
            found |= session.begin.requests
        return dict(islice(found.items(), MOST_REQUESTS))

    def _use(self, call: Call, phase: str, usage: Callable[[str], Usage]) -> None:
        """Use every node of the driver in the same way."""
        if self._machine.pulled or self._done.hung():
            return
        for path in self._stand.nodes:
            for act, arguments in usage(path):
                step = Step(act.__name__, arguments)
                moment = self._done.perform(
                    call.guest, step, phase, partial(act, call, **arguments)
                )
                if moment.outcome is Outcome.DIED or self._done.hung():
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
        self._done.perform(guest, Step("unload", {}), "unload", lambda: driver.unload(suffer))

    def _suffer_again(self, call: Call) -> None:
        """Have every probe that failed for want of memory fail once more, alike.

        What is lost again then is lost each time; what the kernel keeps for ever is kept once.
        """
        menu = self._menu.operations
        for shortage, step in self._done.suffered:
            with contextlib.suppress(OSError):
                if step.does == "bind" and "unbind" in menu:
                    menu["unbind"].run(call, **step.arguments)
            with contextlib.suppress(OSError), shortage.on(call.guest):
                menu[step.does].run(call, **step.arguments)
            if self._lacking(call.guest):
                # Its loading was what failed.
                call.guest.load(self._stand.driver.path, self._stand.driver.params)

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
            moments=tuple(self._done.moments),
            trace=tuple(machine.trace),
            console=tuple(Line(at, text) for at, text in zip(times, lines, strict=True)),
            reports=(*judge(lines[len(self._baseline) :], self._baseline), *self._leaks),
            fired=tuple(machine.schedule.fired),
            silent=tuple(machine.schedule.silent()),
            left=self._done.left,
            stray=self._stray,
            unrest=tuple(self._done.unrest),
            unanswered=self._unanswered,
            telling=frozenset(k for d in machine.devices.values() for k in d.telling),
            serving=frozenset(one.name for one in self._menu.operations.values() if one.serves),
            prompt=self._plan.faults.pace <= 1 and self._plan.faults.jitter < 1,
            hash=machine.history(),
            lasted=machine.now,
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
