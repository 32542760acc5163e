"""What is unsafe in Rust code, and whether it says why it is sound.

Compared as sets: what only moved or was reformatted is not new. Every step is linear in the size
of the file, since the file may be anybody's.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from tree_sitter import Node

from kdrv.gate.rust_parse import ATTRIBUTES, COMMENTS, Place, Source, ids, words

# In either case, as clippy::undocumented_unsafe_blocks has it.
_SAFETY = re.compile(r"^[ \t]*(?://|/\*)[/*! \t]*SAFETY:", re.I | re.M)
_SAFETY_HERE = re.compile(r"/\*[ \t]*SAFETY:[^*]*\*/[ \t]*$", re.I)
_SAFETY_SECTION = re.compile(r"#[ \t]+Safety\b")

# clippy's lints for the same: code may turn them off.
_LINTS = dict.fromkeys(("block", "impl"), "undocumented_unsafe_blocks")
_LINTS |= dict.fromkeys(("fn", "trait"), "missing_safety_doc")

# A comment above the statement, match arm or item that an unsafe block is a part of is the
# block's; these are what statements, arms and items are in.
_HOLDERS = ("block", "declaration_list", "match_block", "source_file")
_ENCLOSING = ("function_item", "trait_item", "mod_item", "const_item", "static_item")
_STATEMENT = 100
"""How many tokens of a macro's arguments may come before an unsafe block in a statement."""

_LINE = 400
"""How many bytes before an unsafe block on its line are looked at for a comment."""


@dataclass(frozen=True)
class Site:
    """A place that is unsafe: a ``block``, ``fn``, ``impl`` or ``trait``.

    ``within`` is the item around it, ``text`` the block's code or the item's head, ``said``
    whether it says why it is sound: a comment ``SAFETY:`` for blocks and impls, a section
    ``# Safety`` of the documentation for functions and traits, or an attribute that allows it to
    say nothing.
    """

    kind: str
    within: str
    text: str
    said: bool
    file: str
    line: int


def sites(source: Source) -> tuple[Site, ...]:
    """All unsafe places of a file, in order. Raises nothing: what is no Rust has none."""
    notes, allowed = _Notes(source), _Allowed()
    found = []
    for place in source.places:
        if kind := _kind(place):
            said = allowed.at(place, _LINTS[kind]) or _said(source, notes, place, kind)
            line = place.node.start_point.row + 1
            found.append(Site(kind, _within(place), _code(place, kind), said, source.path, line))
    return tuple(found)


def new_sites(before: Iterable[Site], after: Iterable[Site]) -> tuple[Site, ...]:
    """Those of ``after`` that ``before`` has not, one against one: neither the same code anywhere
    nor other code of the same kind in the same item, which has then only been edited."""
    gone, new = _unmatched(before, after, lambda site: (site.kind, site.text))
    return tuple(_unmatched(gone, new, lambda site: (site.kind, site.file, site.within))[1])


def _unmatched(
    before: Iterable[Site], after: Iterable[Site], key: Callable[[Site], tuple[str, ...]]
) -> tuple[list[Site], list[Site]]:
    """What is left of both when equals by ``key`` are taken away in pairs."""
    gone: dict[tuple[str, ...], list[Site]] = defaultdict(list)
    for site in before:
        gone[key(site)].append(site)
    new = []
    for site in after:
        if partners := gone.get(key(site)):
            partners.pop()
        else:
            new.append(site)
    return [site for partners in gone.values() for site in partners], new


def _kind(place: Place) -> str:
    """The kind of unsafe place that a node is, empty for none."""
    node = place.node
    if node.type == "unsafe_block":
        return "block"
    if node.type in ("impl_item", "trait_item"):
        unsafe = any(child.type == "unsafe" for child in node.children)
        return node.type.removesuffix("_item") if unsafe else ""
    if node.type in ("function_item", "function_signature_item"):
        modifiers = (one for one in node.children if one.type == "function_modifiers")
        unsafe = any(one.type == "unsafe" for each in modifiers for one in each.children)
        holder = _holder(place)
        foreign = holder is not None and holder.type == "foreign_mod_item"
        return "fn" if unsafe and not foreign else ""
    if node.type == "unsafe" and place.parent and place.parent.node.type == "token_tree":
        after = next((one for one in place.after() if one.type not in COMMENTS), None)
        if after and _is_braces(after):
            return "block"
        return "impl" if after and after.text == b"impl" else ""
    return ""


def _holder(place: Place) -> Node | None:
    """The impl, trait or extern block whose member a function is."""
    return place.parent.parent.node if place.parent and place.parent.parent else None


def _is_braces(node: Node) -> bool:
    first = node.child(0) if node.type == "token_tree" else None
    return first is not None and first.type == "{"


def _within(place: Place) -> str:
    """The path of the items around it, such as ``impl Drop for Foo::drop``."""
    names = []
    for one in place.around():
        if one.node.type == "impl_item":
            names.append(words(one.node, ids(one.node, "body")))
        elif one.node.type in _ENCLOSING:
            names.append(words(one.node.child_by_field_name("name")))
    return "::".join(reversed(names))


def _code(place: Place, kind: str) -> str:
    if place.node.type != "unsafe":
        return words(place.node, () if kind == "block" else ids(place.node, "body"))
    # In a macro's arguments: the tokens up to and with the block's or before the impl's braces.
    tokens = ["unsafe"]
    for after in place.after():
        if kind == "block" or not _is_braces(after):
            tokens.append(words(after))
        if _is_braces(after) or len(tokens) > _STATEMENT:
            break
    return " ".join(tokens)


class _Notes:
    """The comments and attributes of a file that have their rows to themselves."""

    def __init__(self, source: Source) -> None:
        self._rows: dict[int, str] = {}
        self._says: dict[tuple[int, re.Pattern[str]], bool] = {}
        for place in source.places:
            node = place.node
            if node.type not in COMMENTS + ATTRIBUTES:
                continue
            first, last = node.start_point.row, node.end_point.row
            if source.lines[first][: node.start_point.column].strip():
                continue
            # A documentation comment ends at the start of the next row.
            whole = last > first and node.end_point.column == 0
            if not whole and source.lines[last][node.end_point.column :].strip():
                continue
            last -= whole
            self._rows |= dict.fromkeys(range(first + 1, last + 1), "")
            self._rows[first] = (node.text or b"").decode(errors="replace")

    def above(self, row: int, what: re.Pattern[str]) -> bool:
        """Whether it stands in the comments and attributes right above a row."""
        key = row, what
        if key not in self._says:
            first = row
            while first - 1 in self._rows:
                first -= 1
            text = "\n".join(self._rows[number] for number in range(first, row))
            self._says[key] = bool(what.search(text))
        return self._says[key]


def _said(source: Source, notes: _Notes, place: Place, kind: str) -> bool:
    row = place.node.start_point.row
    if kind in ("fn", "trait"):
        return notes.above(row, _SAFETY_SECTION) or (kind == "fn" and _of_trait(place))
    column = place.node.start_point.column
    before = source.lines[row][max(0, column - _LINE) : column].decode(errors="replace")
    rows = dict.fromkeys((row, *_rows(place)))
    return bool(_SAFETY_HERE.search(before)) or any(notes.above(one, _SAFETY) for one in rows)


def _of_trait(place: Place) -> bool:
    """Whether a function is a trait's, implemented: the trait says what callers must keep."""
    holder = _holder(place)
    return bool(holder and holder.type == "impl_item" and holder.child_by_field_name("trait"))


class _Allowed:
    """What lints of clippy are turned off where, by attributes."""

    def __init__(self) -> None:
        self._known: dict[tuple[Place, str], bool] = {}

    def at(self, place: Place, lint: str) -> bool:
        """Whether a lint is turned off for a place, there or further out."""
        key = place, lint
        if key not in self._known:
            outside = place.parent is not None and self.at(place.parent, lint)
            self._known[key] = outside or any(lint in words(one) for one in _attributes(place))
        return self._known[key]


def _attributes(place: Place) -> Iterator[Node]:
    """The attributes of a place: those above it, and those at its own beginning."""
    for before in place.before():
        if before.type not in COMMENTS + ATTRIBUTES:
            break
        if before.type in ATTRIBUTES:
            yield before
    for inside in place.node.children:
        # In a file, or behind an opening brace.
        if inside.type not in (*COMMENTS, *ATTRIBUTES, "{"):
            break
        if inside.type in ATTRIBUTES:
            yield inside


def _rows(place: Place) -> Iterator[int]:
    """The rows above which a comment may be a block's or an impl's."""
    for holder in place.around():
        if holder.node.type in _HOLDERS:
            return
        if holder.node.type == "token_tree":
            # There are no statements inside a macro's arguments: back to where one would begin.
            following = place.node
            for before in islice(place.before(), _STATEMENT):
                if _ends_statement(before, following):
                    break
                yield before.start_point.row
                following = before
            if _is_braces(holder.node):
                return
        place = holder
        yield holder.node.start_point.row


def _ends_statement(token: Node, following: Node) -> bool:
    """In a macro's arguments; a comma ends something only where a line ends with it."""
    if token.type == ",":
        return following.start_point.row > token.end_point.row
    return token.type in (";", "{", "(", "[")
