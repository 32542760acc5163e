"""Rust code as syntax trees.

tree-sitter reads what does not compile and code of any configuration, and runs nothing of it.
What macros expand to is not seen; what they are given is, as tokens.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache

import tree_sitter_rust
from tree_sitter import Language, Node, Parser

COMMENTS = ("line_comment", "block_comment")
ATTRIBUTES = ("attribute_item", "inner_attribute_item")

# A patch may bring a file made to keep its reader busy. Of the kernel's own files, none has a
# quarter of this size or a third of this depth.
LARGEST = 1 << 20
DEEPEST = 250


class Unreadable(Exception):
    """A file too large or too deeply nested to be looked at; the message says which."""


@cache
def _parser() -> Parser:
    return Parser(Language(tree_sitter_rust.language()))


@dataclass(frozen=True, eq=False, slots=True)
class Place:
    """A node and where it is; asked for a parent or neighbour, tree-sitter itself searches for it
    from the root each time."""

    node: Node
    parent: Place | None
    siblings: list[Node]
    index: int

    def before(self) -> Iterator[Node]:
        """The siblings before it, the nearest first."""
        return (self.siblings[index] for index in range(self.index - 1, -1, -1))

    def after(self) -> Iterator[Node]:
        """The siblings after it, the nearest first."""
        return (self.siblings[index] for index in range(self.index + 1, len(self.siblings)))

    def around(self) -> Iterator[Place]:
        """What it is in, from the inside out."""
        place = self.parent
        while place:
            yield place
            place = place.parent


@dataclass(frozen=True)
class Source:
    """A parsed file; ``places`` are all its nodes in the order of the text."""

    path: str
    root: Node
    lines: tuple[bytes, ...]
    places: tuple[Place, ...]

    @classmethod
    def parse(cls, path: str, text: str) -> Source:
        """Any text: what is no Rust becomes nodes that say so. Raises :class:`Unreadable`."""
        data = text.encode(errors="replace")
        if len(data) > LARGEST:
            raise Unreadable(f"{path} is larger than {LARGEST >> 10} KiB")
        root = _parser().parse(data).root_node
        places = []
        stack = [(Place(root, None, [root], 0), 1)]
        while stack:
            place, depth = stack.pop()
            if depth > DEEPEST:
                raise Unreadable(f"{path} is nested deeper than {DEEPEST} levels")
            places.append(place)
            inside = place.node.children
            for index in range(len(inside) - 1, -1, -1):
                stack.append((Place(inside[index], place, inside, index), depth + 1))
        return cls(path, root, tuple(data.split(b"\n")), tuple(places))


def walk(node: Node) -> Iterator[Node]:
    """A node and all below it, in the order of the text."""
    stack = [node]
    while stack:
        one = stack.pop()
        yield one
        stack.extend(reversed(one.children))


def words(node: Node | None, without: Collection[int] = ()) -> str:
    """A node's text word by word, whatever its layout, without comments and without the nodes
    whose ids ``without`` has."""
    found: list[str] = []
    stack = [node] if node else []
    while stack:
        one = stack.pop()
        if one.id in without or one.type in COMMENTS:
            continue
        if one.child_count and one.type not in ("string_literal", "lifetime"):
            stack.extend(reversed(one.children))
        elif one.text:
            found.append(one.text.decode(errors="replace"))
    # A comma before a closing bracket comes and goes with the line breaks.
    return re.sub(r" ,(?= [)\]}>])", "", " ".join(found))


def ids(node: Node, *fields: str) -> set[int]:
    """The ids of a node's children in some fields, as far as it has them."""
    return {one.id for name in fields if (one := node.child_by_field_name(name))}
