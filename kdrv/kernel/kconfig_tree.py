"""A kernel tree's Kconfig, parsed: every symbol with where and on what conditions it is defined.

Nothing runs while the files are read: the result of a toolchain check such as
``$(cc-option,-flag)`` stays open until somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import kconfiglib

from kdrv.core.errors import UsageError
from kdrv.kernel.kconfig_expr import TRUE, Compare, Expr, Kind, Name
from kdrv.kernel.kconfig_parser import OPEN_CHECK, Check, Condition, Parser, Place, converted

_KINDS = {
    kconfiglib.BOOL: Kind.BOOL,
    kconfiglib.TRISTATE: Kind.TRISTATE,
    kconfiglib.STRING: Kind.STRING,
    kconfiglib.INT: Kind.INT,
    kconfiglib.HEX: Kind.HEX,
}


@dataclass(frozen=True)
class Value:
    """A ``default``, ``select``, ``imply`` or ``range``: what, on which condition, where."""

    what: Expr
    condition: Expr
    place: Place


@dataclass(frozen=True)
class Definition:
    """One ``config`` entry. A symbol may have several, in different files.

    ``conditions`` are its own ``depends on`` and then those of the ifs, menus and choices around
    it, from the inside out. ``visible`` are further conditions for the prompt alone.
    """

    symbol: str
    place: Place
    prompt: str | None
    conditions: tuple[Condition, ...]
    visible: tuple[Condition, ...]
    defaults: tuple[Value, ...]
    selects: tuple[Value, ...]
    ranges: tuple[Value, ...]
    choice: int | None


@dataclass(frozen=True)
class Selector:
    """A definition that selects (or implies) a symbol: ``by`` does so on ``condition``."""

    by: str
    condition: Expr
    place: Place
    definition: Definition


@dataclass(frozen=True)
class Choice:
    """A choice: one of ``members`` is y."""

    prompt: str
    members: tuple[str, ...]
    defaults: tuple[Value, ...]
    place: Place


class KconfigTree:
    """The symbols of a tree for one architecture and one toolchain.

    ``environment`` is what the kernel's makefiles export to ``conf`` (``SRCARCH``, ``CC``, …);
    ``run`` executes the shell command of a :class:`Check` and returns what it prints.
    Raises :class:`UsageError` when the files do not parse.
    """

    def __init__(
        self, tree: Path, environment: Mapping[str, str], run: Callable[[str], str]
    ) -> None:
        self._run = run
        self._results: dict[int, str] = {}
        try:
            self._parsed = Parser(tree, environment)
        except (kconfiglib.KconfigError, OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"cannot read the Kconfig of {tree}: {' '.join(str(error).split())}",
                expected="a kernel tree whose Kconfig is valid",
                remedy=f"make -C {tree} O=$(mktemp -d) listnewconfig shows what the kernel says",
            ) from error

    @cached_property
    def symbols(self) -> Mapping[str, Any]:
        """Every defined symbol by name."""
        return {name: sym for name, sym in self._parsed.syms.items() if sym.nodes}

    def kind(self, name: str) -> Kind:
        """The type of a symbol; ``UNKNOWN`` when it is defined nowhere."""
        symbol = self.symbols.get(name)
        return _KINDS.get(symbol.orig_type, Kind.UNKNOWN) if symbol else Kind.UNKNOWN

    def expand(self, text: str) -> str:
        """``text`` with the results of the toolchain checks in it; runs those not yet run."""
        return OPEN_CHECK.sub(lambda found: self._result(int(found[1])), text)

    def check_of(self, name: Name) -> Check | None:
        """The toolchain check a name in an expression stands for, if it stands for one."""
        found = OPEN_CHECK.fullmatch(name.name)
        return self._parsed.checks[int(found[1])] if found else None

    def written(self, expr: Expr) -> str:
        """The expression as the Kconfig has it, with its macro calls."""
        text = str(expr)
        while OPEN_CHECK.search(text):
            text = OPEN_CHECK.sub(lambda found: self._parsed.checks[int(found[1])].call, text)
        return text

    def definitions(self, name: str) -> tuple[Definition, ...]:
        """Where a symbol is defined; empty when nowhere."""
        symbol = self.symbols.get(name)
        return tuple(self._definition(node) for node in symbol.nodes) if symbol else ()

    def selectors(self, name: str) -> tuple[Selector, ...]:
        """Who selects a symbol."""
        return tuple(self._selectors("selects", name))

    def implied_by(self, name: str) -> tuple[Selector, ...]:
        """Who implies a symbol."""
        return tuple(self._selectors("implies", name))

    def choice(self, number: int) -> Choice:
        """A choice, by the number that its members' definitions have."""
        choice = self._parsed.choices[number]
        node = choice.nodes[0]
        members = [child.item.name for child in _children(node) if _is_symbol(child.item)]
        return Choice(
            node.prompt[0] if node.prompt else "",
            tuple(members),
            self._values(node, "defaults"),
            Place(node.filename, node.linenr),
        )

    def transitional(self, name: str) -> tuple[str, ...]:
        """The symbols that take over from ``name``, when it is only a name of the past."""
        if name not in self._parsed.transitional:
            return ()
        heirs = []
        for heir, symbol in self.symbols.items():
            for node in symbol.nodes:
                if any(getattr(default, "name", None) == name for default, _ in node.defaults):
                    heirs.append(heir)
        return tuple(heirs)

    def _result(self, number: int) -> str:
        if number not in self._results:
            command = self.expand(self._parsed.checks[number].command)
            self._results[number] = " ".join(self._run(command).rstrip("\n").split("\n"))
        return self._results[number]

    def _definition(self, node: Any) -> Definition:
        conditions = list(self._parsed.conditions.get(node, ()))
        visible = [c for c in self._prompt_conditions(node) if c.expr != TRUE]
        choice = None
        parent = node.parent
        while parent is not None:
            conditions += self._parsed.conditions.get(parent, ())
            visible += self._parsed.visible.get(parent, ())
            if isinstance(parent.item, kconfiglib.Choice):
                choice = self._parsed.choices.index(parent.item)
                visible += self._prompt_conditions(parent)
            parent = parent.parent
        return Definition(
            node.item.name,
            Place(node.filename, node.linenr),
            node.prompt[0] if node.prompt else None,
            tuple(conditions),
            tuple(visible),
            self._values(node, "defaults"),
            self._values(node, "selects"),
            self._values(node, "ranges"),
            choice,
        )

    def _prompt_conditions(self, node: Any) -> list[Condition]:
        if not node.prompt or node.prompt[1] is self._parsed.y:
            return []
        place = self._parsed.places.get((node, "prompt", 0), Place(node.filename, node.linenr))
        return [Condition("prompt if", converted(node.prompt[1]), place)]

    def _values(self, node: Any, what: str) -> tuple[Value, ...]:
        values = []
        for number, (*main, condition) in enumerate(getattr(node, what)):
            # A range is a pair of bounds: kept as the comparison low <= high.
            expr = converted(main[0]) if len(main) == 1 else _bounds(*main)
            place = self._parsed.places[node, what, number]
            values.append(Value(expr, converted(condition), place))
        return tuple(values)

    @cached_property
    def _reverse(self) -> Mapping[str, list[tuple[str, Any, int]]]:
        reverse: dict[str, list[tuple[str, Any, int]]] = {}
        for symbol in self.symbols.values():
            for node in symbol.nodes:
                for what in ("selects", "implies"):
                    for number, (target, _) in enumerate(getattr(node, what)):
                        reverse.setdefault(target.name, []).append((what, node, number))
        return reverse

    def _selectors(self, what: str, name: str) -> Iterator[Selector]:
        for kind, node, number in self._reverse.get(name, ()):
            if kind == what:
                condition = converted(getattr(node, what)[number][1])
                place = self._parsed.places[node, what, number]
                yield Selector(node.item.name, condition, place, self._definition(node))


def _children(node: Any) -> Iterator[Any]:
    """The entries inside a node, through the ifs among them."""
    child = node.list
    while child:
        yield child
        if child.item is None:
            yield from _children(child)
        child = child.next


def _is_symbol(item: Any) -> bool:
    return isinstance(item, kconfiglib.Symbol)


def _bounds(low: Any, high: Any) -> Compare:
    return Compare("<=", Name(low.name, low.is_constant), Name(high.name, high.is_constant))
