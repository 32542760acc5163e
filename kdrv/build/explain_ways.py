"""How to turn a symbol on or off: the cheapest settings that its Kconfig allows.

A search backwards from the wanted value: a conjunction needs all its parts, a disjunction one, a
symbol with a prompt its conditions and then a setting, one without a default or a selector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from kdrv.build.explain_words import TOOLCHAIN, check_remedy, need_version, program_of
from kdrv.build.explain_world import RUST_IS_AVAILABLE, World
from kdrv.kernel.kconfig import PREFIX
from kdrv.kernel.kconfig_expr import (
    MODULE,
    NO,
    YES,
    All,
    Compare,
    Either,
    Expr,
    Kind,
    Name,
    Not,
)
from kdrv.kernel.kconfig_tree import Definition

SETTING, AGAINST_REQUEST, TOOL = 1, 3, 6
BUDGETS = (2, 4, 8, 14)
NEVER = {"COMPILE_TEST"}
"""What relaxes conditions for build bots and is no remedy for a kernel that is to run."""
KEPT = 3
EFFORT = 10_000
"""Symbols looked at before a search gives up: about a second of work."""


@dataclass(frozen=True)
class Step:
    """One thing to do: set ``symbol`` to ``value``, or, without a symbol, what ``text`` says."""

    text: str
    cost: int
    symbol: str = ""
    value: str = ""


@dataclass(frozen=True)
class Way:
    """Steps to take together, in order."""

    steps: tuple[Step, ...] = ()

    @property
    def cost(self) -> int:
        """How much it asks of a person; less is better."""
        return sum(step.cost for step in self.steps)

    @property
    def settings(self) -> dict[str, str]:
        """What it sets, by symbol."""
        return {step.symbol: step.value for step in self.steps if step.symbol}

    @property
    def only_settings(self) -> bool:
        """Whether a fragment can do it all."""
        return all(step.symbol for step in self.steps)

    def __str__(self) -> str:
        words: list[str] = []
        for step in self.steps:
            # "set A and B", but "remove A and set B"
            if words and words[-1].startswith("set ") and step.text.startswith("set "):
                words[-1] += f" and {step.text.removeprefix('set ')}"
            else:
                words.append(step.text)
        return " and ".join(words)


NOTHING = Way()
NOBODY: frozenset[str] = frozenset()


def ways_up(world: World, symbol: str, level: int) -> tuple[Way, ...]:
    """The cheapest ways to bring a symbol to ``level``; empty when none was found."""
    return _deepening(lambda budget: _Search(world, symbol).rise(symbol, level, budget, NOBODY))


def ways_down(world: World, symbol: str) -> tuple[Way, ...]:
    """The cheapest ways to bring a symbol to n."""
    return _deepening(lambda budget: _Search(world, symbol).fall(symbol, budget, NOBODY))


def _deepening(search: Callable[[int], list[Way]]) -> tuple[Way, ...]:
    """Search with little first: most symbols have a cheap way, and the tree is wide.

    Once there is one, look a little further, for the other ways out that a person may prefer.
    """
    for budget in BUDGETS:
        if search(budget):
            return tuple(search(budget + TOOL))
    return ()


class _Search:
    """``wanted`` is the symbol it is all for: setting that costs nothing, it was asked for."""

    def __init__(self, world: World, wanted: str) -> None:
        self._world = world
        self._wanted = wanted
        self._effort = EFFORT

    def rise(self, symbol: str, level: int, budget: int, seen: frozenset[str]) -> list[Way]:
        """Ways to bring a symbol to ``level``."""
        world = self._world
        if world.level(symbol) >= level:
            return [NOTHING]
        self._effort -= 1
        if budget < 0 or symbol in seen or self._effort < 0:
            return []
        if symbol in NEVER and symbol != self._wanted:
            return []
        if remedy := self._remedy(symbol):
            return _within([Way((Step(remedy, TOOL),))], budget)
        seen |= {symbol}
        definitions = world.tree.definitions(symbol)
        prompted = [d for d in definitions if d.prompt is not None]
        ways: list[Way] = []
        for definition in prompted:
            conditions = [c.expr for c in (*definition.conditions, *definition.visible)]
            needs = self._all_rise(conditions, self._level(symbol, level), budget, seen)
            own = self._set(symbol, level, definition)
            ways += [Way((*need.steps, *own)) for need in needs]
        if not prompted:
            ways += self._rise_promptless(symbol, definitions, level, budget, seen)
        return _within(ways, budget)

    def fall(self, symbol: str, budget: int, seen: frozenset[str]) -> list[Way]:
        """Ways to bring a symbol to n."""
        world = self._world
        if world.level(symbol) == NO:
            return [NOTHING]
        if budget < 0 or symbol in seen or symbol in TOOLCHAIN:
            return self._other_tool(symbol, budget)
        seen |= {symbol}
        selectors = world.active(world.tree.selectors(symbol))
        needs = [
            self.fall(selector.by, budget - SETTING, seen)
            + self.expr_fall(selector.condition, budget - SETTING, seen)
            for selector in selectors
        ]
        off = list(_product(needs, budget))
        definitions = world.tree.definitions(symbol)
        visible = [d for d in definitions if d.prompt is not None and not world.unmet(d, MODULE)]
        if visible:
            own = self._unset(symbol, visible[0], budget, seen) if self._stays(symbol) else [()]
            ways = [Way((*way.steps, *steps)) for way in off for steps in own]
        else:
            ways = list(_product([off, self._no_default(definitions, budget, seen)], budget))
        return _within(ways, budget)

    def expr_rise(self, expr: Expr, level: int, budget: int, seen: frozenset[str]) -> list[Way]:
        """Ways to make an expression worth ``level``."""
        world = self._world
        if world.values.tristate(expr) >= level:
            return [NOTHING]
        match expr:
            case Name():
                if world.tree.check_of(expr):
                    remedy = check_remedy(world.tree.written(expr))
                    return _within([Way((Step(remedy, TOOL),))], budget)
                return [] if expr.constant else self.rise(expr.name, level, budget, seen)
            case Not(operand):
                return self.expr_fall(operand, budget, seen)
            case All(parts):
                return self._all_rise(parts, level, budget, seen)
            case Either(parts):
                # The best of each part: they are different ways out, not variants of one.
                found = [w for p in parts for w in self.expr_rise(p, level, budget, seen)[:1]]
                return _within(found, budget)
            case Compare():
                return self._relation_rise(expr, budget, seen)

    def expr_fall(self, expr: Expr, budget: int, seen: frozenset[str]) -> list[Way]:
        """Ways to make an expression worth n."""
        world = self._world
        if world.values.tristate(expr) == NO:
            return [NOTHING]
        match expr:
            case Name():
                undecided = expr.constant or world.tree.check_of(expr)
                return [] if undecided else self.fall(expr.name, budget, seen)
            case Not(operand):
                return self.expr_rise(operand, YES, budget, seen)
            case All(parts):
                found = [w for p in parts for w in self.expr_fall(p, budget, seen)[:1]]
                return _within(found, budget)
            case Either(parts):
                return list(_product([self.expr_fall(p, budget, seen) for p in parts], budget))
            case Compare(op, left, right):
                opposite = {"=": "!=", "!=": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
                return self._relation_rise(Compare(opposite[op], left, right), budget, seen)

    def _relation_rise(self, relation: Compare, budget: int, seen: frozenset[str]) -> list[Way]:
        symbol, value = relation.left.name, relation.right.name
        if program_of(symbol):
            step = Step(need_version(symbol, relation.op, value), TOOL)
            return _within([Way((step,))], budget)
        kind = self._world.tree.kind(symbol)
        if kind not in (Kind.BOOL, Kind.TRISTATE):
            # A number to set by hand: the bound itself satisfies >=, <= and =.
            if relation.op in (">=", "<=", "=") and self._world.has_prompt(symbol):
                step = Step(f"set {PREFIX}{symbol}={value}", SETTING, symbol, value)
                return _within([Way((step,))], budget)
            return []
        if (relation.op, value) in (("=", "n"), ("!=", "y")):
            return self.fall(symbol, budget, seen)
        if (relation.op, value) in (("=", "y"), ("=", "m"), ("!=", "n")):
            return self.rise(symbol, YES if value == "y" else MODULE, budget, seen)
        return []

    def _all_rise(
        self, exprs: Iterable[Expr], level: int, budget: int, seen: frozenset[str]
    ) -> list[Way]:
        needs = []
        for expr in exprs:
            found = self.expr_rise(expr, level, budget, seen)
            if not found:
                return []
            needs.append(found)
        return list(_product(needs, budget))

    def _rise_promptless(
        self,
        symbol: str,
        definitions: tuple[Definition, ...],
        level: int,
        budget: int,
        seen: frozenset[str],
    ) -> list[Way]:
        ways = []
        for definition in definitions:
            own = [condition.expr for condition in definition.conditions]
            for default in definition.defaults:
                exprs = [*own, default.what, default.condition]
                ways += self._all_rise(exprs, level, budget, seen)
        choices = set()
        for selector in self._world.tree.selectors(symbol):
            choice = selector.definition.choice
            if choice is not None and choice in choices:
                continue  # another member of the same choice is a variant, not another way
            choices.add(choice)
            exprs = [Name(selector.by), selector.condition]
            ways += self._all_rise(exprs, level, budget - SETTING, seen)
        return ways

    def _stays(self, symbol: str) -> bool:
        """Whether a symbol would stay on if nobody selected it any more."""
        world = self._world
        asked = world.asked(symbol)
        selected = bool(world.active(world.tree.selectors(symbol)))
        defaults = [
            default
            for definition in world.tree.definitions(symbol)
            for default in definition.defaults
            if world.values.tristate(All((default.what, default.condition)))
        ]
        return not selected or bool(defaults) or (asked is not None and asked.value != "n")

    def _no_default(
        self, definitions: tuple[Definition, ...], budget: int, seen: frozenset[str]
    ) -> list[Way]:
        """Ways to have no default of a symbol hold."""
        needs = []
        for definition in definitions:
            if self._world.unmet_dependencies(definition):
                continue
            for default in definition.defaults:
                exprs = (default.what, default.condition, *(c.expr for c in definition.conditions))
                needs.append(self.expr_fall(All(exprs), budget, seen))
        return list(_product(needs, budget))

    def _set(self, symbol: str, level: int, definition: Definition) -> tuple[Step, ...]:
        """The steps that set a visible symbol; in a choice, what was asked for beside it goes."""
        world = self._world
        steps = []
        if definition.choice is not None:
            for member in world.tree.choice(definition.choice).members:
                rival = world.asked(member)
                if rival and rival.value != "n" and member != symbol:
                    steps.append(self._drop(member))
        kind = world.tree.kind(symbol)
        if kind not in (Kind.BOOL, Kind.TRISTATE):
            return ()  # a number or a string that was asked for: visible, it keeps its value
        tristate = kind is Kind.TRISTATE
        value = "m" if tristate and level == MODULE else "y"
        asked = world.asked(symbol)
        if symbol != self._wanted or asked is None or asked.value != value:
            against = asked is not None and asked.value == "n"
            cost = AGAINST_REQUEST if against else SETTING
            where = f" (instead of {asked} at {asked.place})" if asked and asked.place else ""
            steps.append(Step(f"set {PREFIX}{symbol}={value}{where}", cost, symbol, value))
        return tuple(steps)

    def _unset(
        self, symbol: str, definition: Definition, budget: int, seen: frozenset[str]
    ) -> list[tuple[Step, ...]]:
        """The steps that turn a visible symbol off: n, or another member of its choice."""
        world = self._world
        if definition.choice is None:
            return [(self._drop(symbol),)]
        asked = world.asked(symbol)
        drop = (self._drop(symbol),) if asked and asked.value != "n" else ()
        choice = world.tree.choice(definition.choice)
        defaults = [d for d in choice.defaults if world.values.tristate(d.condition)]
        if drop and defaults and str(defaults[0].what) != symbol:
            return [drop]  # the choice falls back to its default
        others = [member for member in choice.members if member != symbol]
        ways = [way for member in others for way in self.rise(member, YES, budget, seen)]
        return [(*drop, *way.steps) for way in ways]

    def _drop(self, symbol: str) -> Step:
        asked = self._world.asked(symbol)
        if asked and asked.value != "n":
            where = f" ({asked.place})" if asked.place else ""
            return Step(f"remove {asked}{where}", AGAINST_REQUEST, symbol, "n")
        return Step(f"set {PREFIX}{symbol}=n", SETTING, symbol, "n")

    def _remedy(self, symbol: str) -> str:
        if symbol == RUST_IS_AVAILABLE:
            return self._world.rust_problem().remedy
        return TOOLCHAIN[symbol].remedy if symbol in TOOLCHAIN else ""

    def _other_tool(self, symbol: str, budget: int) -> list[Way]:
        """The way out of a toolchain's own symbol: the other toolchain."""
        pairs = {"CC_IS_GCC": "CC_IS_CLANG", "CC_IS_CLANG": "CC_IS_GCC"}
        if other := pairs.get(symbol):
            return _within([Way((Step(TOOLCHAIN[other].remedy, TOOL),))], budget)
        return []

    def _level(self, symbol: str, level: int) -> int:
        """What the conditions of a symbol must be worth: m is enough for a bool."""
        return level if self._world.tree.kind(symbol) is Kind.TRISTATE else MODULE


def _product(needs: list[list[Way]], budget: int) -> Iterator[Way]:
    """Ways that satisfy every need at once."""
    joined = [NOTHING]
    for ways in needs:
        joined = _within(
            [
                Way(tuple(dict.fromkeys((*one.steps, *other.steps))))
                for one in joined
                for other in ways
                if not _contradict(one, other)
            ],
            budget,
        )
    yield from joined


def _contradict(one: Way, other: Way) -> bool:
    first, second = one.settings, other.settings
    return any(first[symbol] != second[symbol] for symbol in first.keys() & second.keys())


def _within(ways: list[Way], budget: int) -> list[Way]:
    """The few cheapest, without those that do all of a cheaper one and more."""
    kept: list[Way] = []
    for way in sorted(dict.fromkeys(ways), key=lambda way: way.cost):
        if way.cost > budget or len(kept) == KEPT:
            break
        if not any(set(way.steps) >= set(other.steps) for other in kept):
            kept.append(way)
    return kept
