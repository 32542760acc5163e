"""kconfiglib, taught the grammar of today's kernels and kept from running anything.

New since its last release, from scripts/kconfig/parser.y: ``modules`` inside a menuconfig,
``transitional``, ``depends on X if Y``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kconfiglib

from kdrv.kernel.kconfig_expr import All, Compare, Either, Expr, Name, Not

OPEN_CHECK = re.compile(r"KDRV_CHECK_(\d+)_")
"""Stands in an expression for the result of a check that has not run."""
_WHOLE_LINE = {"modules", "transitional"}


@dataclass(frozen=True)
class Place:
    """A line of a Kconfig file; ``file`` is relative to the tree."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Check:
    """A toolchain check: the macro call as it stands in the Kconfig, and its shell command.

    Both may hold the results of other checks: :meth:`KconfigTree.written` and
    :meth:`KconfigTree.expand` put those in.
    """

    call: str
    command: str


@dataclass(frozen=True)
class Condition:
    """Something that must hold; ``how`` is the keyword it stands under in the Kconfig."""

    how: str
    expr: Expr
    place: Place


class Parser(kconfiglib.Kconfig):  # type: ignore[misc]
    """The parsed files: kconfiglib's tree, and beside it where each condition stands.

    Its process environment and its shell are replaced: ``environment`` is all that ``$(NAME)`` can
    mean, and each shell command is kept in ``checks``.
    """

    def __init__(self, tree: Path, environment: Mapping[str, str]) -> None:
        self.tree = tree
        self.environment = environment
        self.checks: list[Check] = []
        self.conditions: dict[Any, list[Condition]] = {}
        self.visible: dict[Any, list[Condition]] = {}
        self.places: dict[tuple[Any, str, int], Place] = {}
        self.transitional: set[str] = set()
        self._node: Any = None
        self._first_line = 0
        self._calls: list[str] = []
        super().__init__("Kconfig", warn=False)

    # The base class takes these two from the process's environment, which is not ours to change.
    @property
    def srctree(self) -> str:
        """Where the files are."""
        return str(self.tree)

    @srctree.setter
    def srctree(self, ignored: str) -> None:
        pass

    @property
    def _srctree_prefix(self) -> str:
        return f"{self.tree}/"

    @_srctree_prefix.setter
    def _srctree_prefix(self, ignored: str) -> None:
        pass

    # The menu as shown to a person, checks of sanity and caches: not needed here, and slow.
    def _finalize_node(self, node: Any, visible_if: Any) -> None:
        pass

    def _check_sym_sanity(self) -> None:
        pass

    def _check_choice_sanity(self) -> None:
        pass

    def _build_dep(self) -> None:
        pass

    def _place(self) -> Place:
        return Place(self.filename, self._first_line)

    def _next_line(self) -> Any:
        if not self._reuse_tokens:
            self._first_line = self.linenr + 1
        return super()._next_line()

    def _line_after_help(self, line: str) -> None:
        self._first_line = self.linenr
        super()._line_after_help(line)

    def _tokenize(self, s: str) -> Any:
        word = s.split("#", 1)[0].strip()
        if word not in _WHOLE_LINE:
            return super()._tokenize(s)
        if word == "transitional":
            self.transitional.add(self._node.item.name)
        return (None,)

    def _parse_assignment(self, s: str) -> None:
        # A check made for a variable is shown by the variable's name.
        variable = s.split(":=")[0].strip() if ":=" in s else ""
        self._calls = [f"$({variable})"] if variable else []
        super()._parse_assignment(s)
        self._calls = []

    def _fn_val(self, args: list[str]) -> str:
        if args[0] == "shell":
            self.checks.append(Check(self._calls[0] if self._calls else _call(args), args[1]))
            return f"KDRV_CHECK_{len(self.checks) - 1}_"
        if args[0] in ("info", "warning-if", "error-if"):
            return ""  # they speak to the person who runs make, and make has run before
        if args[0] in self.variables:
            self._calls.append(_call(args))
            try:
                return str(super()._fn_val(args))
            finally:
                self._calls.pop()
        if args[0] in self._functions:
            return str(super()._fn_val(args))
        return self.environment.get(args[0], "")

    def _parse_block(self, end_token: Any, parent: Any, prev: Any) -> Any:
        if end_token is kconfiglib._T_ENDIF:
            condition = Condition("if", converted(parent.dep), self._place())
            self.conditions.setdefault(parent, []).append(condition)
        return super()._parse_block(end_token, parent, prev)

    def _parse_props(self, node: Any) -> None:
        self._node = node
        super()._parse_props(node)

    def _expect_expr_and_eol(self) -> Any:
        keyword = self._tokens[0]
        expr = self._parse_expr(True)
        if keyword is kconfiglib._T_DEPENDS and self._check_token(kconfiglib._T_IF):
            # menu_add_dep() in scripts/kconfig/menu.c: depends on (X || Y = n)
            expr = (kconfiglib.OR, expr, _is(self._parse_expr(True), self.n, self.y))
        if self._tokens[self._tokens_i] is not None:
            self._trailing_tokens_error()
        if keyword is kconfiglib._T_DEPENDS:
            condition = Condition("depends on", converted(expr), self._place())
            self.conditions.setdefault(self._node, []).append(condition)
        elif keyword is kconfiglib._T_VISIBLE:
            condition = Condition("visible if", converted(expr), self._place())
            self.visible.setdefault(self._node, []).append(condition)
        return expr

    def _parse_cond(self) -> Any:
        token = self._tokens[0]
        if token is kconfiglib._T_SELECT:
            self._note("selects")
        elif token is kconfiglib._T_IMPLY:
            self._note("implies")
        elif token is kconfiglib._T_RANGE:
            self._note("ranges")
        elif token is kconfiglib._T_DEFAULT or token in kconfiglib._DEF_TOKEN_TO_TYPE:
            self._note("defaults")
        else:  # a prompt
            self.places[self._node, "prompt", 0] = self._place()
        return super()._parse_cond()

    def _note(self, what: str) -> None:
        self.places[self._node, what, len(getattr(self._node, what))] = self._place()


def converted(expr: Any) -> Expr:
    """A kconfiglib expression as one of ours; chains of the same operator become flat."""
    if not isinstance(expr, tuple):
        return Name(expr.name, expr.is_constant)
    op, *operands = expr
    if op is kconfiglib.NOT:
        return Not(converted(operands[0]))
    if op is kconfiglib.AND:
        return All(tuple(_flat(All, operands)))
    if op is kconfiglib.OR:
        return Either(tuple(_flat(Either, operands)))
    left, right = (Name(side.name, side.is_constant) for side in operands)
    return Compare(kconfiglib.REL_TO_STR[op], left, right)


def _flat(kind: type[All | Either], operands: list[Any]) -> Iterator[Expr]:
    for operand in operands:
        expr = converted(operand)
        if isinstance(expr, kind):
            yield from expr.parts
        else:
            yield expr


def _call(args: list[str]) -> str:
    return f"$({','.join(args)})"


def _is(expr: Any, wanted: Any, opposite: Any) -> Any:
    """``expr = wanted`` for a whole expression: expr_trans_compare() in scripts/kconfig/expr.c.

    ``wanted`` and ``opposite`` are n and y, or y and n.
    """
    if not isinstance(expr, tuple):
        return (kconfiglib.EQUAL, expr, wanted)
    op, *operands = expr
    if op is kconfiglib.NOT:
        return _is(operands[0], opposite, wanted)
    if op in (kconfiglib.AND, kconfiglib.OR):
        conjunction = (op is kconfiglib.AND) == (wanted.name == "y")
        joined = kconfiglib.AND if conjunction else kconfiglib.OR
        return (joined, *(_is(operand, wanted, opposite) for operand in operands))
    return expr if wanted.name == "y" else (kconfiglib.NOT, expr)
