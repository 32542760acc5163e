"""Why a symbol has the value it has: the chain of causes down to where a person can act."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kdrv.build.explain_words import BECAUSE, TOOLCHAIN, is_arch_feature, program_of, version_text
from kdrv.build.explain_world import RUST_IS_AVAILABLE, Cause, World, blamed, upheld
from kdrv.kernel.kconfig_expr import LETTERS, MODULE, NO, YES, Compare, Expr, Kind, Name, names
from kdrv.kernel.kconfig_parser import Condition
from kdrv.kernel.kconfig_tree import Choice, Definition

MAX_DEPTH = 6
SHOWN_SELECTORS = 4


class Causes:
    """Walks from a symbol down to what decides its value; each symbol is told once."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._told: set[str] = set()

    def why_low(self, symbol: str, level: int, depth: int = 0) -> Iterator[Cause]:
        """Why a bool or tristate is below ``level``."""
        world = self._world
        if symbol in self._told or depth > MAX_DEPTH:
            return
        self._told.add(symbol)
        definitions = world.tree.definitions(symbol)
        if not definitions:
            yield Cause(symbol, f"{symbol} does not exist for ARCH={world.arch}", "", depth)
        elif symbol in TOOLCHAIN:
            yield Cause(symbol, TOOLCHAIN[symbol].lack, str(definitions[0].place), depth)
        elif symbol == RUST_IS_AVAILABLE:
            problem = world.rust_problem()
            yield Cause(symbol, problem.text, str(definitions[0].place), depth)
        elif world.has_prompt(symbol):
            yield from self._prompted(symbol, level, depth)
        else:
            yield from self._promptless(symbol, definitions, level, depth)

    def why_high(self, symbol: str, depth: int = 0) -> Iterator[Cause]:
        """Why a bool or tristate is not n."""
        world = self._world
        if symbol in self._told or depth > MAX_DEPTH:
            return
        self._told.add(symbol)
        now = f"{symbol}={world.letter(symbol)}"
        definitions = world.tree.definitions(symbol)
        asked = world.asked(symbol)
        selectors = world.active(world.tree.selectors(symbol))
        if selectors:
            first = selectors[0]
            others = f" and {len(selectors) - 1} more" if len(selectors) > 1 else ""
            text = f"{now} because {first.by} selects it{others}"
            yield Cause(symbol, text, str(first.place), depth)
            yield from self.why_high(first.by, depth + 1)
        elif asked and asked.value != "n" and world.has_prompt(symbol):
            yield Cause(symbol, f"{now} is what was asked for", asked.place, depth)
        elif (choice := self._choice_of(definitions)) and world.has_prompt(symbol):
            text = f"{now}: it is what the choice {choice.prompt!r} comes to"
            yield Cause(symbol, text, str(choice.place), depth)
        elif implied := world.active(world.tree.implied_by(symbol)):
            text = f"{now} because {implied[0].by} implies it"
            yield Cause(symbol, text, str(implied[0].place), depth)
            yield from self.why_high(implied[0].by, depth + 1)
        else:
            yield from self._by_default(symbol, definitions, now, depth)

    def condition(
        self, symbol: str, condition: Condition, level: int, depth: int
    ) -> Iterator[Cause]:
        """An unmet condition of a symbol, and below it what makes it so."""
        world = self._world
        text = f"{symbol} {phrase(condition, world.tree.written(condition.expr))}"
        if states := world.states(condition.expr):
            text += f" ({states})"
        known = [BECAUSE.get((symbol, name.name), "") for name in names(condition.expr)]
        text += "".join(f": {why}" for why in dict.fromkeys(known) if why)
        yield Cause(symbol, text, str(condition.place), depth)
        yield from self._leaves(condition.expr, level, depth + 1)

    def _leaves(self, expr: Expr, level: int, depth: int) -> Iterator[Cause]:
        yield from self._told_leaves(blamed(self._world, expr, level), level, depth)

    def _told_leaves(
        self, leaves: Iterable[tuple[Name | Compare, bool]], level: int, depth: int
    ) -> Iterator[Cause]:
        for leaf, should_rise in leaves:
            if isinstance(leaf, Compare):
                yield from self._relation(leaf, depth)
            elif leaf.constant or self._world.tree.check_of(leaf):
                continue  # the condition above has said it already
            elif should_rise:
                yield from self.why_low(leaf.name, level, depth)
            else:
                yield from self.why_high(leaf.name, depth)

    def _relation(self, relation: Compare, depth: int) -> Iterator[Cause]:
        world = self._world
        symbol = relation.left.name
        if program := program_of(symbol):
            found = version_text(symbol, world.values.text(relation.left))
            wanted = version_text(symbol, relation.right.name)
            text = f"{program} is {found}, {relation.op} {wanted} is needed"
            definitions = world.tree.definitions(symbol)
            place = str(definitions[0].place) if definitions else ""
            yield Cause(symbol, text, place, depth)
        elif world.tree.kind(symbol) in (Kind.BOOL, Kind.TRISTATE):
            rise = (relation.op, relation.right.name) in (("=", "y"), ("=", "m"), ("!=", "n"))
            level = YES if relation.right.name == "y" else MODULE
            yield from self.why_low(symbol, level, depth) if rise else self.why_high(symbol, depth)

    def _prompted(self, symbol: str, level: int, depth: int) -> Iterator[Cause]:
        world = self._world
        definition, unmet = best_definition(world, symbol, level)
        for condition in unmet:
            yield from self.condition(symbol, condition, level, depth)
        if unmet:
            return
        asked = world.asked(symbol)
        choice = self._choice_of((definition,))
        if choice:
            chosen = [member for member in choice.members if world.level(member) != NO]
            text = f"the choice {choice.prompt!r} allows one, and {' '.join(chosen)} is chosen"
            yield Cause(symbol, text, str(choice.place), depth)
            for member in chosen:
                yield from self.why_high(member, depth + 1)
        elif asked and asked.value in LETTERS[:level]:
            yield Cause(
                symbol, f"{symbol}={asked.value}{replaced(asked.replaced)}", asked.place, depth
            )
        else:
            text = f"{symbol} is off, and nothing asks for it"
            yield Cause(symbol, text, str(definition.place), depth)

    def _promptless(
        self, symbol: str, definitions: tuple[Definition, ...], level: int, depth: int
    ) -> Iterator[Cause]:
        """A symbol nobody can set: its defaults do not hold, and nobody selects it."""
        world = self._world
        place = str(definitions[0].place)
        for definition in definitions:
            for condition in world.unmet(definition, level):
                yield from self.condition(symbol, condition, level, depth)
                return
        defaults = [value for definition in definitions for value in definition.defaults]
        for default in defaults:
            failing = (
                default.what if world.values.tristate(default.what) < level else default.condition
            )
            written = world.tree.written(failing)
            text = f"{symbol} cannot be set by hand: it follows {written}"
            if states := world.states(failing):
                text += f" ({states})"
            yield Cause(symbol, text, str(default.place), depth)
            yield from self._leaves(failing, level, depth + 1)
            return
        selectors = [selector.by for selector in world.tree.selectors(symbol)]
        if is_arch_feature(symbol):
            text = f"ARCH={world.arch} does not offer {symbol} in this configuration"
        elif selectors:
            more = ", …" if len(selectors) > SHOWN_SELECTORS else ""
            listed = ", ".join(selectors[:SHOWN_SELECTORS]) + more
            text = f"{symbol} cannot be set by hand: only select turns it on ({listed})"
        else:
            text = f"{symbol} cannot be set by hand, and nothing selects it for ARCH={world.arch}"
        yield Cause(symbol, text, place, depth)

    def _by_default(
        self, symbol: str, definitions: tuple[Definition, ...], now: str, depth: int
    ) -> Iterator[Cause]:
        world = self._world
        for definition in definitions:
            if world.unmet_dependencies(definition):
                continue
            for default in definition.defaults:
                both = (default.what, default.condition)
                if not all(world.values.tristate(expr) for expr in both):
                    continue
                shown = [world.tree.written(e) for e in both if str(e) != "y"]
                because = f": it follows {' if '.join(shown)}" if shown else " by default"
                yield Cause(symbol, now + because, str(default.place), depth)
                for expr in both:
                    yield from self._told_leaves(upheld(world, expr), MODULE, depth + 1)
                return
        place = str(definitions[0].place) if definitions else ""
        text = f"{now} comes from the configuration this one started from"
        yield Cause(symbol, text, place, depth)

    def _choice_of(self, definitions: Iterable[Definition]) -> Choice | None:
        for definition in definitions:
            if definition.choice is not None:
                return self._world.tree.choice(definition.choice)
        return None


def best_definition(world: World, symbol: str, level: int) -> tuple[Definition, list[Condition]]:
    """The definition with a prompt that comes nearest to being visible, and what it lacks."""
    prompted = [d for d in world.tree.definitions(symbol) if d.prompt is not None]
    lacking = [(definition, world.unmet(definition, level)) for definition in prompted]
    return min(lacking, key=lambda found: len(found[1]))


def phrase(condition: Condition, written: str) -> str:
    """A condition as a predicate: ``depends on PCI``, ``stands inside if PCI``."""
    return {
        "depends on": f"depends on {written}",
        "if": f"stands inside if {written}",
        "visible if": f"is in a menu that is visible if {written}",
        "prompt if": f"can be set only if {written}",
    }[condition.how]


def replaced(earlier: tuple[object, ...]) -> str:
    """Words about earlier settings that a later one overrode."""
    places = [f"{setting} at {getattr(setting, 'place', '')}" for setting in earlier]
    return f" overrides {', '.join(places)}" if places else " is what was asked for"
