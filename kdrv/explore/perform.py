"""One operation of a run after the other: what it gave, how it ended, what it left in unrest."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from dataclasses import replace

from kdrv.core.errors import SetupError, WorkFailed
from kdrv.devices.errors import DeviceFault
from kdrv.explore.history import PROBING, Entry, Moment, Outcome, Unrest
from kdrv.explore.plan import Step
from kdrv.explore.values import assertion, plain, waiting
from kdrv.guest.errors import GuestCallDied, GuestGone, GuestSilent
from kdrv.guest.session import Session
from kdrv.machine.contract import MachineEnded
from kdrv.sim.faults import FaultKind
from kdrv.sim.machine import SimMachine
from kdrv.sim.shortage import Scarcity, Shortage
from kdrv.testing.driver import LeftTraces


class Performance:
    """What was done so far. ``suffered`` are the probes for which an allocation failed,
    ``left`` is what a driver that was unloaded left behind.
    """

    def __init__(self, machine: SimMachine, scarcity: Scarcity) -> None:
        self.moments: list[Moment] = []
        self.unrest: list[Unrest] = []
        self.suffered: list[tuple[Shortage, Step]] = []
        self.left: tuple[str, ...] = ()
        self._machine = machine
        self._scarcity = scarcity
        self._count = 0

    def perform(
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
        log = session.begin.log = []
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
            where = waiting(stuck.stack) if stuck else "(the guest hangs)"
            outcome = Outcome.BLOCKED if free else Outcome.HUNG
            moment = replace(moment, outcome=outcome, words=where)
        except GuestCallDied as died:
            moment = replace(moment, outcome=Outcome.DIED, words=str(died))
        except LeftTraces as left:
            self.left = (left.message, *left.detail)
        except (DeviceFault, GuestGone, MachineEnded) as end:
            self.moments.append(
                replace(moment, outcome=Outcome.DIED, words=str(end), ended=self._machine.now)
            )
            raise
        except WorkFailed as failed:
            moment = replace(moment, outcome=Outcome.WRONG, words=failed.message)
        except SetupError:
            raise
        except Exception as error:
            # An operation that cannot make sense of what the driver gave it.
            words = f"{type(error).__name__}: {error}"
            moment = replace(moment, outcome=Outcome.WRONG, words=words)
        came = (Entry(one.what, _ns(one.sent), _ns(one.came)) for one in log if one.came)
        session.begin.log = None
        moment = replace(moment, ended=self._machine.now, entries=tuple(came))
        self.moments.append(moment)
        # An unbinding that found nothing to unbind may have met another one under way.
        parted = moment.does == "unload" or (moment.does == "unbind" and moment.value is not None)
        if parted and moment.outcome is Outcome.OK:
            self.unrest += [
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
                self.suffered.append((shortage, step))

    def hung(self) -> bool:
        """Whether a call did not come back: what follows would wait as long, and tell no more."""
        return any(m.outcome in (Outcome.HUNG, Outcome.BLOCKED) for m in self.moments)


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
