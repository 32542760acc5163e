"""Kconfig expressions and what they are worth in a finished configuration.

The values come from the ``.config`` that the kernel's own ``conf`` wrote, so nothing here can
disagree with the kernel about them; a symbol that the file does not mention is ``n`` (or empty).
Semantics: scripts/kconfig/expr.c, ``__expr_calc_value``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

NO, MODULE, YES = 0, 1, 2
LETTERS = ("n", "m", "y")


class Kind(StrEnum):
    """The type of a symbol."""

    BOOL = "bool"
    TRISTATE = "tristate"
    STRING = "string"
    INT = "int"
    HEX = "hex"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Name:
    """A symbol, or a constant such as ``y``, ``"text"`` or ``124``."""

    name: str
    constant: bool = False

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Not:
    """``!operand``."""

    operand: Expr

    def __str__(self) -> str:
        bare = isinstance(self.operand, Name)
        return f"!{self.operand}" if bare else f"!({self.operand})"


@dataclass(frozen=True)
class All:
    """``a && b && …``."""

    parts: tuple[Expr, ...]

    def __str__(self) -> str:
        return " && ".join(f"({p})" if isinstance(p, Either) else str(p) for p in self.parts)


@dataclass(frozen=True)
class Either:
    """``a || b || …``."""

    parts: tuple[Expr, ...]

    def __str__(self) -> str:
        return " || ".join(f"({p})" if isinstance(p, All) else str(p) for p in self.parts)


@dataclass(frozen=True)
class Compare:
    """``left op right``."""

    op: str
    left: Name
    right: Name

    def __str__(self) -> str:
        joined = f"{self.left}{self.op}{self.right}"
        return joined if self.op in ("=", "!=") else f"{self.left} {self.op} {self.right}"


Expr = Name | Not | All | Either | Compare
TRUE = Name("y", constant=True)
OPERATORS: Mapping[str, Callable[[int, int], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def names(expr: Expr) -> Iterator[Name]:
    """Every name in the expression, from left to right."""
    match expr:
        case Name():
            yield expr
        case Not(operand):
            yield from names(operand)
        case All(parts) | Either(parts):
            for part in parts:
                yield from names(part)
        case Compare(_, left, right):
            yield from (left, right)


class Types(Protocol):
    """What the evaluation asks of a parsed Kconfig."""

    def kind(self, name: str) -> Kind:
        """The type of the symbol; ``UNKNOWN`` for one that is defined nowhere."""
        ...

    def expand(self, text: str) -> str:
        """``text`` with the results of its toolchain checks put in."""
        ...


class Values:
    """The values of a finished configuration."""

    def __init__(self, final: Mapping[str, str], types: Types) -> None:
        self._final = final
        self._types = types

    def text(self, name: Name) -> str:
        """The value as a string; a constant or an undefined symbol is worth its own name."""
        kind = self._kind(name)
        if kind is Kind.UNKNOWN or name.name in LETTERS:
            return self._types.expand(name.name)
        empty = "n" if kind in (Kind.BOOL, Kind.TRISTATE) else ""
        return self._final.get(name.name, empty)

    def of(self, symbol: str) -> str:
        """The value of a defined symbol, as a string."""
        return self.text(Name(symbol))

    def tristate(self, expr: Expr) -> int:
        """What the expression is worth: ``NO``, ``MODULE`` or ``YES``."""
        match expr:
            case Name():
                return self._tristate_of(expr)
            case Not(operand):
                return YES - self.tristate(operand)
            case All(parts):
                return min(map(self.tristate, parts))
            case Either(parts):
                return max(map(self.tristate, parts))
            case Compare():
                return YES if self._holds(expr) else NO

    def _tristate_of(self, name: Name) -> int:
        text = self.text(name)
        if self._kind(name) in (Kind.STRING, Kind.INT, Kind.HEX):
            return NO
        return LETTERS.index(text) if text in LETTERS else NO

    def _holds(self, relation: Compare) -> bool:
        left, right = self.text(relation.left), self.text(relation.right)
        compare = OPERATORS[relation.op]
        numbers = self._number(relation.left, left), self._number(relation.right, right)
        strings = (self._kind(relation.left), self._kind(relation.right)) == (
            Kind.STRING,
            Kind.STRING,
        )
        if strings or numbers[0] is None or numbers[1] is None:
            return compare((left > right) - (left < right), 0)
        return compare(numbers[0], numbers[1])

    def _kind(self, name: Name) -> Kind:
        if name.name in LETTERS:
            return Kind.TRISTATE
        return Kind.UNKNOWN if name.constant else self._types.kind(name.name)

    def _number(self, name: Name, text: str) -> int | None:
        kind = self._kind(name)
        if kind in (Kind.BOOL, Kind.TRISTATE):
            return LETTERS.index(text) if text in LETTERS else -1
        base = {Kind.INT: 10, Kind.HEX: 16}.get(kind, 0)
        try:
            return int(text, base)
        except ValueError:
            return None
