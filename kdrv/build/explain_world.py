"""What an explanation is made from: the tree's Kconfig, the finished values, who asked for what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from kdrv.build.explain_rust import RustProblem
from kdrv.kernel.kconfig import Setting
from kdrv.kernel.kconfig_expr import (
    LETTERS,
    YES,
    All,
    Compare,
    Either,
    Expr,
    Kind,
    Name,
    Not,
    Values,
    names,
)
from kdrv.kernel.kconfig_parser import Condition
from kdrv.kernel.kconfig_tree import Definition, KconfigTree, Selector

RUST_IS_AVAILABLE = "RUST_IS_AVAILABLE"


@dataclass(frozen=True)
class Cause:
    """A link of the chain: what about ``symbol``, and where that is written.

    ``depth`` says how far it is from the symbol that was asked for: each cause explains the last
    one before it that has a smaller depth.
    """

    symbol: str
    text: str
    place: str
    depth: int


@dataclass(frozen=True)
class Explanation:
    """Why ``CONFIG_<symbol>`` is ``got`` and not ``wanted``.

    ``place`` is where it was asked for. ``chain`` goes from the symbol down to the causes.
    ``summary`` is one or two sentences; ``change`` says what to do, alternatives joined by "or".
    ``fix`` are the settings of the cheapest alternative that is settings alone; empty when there is
    none. ``follows`` names the other missing symbol that this one only follows, if it does.
    """

    symbol: str
    wanted: str
    got: str
    summary: str
    change: str
    place: str = ""
    chain: tuple[Cause, ...] = ()
    fix: Mapping[str, str] = field(default_factory=dict)
    follows: str = ""


@dataclass(frozen=True)
class World:
    """``settings`` are all that were asked for, by symbol; ``arch`` is the kernel's ARCH."""

    tree: KconfigTree
    values: Values
    settings: Mapping[str, Setting]
    arch: str
    rust_problem: Callable[[], RustProblem]

    def level(self, symbol: str) -> int:
        """What a bool or tristate is worth."""
        return self.values.tristate(Name(symbol))

    def letter(self, symbol: str) -> str:
        """``y``, ``m`` or ``n``."""
        return LETTERS[self.level(symbol)]

    def has_prompt(self, symbol: str) -> bool:
        """Whether a person can set the symbol at all."""
        return any(definition.prompt is not None for definition in self.tree.definitions(symbol))

    def unmet(self, definition: Definition, level: int) -> list[Condition]:
        """The conditions that keep a definition's prompt below ``level``."""
        conditions = (*definition.conditions, *definition.visible)
        return [c for c in conditions if self.values.tristate(c.expr) < level]

    def active(self, selectors: tuple[Selector, ...]) -> list[Selector]:
        """Those that select right now."""
        return [
            selector
            for selector in selectors
            if self.level(selector.by)
            and self.values.tristate(selector.condition)
            and not self.unmet_dependencies(selector.definition)
        ]

    def unmet_dependencies(self, definition: Definition) -> list[Condition]:
        """The conditions that keep a definition out altogether."""
        return [c for c in definition.conditions if not self.values.tristate(c.expr)]

    def states(self, expr: Expr) -> str:
        """``A=y, B=n``: the present values of what an expression names."""
        shown = []
        for name in names(expr):
            check = self.tree.check_of(name)
            if check:
                result = self.tree.expand(name.name) or "empty"
                shown.append(f"{self.tree.written(name)} is {result}")
            elif not name.constant and self.tree.kind(name.name) is not Kind.UNKNOWN:
                shown.append(f"{name}={self.values.text(name) or 'empty'}")
            elif not name.constant and not name.name.isdigit():
                shown.append(f"{name} is not known to this architecture")
        return ", ".join(dict.fromkeys(shown))

    def asked(self, symbol: str) -> Setting | None:
        """The setting that asked for the symbol."""
        return self.settings.get(symbol)


def blamed(world: World, expr: Expr, level: int) -> list[tuple[Name | Compare, bool]]:
    """What keeps ``expr`` below ``level``: each with whether it would have to rise, or to fall."""
    return list(dict.fromkeys(_low(world, expr, level)))


def upheld(world: World, expr: Expr) -> list[tuple[Name | Compare, bool]]:
    """What keeps ``expr`` from being n: each with whether it would have to rise, or to fall."""
    return list(dict.fromkeys(_high(world, expr)))


def _low(world: World, expr: Expr, level: int) -> list[tuple[Name | Compare, bool]]:
    match expr:
        case Name() | Compare():
            return [(expr, True)]
        case Not(operand):
            return _high(world, operand)
        case All(parts):
            failing = [part for part in parts if world.values.tristate(part) < level]
        case Either(parts):
            failing = list(parts)
    return [found for part in failing for found in _low(world, part, level)]


def _high(world: World, expr: Expr) -> list[tuple[Name | Compare, bool]]:
    match expr:
        case Name() | Compare():
            return [(expr, False)]
        case Not(operand):
            return _low(world, operand, YES)
        case All(parts):
            holding = list(parts)
        case Either(parts):
            holding = [part for part in parts if world.values.tristate(part)]
    return [found for part in holding for found in _high(world, part)]
