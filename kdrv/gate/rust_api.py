"""The public items of rust/kernel, and how they change.

An item is known by its path and compared by its signature: names of arguments, private fields,
values, bodies, comments and layout do not matter. Hidden items (``#[doc(hidden)]``), items of
private modules and inherent impls of private types of the same file are not public; whether a
file's module is, its file does not say, and it counts.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from tree_sitter import Node

from kdrv.gate.result import Changed
from kdrv.gate.rust_parse import COMMENTS, Source, ids, walk, words

ROOT = PurePosixPath("rust/kernel")

_KINDS = {
    "function_item": "fn",
    "function_signature_item": "fn",
    "struct_item": "struct",
    "union_item": "union",
    "enum_item": "enum",
    "trait_item": "trait",
    "type_item": "type",
    "associated_type": "type",
    "const_item": "const",
    "static_item": "static",
    "mod_item": "mod",
    "use_declaration": "use",
}
_TYPES = ("struct_item", "enum_item", "union_item")


@dataclass(frozen=True)
class Item:
    """A public item: ``text`` is its signature, ``key`` what of that users depend on."""

    name: str
    text: str
    key: str
    file: str
    line: int


@dataclass(frozen=True)
class ItemChange:
    """What became of an item. ``file`` and ``line`` are where it is, or was when it is gone."""

    changed: Changed
    name: str
    before: str
    after: str
    file: str
    line: int


def is_public_file(path: str) -> bool:
    """Whether a file is of the crate that drivers are written against."""
    return PurePosixPath(path).is_relative_to(ROOT) and path.endswith(".rs")


def items(source: Source) -> tuple[Item, ...]:
    """The public items of a file of rust/kernel."""
    module = PurePosixPath(source.path).relative_to(ROOT).with_suffix("").parts
    if module[-1] in ("lib", "mod"):
        module = module[:-1]
    private = frozenset(
        words(place.node.child_by_field_name("name"))
        for place in source.places
        if place.node.type in _TYPES and not _visibility(place.node)
    )
    reader = _Reader(source.path, private)
    return tuple(reader.read(source.root, "::".join(("kernel", *module))))


def compare(before: Iterable[Item], after: Iterable[Item]) -> tuple[ItemChange, ...]:
    """What changes from one set of items to another, by name and then signature."""
    olds, news = _by_name(before), _by_name(after)
    found = []
    for name in dict.fromkeys((*olds, *news)):
        gone = _without(olds.get(name, []), news.get(name, []))
        fresh = _without(news.get(name, []), olds.get(name, []))
        for old, new in zip(gone, fresh, strict=False):
            found.append(_change(Changed.CHANGED, old, new))
        found += [_change(Changed.GONE, old, None) for old in gone[len(fresh) :]]
        found += [_change(Changed.ADDED, None, new) for new in fresh[len(gone) :]]
    return tuple(found)


def _without(some: list[Item], others: list[Item]) -> list[Item]:
    """Those of ``some`` that have no equal in ``others``, one against one."""
    known = Counter(item.key for item in others)
    known.subtract(item.key for item in reversed(some))
    left = []
    for item in reversed(some):
        if known[item.key] < 0:
            known[item.key] += 1
            left.append(item)
    return left[::-1]


def _change(changed: Changed, old: Item | None, new: Item | None) -> ItemChange:
    here = new or old
    assert here
    return ItemChange(
        changed, here.name, old.text if old else "", new.text if new else "", here.file, here.line
    )


def _by_name(found: Iterable[Item]) -> dict[str, list[Item]]:
    names: dict[str, list[Item]] = defaultdict(list)
    for item in found:
        names[item.name].append(item)
    return names


@dataclass(frozen=True)
class _Reader:
    """Reads one file; ``private`` are the names of its types that are not public."""

    file: str
    private: frozenset[str]

    def read(self, holder: Node, path: str) -> Iterator[Item]:
        """The items of a file or of a module's braces."""
        for node, attributes in _with_attributes(holder):
            if "doc ( hidden )" in attributes:
                continue
            if node.type == "macro_definition":
                if "macro_export" in attributes:
                    rules = [one for one in node.children if one.type == "macro_rule"]
                    key = " ; ".join(words(one.child_by_field_name("left")) for one in rules)
                    name = f"kernel::{words(node.child_by_field_name('name'))}!"
                    yield self._item(node, name, f"macro {key}", key)
            elif node.type == "impl_item":
                yield from self._impl(node, path)
            elif node.type in _KINDS and _visibility(node) == "pub":
                yield from self._public(node, path)

    def _public(self, node: Node, path: str) -> Iterator[Item]:
        name = words(node.child_by_field_name("name") or node.child_by_field_name("argument"))
        inside = f"{path}::{name.replace(' ', '')}"
        body = node.child_by_field_name("body")
        if node.type == "trait_item" and body:
            head = words(node, {body.id})
            needed = sorted(
                words(one.child_by_field_name("name"))
                for one in body.children
                if one.type in _KINDS and not _has_default(one)
            )
            yield self._item(node, inside, head, f"{head} needs {' '.join(needed)}")
            yield from self._members(body, inside, head="", public=True)
        else:
            yield self._item(node, inside, *_signature(node))
            if node.type == "mod_item" and body:
                yield from self.read(body, inside)

    def _impl(self, node: Node, path: str) -> Iterator[Item]:
        kind = node.child_by_field_name("type")
        body = node.child_by_field_name("body")
        base = words((kind and kind.child_by_field_name("type")) or kind).replace(" ", "")
        if base in self.private:
            return
        head = words(node, {body.id} if body else ())
        if node.child_by_field_name("trait"):
            types = [words(one) for one in body.children if one.type == "type_item"] if body else []
            yield self._item(node, f"{path}::{_tight(head)}", head, f"{head} {' '.join(types)}")
        elif body:
            yield from self._members(body, f"{path}::{base}", head, public=False)

    def _members(self, body: Node, path: str, head: str, *, public: bool) -> Iterator[Item]:
        """The functions, types and constants of a trait, all ``public``, or of an impl."""
        for node, attributes in _with_attributes(body):
            if node.type not in _KINDS or "doc ( hidden )" in attributes:
                continue
            if public or _visibility(node) == "pub":
                text, key = _signature(node)
                name = words(node.child_by_field_name("name"))
                yield self._item(node, f"{path}::{name}", text, f"{head} {key}")

    def _item(self, node: Node, name: str, text: str, key: str) -> Item:
        return Item(name, _tight(text), key, self.file, node.start_point.row + 1)


def _with_attributes(holder: Node) -> Iterator[tuple[Node, str]]:
    attributes = ""
    for node in holder.children:
        if node.type == "attribute_item":
            attributes += words(node)
        elif node.type not in COMMENTS:
            yield node, attributes
            attributes = ""


def _visibility(node: Node) -> str:
    return next((words(one) for one in node.children if one.type == "visibility_modifier"), "")


def _has_default(node: Node) -> bool:
    return bool(node.child_by_field_name("body") or node.child_by_field_name("value"))


def _signature(node: Node) -> tuple[str, str]:
    """An item's signature to read and to compare: without the names of arguments."""
    unseen = {one.id for one in walk(node) if one.type == "attribute_item"}
    unseen |= {one.id for one in node.children if one.type == ";"}
    names: set[int] = set()
    if node.type in ("struct_item", "union_item"):
        unseen |= set(_private_fields(node))
    elif node.type in ("const_item", "static_item"):
        unseen |= {one.id for one in node.children if one.type == "="} | ids(node, "value")
    elif node.type in ("function_item", "function_signature_item"):
        arguments = [one for one in walk(node) if one.type == "parameter"]
        names = {one for argument in arguments for one in ids(argument, "pattern")}
        unseen |= ids(node, "body")
    elif node.type == "mod_item":
        unseen |= ids(node, "body")
    return words(node, unseen), words(node, unseen | names)


def _private_fields(node: Node) -> Iterator[int]:
    """The ids of the fields, and of their commas, that users cannot name."""
    body = node.child_by_field_name("body")
    if body and body.type == "field_declaration_list":
        fields = [one for one in body.children if one.type == "field_declaration"]
        yield from (one.id for one in fields if _visibility(one) != "pub")
        yield from (one.id for one in body.children if one.type == ",")
    elif body:
        public = False
        for one in body.children:
            if one.type == "visibility_modifier":
                public = words(one) == "pub"
            elif one.is_named and one.type not in ("attribute_item", "line_comment"):
                if not public:
                    yield one.id
                public = False


_TIGHT = (
    (re.compile(r" (?=[,;:?)\]>.(])"), ""),
    (re.compile(r"(?<=[(\[<&#!]) "), ""),
    (re.compile(r"(?<=:) : ?|::\s+"), "::"),
    (re.compile(r" <(?=\S)"), "<"),
)


def _tight(text: str) -> str:
    """Words set as Rust is written, roughly: for reading."""
    for pattern, instead in _TIGHT:
        text = pattern.sub(instead, text)
    return text
