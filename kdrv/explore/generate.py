"""Plans by chance: strategies of hypothesis, which draws them and shrinks what fails.

Swarm testing (Groce et al., ISSTA 2012): every plan uses a random subset of operations and faults,
for a bug often shows only where something else is left out. What reached new code is drawn again,
in pieces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from kdrv.explore.declare import Operation
from kdrv.explore.plan import Plan, Step
from kdrv.sim.faults import FACTS, FaultKind, FaultPlan, Rule, Side

MOST_ACTORS = 3
MOST_CHUNKS, CHUNK = 8, 5
MOST_RULES = 4
MOST_STEPS = 200
PAUSES = (0, 0, 0, 10, 100, 1_000, 10_000, 1_000_000)
"""In microseconds; shrinks to the first."""
RATES = (0.05, 0.2, 0.5, 1.0)
PACES = (1.0, 0.0, 0.1, 10.0)
JITTERS = (0.0, 0.5, 4.0)
NUMBERS = (12, 200)
"""Faults at single opportunities are drawn among so many first ones, few or many: a probe takes
the first accesses to a device."""
ROUNDS = (1, 1, 1, 1, 1, 1, 1, 8)
"""How often a plan's steps are gone through: rings wrap, and counters overflow, only in time."""
FREQUENT = frozenset(
    {
        FaultKind.IRQ_LOST,
        FaultKind.REG_ALL_ONES,
        FaultKind.DEVICE_LATE,
        FaultKind.DESC_BAD,
        FaultKind.PROBE_FAIL_NTH,
        FaultKind.ALLOC_FAIL_NTH,
    }
)
"""Faults that are drawn twice as often: what drivers most often have no answer to."""
STORMS = 2
COMINGS = frozenset({"bind", "unbind", "unload_and_load"})
"""Operations by which a driver comes to its device and leaves it."""


@dataclass(frozen=True)
class Choice:
    """What plans are drawn from.

    ``kinds`` are the faults that are allowed; ``pool`` are pieces of plans that reached something
    new; ``checked`` says for which kernel.
    """

    operations: Mapping[str, Operation]
    kinds: tuple[FaultKind, ...]
    pool: tuple[tuple[Step, ...], ...] = ()
    checked: bool = False


def plans(choice: Choice) -> SearchStrategy[Plan]:
    """Plans by chance. Made once for many: strategies are dear to make."""
    arguments = {
        name: st.fixed_dictionaries(dict(one.arguments)) for name, one in choice.operations.items()
    }
    names = sorted(choice.operations)
    weighted = [name for name in names for _ in range(choice.operations[name].weight)]
    few = st.lists(st.sampled_from(names), min_size=1, max_size=6, unique=True)
    free = st.one_of(few, st.just(weighted))
    stay = [name for name in weighted if name not in COMINGS] or weighted
    come = [name for name in names if name in COMINGS]
    starve = tuple(kind for kind in choice.kinds if FACTS[kind].side is Side.GUEST)
    # Anything; all calm, where every error is the driver's own; probes that run out of memory.
    styles = st.sampled_from([0, 0, 0, 0, 1, 2] if come and starve else [0, 0, 0, 0, 1])
    swarms = (free, st.just(stay), st.just(come))
    counts = st.integers(1, MOST_ACTORS)
    rules = (_rules(choice.kinds), _rules(()), _rules(starve, least=1))
    seeds, pace, jitter = st.integers(0, 999_999), st.sampled_from(PACES), st.sampled_from(JITTERS)
    paces = (pace, st.sampled_from([1.0, 0.0]), pace)
    jitters = (jitter, st.just(0.0), st.just(0.0))
    pauses = st.sampled_from(PAUSES)
    rounds = st.sampled_from(ROUNDS)
    pool = st.sampled_from(choice.pool) if choice.pool else None
    more = st.booleans()

    @st.composite
    def step(draw: DrawFn, swarm: SearchStrategy[str], actors: SearchStrategy[int]) -> Step:
        name = draw(swarm)
        return Step(name, draw(arguments[name]), draw(actors), draw(pauses))

    @st.composite
    def chunk(draw: DrawFn, fresh: SearchStrategy[list[Step]]) -> list[Step]:
        if pool is not None and draw(more):
            return list(draw(pool))
        return draw(fresh)

    @st.composite
    def plan(draw: DrawFn) -> Plan:
        style = draw(styles)
        swarm = st.sampled_from(draw(swarms[style]))
        actors = st.integers(0, draw(counts) - 1)
        fresh = st.lists(step(swarm, actors), min_size=1, max_size=CHUNK)
        piece = fresh if style else chunk(fresh)
        pieces = draw(st.lists(piece, min_size=1, max_size=MOST_CHUNKS))
        steps = tuple(one for piece in pieces for one in piece) * draw(rounds)
        chosen = tuple(draw(rules[style]))
        faults = FaultPlan(draw(seeds), chosen, draw(jitters[style]), draw(paces[style]))
        return Plan(steps[:MOST_STEPS], faults, choice.checked)

    return plan()


def _rules(kinds: Sequence[FaultKind], least: int = 0) -> SearchStrategy[list[Rule]]:
    if not kinds:
        return st.builds(list)
    return st.lists(_rule(kinds), min_size=least, max_size=MOST_RULES)


def _rule(kinds: Sequence[FaultKind]) -> SearchStrategy[Rule]:
    number = st.one_of(*(st.integers(0, most) for most in NUMBERS))
    exact = st.lists(number, min_size=1, max_size=3, unique=True)
    often = [kind for kind in kinds if kind in FREQUENT]
    names, rates, exactly = st.sampled_from([*kinds, *often]), st.sampled_from(RATES), st.booleans()

    @st.composite
    def rule(draw: DrawFn) -> Rule:
        kind = draw(names)
        # A storm has a hundred interrupts; a device is pulled out once.
        few = FACTS[kind].opportunity == "access to a BAR"
        most = 1 if kind is FaultKind.SURPRISE_REMOVE else STORMS if few else 0
        if draw(exactly):
            return Rule(kind, rate=draw(rates), most=most)
        return Rule(kind, numbers=tuple(sorted(draw(exact))), most=most)

    return rule()


def allowed(kinds: Sequence[FaultKind], *, devices: bool) -> tuple[FaultKind, ...]:
    """The kinds that can happen at all: without a device only those on the guest's side."""
    here = (Side.GUEST, Side.CALLER)
    return tuple(kind for kind in kinds if devices or FACTS[kind].side in here)


BEARABLE = tuple(kind for kind in FaultKind if kind is not FaultKind.DMA_AFTER_FREE)
"""The faults a driver can survive.

Against a device that writes to memory that was taken from it only an IOMMU helps; a profile can
ask for it all the same.
"""
