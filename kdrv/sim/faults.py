"""What devices do wrong, as data: kinds, rules, plans, and the seeded schedule of one run.

A plan is a seed and rules. Every rule draws from a stream of its own, named by the seed, the rule's
kind and the device: taking a rule away leaves what the others do as it was. What fired is recorded
as opportunities counted from 0, so that :func:`explicit` turns a random plan into one that says
exactly what is to happen, and that can be shortened piece by piece.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from kdrv.core.errors import UsageError

ANY = "*"
MICROSECOND, MILLISECOND = 1_000, 1_000_000


class Side(StrEnum):
    """Who carries a fault out: the bus, the device's model when it asks, the guest's kernel, or
    whoever calls into it.
    """

    BUS = "bus"
    MODEL = "model"
    GUEST = "guest"
    CALLER = "caller"


class FaultKind(StrEnum):
    """The faults by name. An opportunity is what a rule's rate and numbers count."""

    IRQ_LOST = "irq_lost"
    IRQ_LATE = "irq_late"
    IRQ_DUPLICATE = "irq_duplicate"
    IRQ_SPURIOUS = "irq_spurious"
    IRQ_STORM = "irq_storm"
    REG_STUCK = "reg_stuck"
    REG_ALL_ONES = "reg_all_ones"
    REG_BITFLIP = "reg_bitflip"
    REG_TOCTOU = "reg_toctou"
    SURPRISE_REMOVE = "surprise_remove"
    DMA_CORRUPT = "dma_corrupt"
    DMA_LATE = "dma_late"
    DMA_AFTER_FREE = "dma_after_free"
    DEVICE_LATE = "device_late"
    DESC_BAD = "desc_bad"
    COMPLETION_REORDER = "completion_reorder"
    RESET_FAIL = "reset_fail"
    COMMAND_ERROR = "command_error"
    FW_ERROR = "fw_error"
    PM_FAIL = "pm_fail"
    PROBE_FAIL_NTH = "probe_fail_nth"
    ALLOC_FAIL_NTH = "alloc_fail_nth"
    SIGNAL = "signal"


@dataclass(frozen=True)
class KindFacts:
    """What is known of a kind: in words, what counts as an opportunity, and how long it lasts.

    ``lasts`` is in nanoseconds; what it means (a delay, a duration) the words say. ``detectable``
    says whether every driver can notice the fault, and so must give either the right data or an
    error: a wrong value that looks like a right one no driver can tell.
    """

    words: str
    opportunity: str
    side: Side
    lasts: int = 0
    detectable: bool = True


FACTS: Mapping[FaultKind, KindFacts] = {
    FaultKind.IRQ_LOST: KindFacts("an interrupt never arrives", "interrupt", Side.BUS),
    FaultKind.IRQ_LATE: KindFacts(
        "an interrupt arrives later by `lasts`", "interrupt", Side.BUS, 5 * MILLISECOND
    ),
    FaultKind.IRQ_DUPLICATE: KindFacts(
        "an interrupt arrives twice, the second later by `lasts`",
        "interrupt",
        Side.BUS,
        20 * MICROSECOND,
    ),
    FaultKind.IRQ_SPURIOUS: KindFacts(
        "an interrupt arrives `lasts` after an access, without a cause",
        "access to a BAR",
        Side.BUS,
        10 * MICROSECOND,
    ),
    FaultKind.IRQ_STORM: KindFacts(
        "100 interrupts arrive without a cause, `lasts` apart",
        "access to a BAR",
        Side.BUS,
        10 * MICROSECOND,
    ),
    FaultKind.REG_STUCK: KindFacts(
        "a register gives the same value for `lasts`",
        "read of a BAR",
        Side.BUS,
        5 * MILLISECOND,
        detectable=False,
    ),
    FaultKind.REG_ALL_ONES: KindFacts(
        "a read gives all ones, as after a PCI error", "read of a BAR", Side.BUS
    ),
    FaultKind.REG_BITFLIP: KindFacts(
        "a read has one bit wrong",
        "read of a BAR",
        Side.BUS,
        detectable=False,
    ),
    FaultKind.REG_TOCTOU: KindFacts(
        "a register read twice in a row gives another value the second time",
        "second read in a row",
        Side.BUS,
        detectable=False,
    ),
    FaultKind.SURPRISE_REMOVE: KindFacts(
        "the device is pulled out: all reads give all ones, nothing else comes from it",
        "access to a BAR",
        Side.BUS,
    ),
    FaultKind.DMA_CORRUPT: KindFacts(
        "data the device writes has one bit wrong",
        "DMA write of data",
        Side.BUS,
        detectable=False,
    ),
    FaultKind.DMA_LATE: KindFacts(
        "what the device writes reaches memory later by `lasts`, after its interrupt",
        "DMA write",
        Side.BUS,
        200 * MICROSECOND,
        detectable=False,
    ),
    FaultKind.DMA_AFTER_FREE: KindFacts(
        "the device writes the same once more, `lasts` later: fatal where nothing guards memory",
        "DMA write",
        Side.BUS,
        50 * MILLISECOND,
        detectable=False,
    ),
    FaultKind.DEVICE_LATE: KindFacts(
        "the device takes longer for what it does, by `lasts` or by a half, a quarter ... of it",
        "time that a device takes",
        Side.BUS,
        128_000 * MILLISECOND,
    ),
    FaultKind.DESC_BAD: KindFacts(
        "a completion has a wrong index, length or owner",
        "completion",
        Side.MODEL,
        detectable=False,
    ),
    FaultKind.COMPLETION_REORDER: KindFacts(
        "a completion comes after the next one", "completion", Side.MODEL
    ),
    FaultKind.RESET_FAIL: KindFacts("a reset has no effect", "reset", Side.MODEL),
    FaultKind.COMMAND_ERROR: KindFacts(
        "the device completes a command that it could not do, and says so", "command", Side.MODEL
    ),
    FaultKind.FW_ERROR: KindFacts(
        "the device's firmware gives a command up, and never completes it", "command", Side.MODEL
    ),
    FaultKind.PM_FAIL: KindFacts(
        "the device does not come back to D0: for `lasts` all reads give all ones",
        "look at the power state, or change to D0",
        Side.BUS,
        1000 * MILLISECOND,
    ),
    FaultKind.PROBE_FAIL_NTH: KindFacts(
        "the nth allocation while the driver binds fails", "bind", Side.GUEST
    ),
    FaultKind.ALLOC_FAIL_NTH: KindFacts(
        "the nth allocation during an operation fails", "operation", Side.GUEST
    ),
    FaultKind.SIGNAL: KindFacts(
        "in `kdrv explore` a signal comes after `lasts` or a half, a quarter ... of it",
        "operation",
        Side.CALLER,
        200 * MILLISECOND,
    ),
}


@dataclass(frozen=True)
class Rule:
    """When a fault is to happen, on which device.

    Either ``rate``, the probability at each opportunity, or ``numbers``, the opportunities
    themselves (from 0). ``start`` and ``stop`` (0: never) bound it in nanoseconds of virtual time,
    ``most`` (0: any) in number. ``lasts`` (0: the kind's own) is in nanoseconds. ``register``
    limits register faults to one by name.
    """

    kind: FaultKind
    rate: float = 0.0
    numbers: tuple[int, ...] = ()
    device: str = ANY
    register: str = ANY
    start: int = 0
    stop: int = 0
    most: int = 0
    lasts: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.rate <= 1.0:
            raise UsageError(
                f"the rate of {self.kind} is {self.rate}", expected="a number from 0 to 1"
            )
        if min((self.start, self.stop, self.most, self.lasts, *self.numbers)) < 0:
            raise UsageError(f"{self.kind} has a negative time or number", expected="0 or more")

    def reaches(self, device: str, register: str, now: int) -> bool:
        """Whether an opportunity at this place and time counts for the rule."""
        if self.device not in (ANY, device) or self.register not in (ANY, register):
            return False
        return now >= self.start and (not self.stop or now < self.stop)


@dataclass(frozen=True)
class FaultPlan:
    """A seed, rules, and how long devices take for what they do.

    ``pace`` multiplies the time a device is said to take (0: it answers at once), ``jitter`` adds
    up to so much of it again (0.5: up to half as long), drawn each time.
    """

    seed: int = 0
    rules: tuple[Rule, ...] = ()
    jitter: float = 0.0
    pace: float = 1.0

    def __post_init__(self) -> None:
        """Raises :class:`UsageError` for a pace or jitter at which no time can be told."""
        for name, value in (("jitter", self.jitter), ("pace", self.pace)):
            if not 0 <= value < math.inf:
                raise UsageError(f"{name} is {value}", expected="a number, 0 or more")

    def to_data(self) -> dict[str, Any]:
        """The plan as plain data, defaults left out: what a plan's file holds."""
        default = asdict(Rule(FaultKind.IRQ_LOST))
        rules = [
            {k: v for k, v in asdict(rule).items() if k == "kind" or v != default[k]}
            for rule in self.rules
        ]
        return {"seed": self.seed, "jitter": self.jitter, "pace": self.pace, "rules": rules}

    @staticmethod
    def from_data(data: Mapping[str, Any]) -> FaultPlan:
        """The plan that :meth:`to_data` gave. Raises :class:`UsageError` for any other data."""
        try:
            rules = tuple(
                Rule(
                    **{
                        **rule,
                        "kind": FaultKind(rule["kind"]),
                        "numbers": tuple(rule.get("numbers", ())),
                    }
                )
                for rule in data.get("rules", ())
            )
            return FaultPlan(
                int(data.get("seed", 0)),
                rules,
                float(data.get("jitter", 0.0)),
                float(data.get("pace", 1.0)),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UsageError(
                f"the fault plan cannot be read: {error}",
                expected="kinds " + ", ".join(FaultKind),
            ) from error


CALM = FaultPlan()


@dataclass(frozen=True)
class Fired:
    """A fault that happened: ``number`` counts opportunities, ``rule`` is a place in the plan."""

    at: int
    device: str
    kind: FaultKind
    register: str
    number: int
    rule: int


@dataclass(frozen=True)
class Drawn:
    """A fault that is to happen now: ``lasts`` nanoseconds, ``dice`` to settle its details.

    ``fired`` is how the schedule recorded it.
    """

    kind: FaultKind
    lasts: int
    dice: random.Random
    fired: Fired | None = None


class Schedule:
    """Draws the faults of one run from a plan; ``fired`` is what came of it, in order.

    Until ``busy_until`` a device goes on with what a fault has put off.
    """

    def __init__(self, plan: FaultPlan) -> None:
        self.plan = plan
        self.fired: list[Fired] = []
        self.busy_until = 0
        self._wanted: dict[FaultKind, list[int]] = {}
        for place, rule in enumerate(plan.rules):
            self._wanted.setdefault(rule.kind, []).append(place)
        self._counts: dict[tuple[int, str], int] = {}
        self._hits: dict[int, int] = {}
        self._streams: dict[str, random.Random] = {}
        self._held = False
        self._quiet = False

    def hold(self) -> None:
        """Until :meth:`begin` there is neither a fault nor an opportunity."""
        self._held = True

    def begin(self) -> None:
        """From now on faults may happen."""
        self._held = False

    def quiesce(self) -> None:
        """From now on no fault happens; what has begun goes on to its end."""
        self._quiet = True

    def draw(self, kind: FaultKind, device: str, now: int, register: str = "") -> Drawn | None:
        """Whether ``kind`` happens at this opportunity."""
        for place in () if self._quiet or self._held else self._wanted.get(kind, ()):
            rule = self.plan.rules[place]
            if not rule.reaches(device, register, now):
                continue
            number = self._counts.get((place, device), 0)
            self._counts[place, device] = number + 1
            dice = self._stream(f"{kind}/{device}/{self._nth(place)}")
            hit = number in rule.numbers if rule.numbers else dice.random() < rule.rate
            if not hit or (rule.most and self._hits.get(place, 0) >= rule.most):
                continue
            self._hits[place] = self._hits.get(place, 0) + 1
            fired = Fired(now, device, kind, register, number, place)
            self.fired.append(fired)
            details = random.Random(f"{self.plan.seed}/{kind}/{device}/{number}")
            return Drawn(kind, rule.lasts or FACTS[kind].lasts, details, fired)
        return None

    def take_back(self, drawn: Drawn) -> None:
        """A fault that was drawn did not happen after all: what it was to strike never came."""
        if drawn.fired in self.fired:
            self.fired.remove(drawn.fired)
            self._hits[drawn.fired.rule] -= 1

    def delay(self, device: str, nominal: int) -> int:
        """How long the device really takes for what nominally takes ``nominal`` nanoseconds."""
        nominal = int(nominal * self.plan.pace)
        if not self.plan.jitter:
            return nominal
        return nominal + int(nominal * self.plan.jitter * self._stream(f"time/{device}").random())

    def silent(self) -> tuple[FaultKind, ...]:
        """The kinds the plan asks for that never fired."""
        seen = {fired.kind for fired in self.fired}
        return tuple(kind for kind in self._wanted if kind not in seen)

    def _nth(self, place: int) -> int:
        """Which of the rules of its kind a rule is."""
        return self._wanted[self.plan.rules[place].kind].index(place)

    def _stream(self, name: str) -> random.Random:
        stream = self._streams.get(name)
        if stream is None:
            stream = self._streams[name] = random.Random(f"{self.plan.seed}/{name}")
        return stream


def explicit(plan: FaultPlan, fired: Iterable[Fired]) -> FaultPlan:
    """The plan that does again exactly what fired, by opportunities in place of rates."""
    numbers: dict[tuple[int, str], list[int]] = {}
    for fault in fired:
        numbers.setdefault((fault.rule, fault.device), []).append(fault.number)
    rules: Sequence[Rule] = [
        replace(plan.rules[place], rate=0.0, numbers=tuple(found), device=device, most=0)
        for (place, device), found in sorted(numbers.items())
    ]
    return replace(plan, rules=tuple(rules))
