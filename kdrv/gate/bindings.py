"""What Rust sees of C in a built kernel: the items that bindgen wrote for it.

rust/Makefile has bindgen make three files: the bindings of the kernel's headers, those of the
helpers (C functions of rust/helpers/ that stand for macros and inline functions), and those of the
uapi headers. An item here is what a Rust author means by its name: a struct comes with its
anonymous parts and bit-fields, and what bindgen merely counts (``_bindgen_ty_17``) is left out.

The files are read line by line as rustfmt lays them out, which bindgen calls: a parser of Rust
would take the better part of a minute for nine megabytes of them.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from kdrv.core.inside import UntrustedFile, open_inside

BINDINGS = "rust/bindings/bindings_generated.rs"
HELPERS = "rust/bindings/bindings_helpers_generated.rs"
UAPI = "rust/uapi/uapi_generated.rs"
FILES = (BINDINGS, HELPERS, UAPI)
"""The generated files in a build directory; of a name that several have, the first one's counts."""

LIMIT = 32 << 20
"""Bytes; a generated file beyond that is no bindgen's."""
HELPER = "helper"

_HEAD = re.compile(
    r"pub (?:(?P<kind>const|static|type|struct|union|enum|fn) (?:mut )?(?P<name>\w+)"
    r"|use self::\w+ as (?P<alias>\w+);)"
)
_IMPL = re.compile(r"impl (?P<name>\w+) \{$")
_IMPL_CONST = re.compile(r"    pub const (?P<name>\w+): [^\n]*;$", re.M)
_BITS = re.compile(
    r"    pub fn (?P<name>\w+)\(&self\) -> (?P<type>[^{\n]{1,200}?) \{\s*unsafe \{\s*"
    r"::core::mem::transmute\(\s*self\s*\.(?P<unit>\w+)\s*"
    r"\.get\((?P<at>\d+)usize, (?P<size>\d+)u8\)"
)
_COUNTED = re.compile(r"\b_bindgen_ty_\d+")
_ANONYMOUS = re.compile(r"__bindgen_ty_\d")
_SUPPORT = ("__Bindgen", "__IncompleteArrayField")
_USUAL = {"#[repr(C)]", "#[derive(Copy, Clone, MaybeZeroable)]", "#[derive(Copy, Clone)]"}
_LINK_NAME = "#[link_name"


@dataclass(frozen=True)
class Symbol:
    """An item of C as Rust sees it.

    ``kind`` is ``fn``, ``static``, ``struct``, ``union``, ``enum``, ``const``, ``type`` or
    ``helper``; ``text`` its declaration. ``file`` is which of :data:`FILES` has it. The constants
    of an enum that is a type of its own are named ``type::CONSTANT``.
    """

    name: str
    kind: str
    text: str
    file: str


def digest_of(build: Path, earlier: str = "") -> str:
    """A digest of the generated files: equal ones have equal symbols.

    Where one is missing it depends on ``earlier`` too, what tells the symbols that there were
    before: :func:`read_symbols` takes the missing ones from there.
    """
    found = [read_inside(build, name) for name in FILES]
    whole = hashlib.sha256()
    for name, data in zip(FILES, found, strict=True):
        whole.update(f"{name} {earlier if data is None else len(data)}\n".encode())
        whole.update(data or b"")
    return whole.hexdigest()[:20]


def read_symbols(build: Path, earlier: Mapping[str, Symbol] | None = None) -> dict[str, Symbol]:
    """The symbols by name of a build directory.

    A C file that does not compile leaves no bindings of it, which does not mean that its symbols
    are gone: what a missing file had is taken over from ``earlier``.
    """
    found: dict[str, Symbol] = {}
    for file in FILES:
        data = read_inside(build, file)
        if data is None:
            kept = (symbol for symbol in (earlier or {}).values() if symbol.file == file)
            symbols = {symbol.name: symbol for symbol in kept}
        else:
            symbols = parse_symbols(data.decode(errors="replace"), file)
        # A helper stands before what bindgen saw under its name.
        found = {**found, **symbols} if file == HELPERS else {**symbols, **found}
    return found


def pack(symbols: Mapping[str, Symbol]) -> bytes:
    """The symbols in a tenth of the space, to be kept."""
    return zlib.compress(msgspec.msgpack.encode(dict(symbols)), 1)


def unpack(data: bytes) -> dict[str, Symbol]:
    """What :func:`pack` has packed. Raises :class:`ValueError` for what it has not."""
    try:
        return msgspec.msgpack.decode(zlib.decompress(data), type=dict[str, Symbol])
    except (zlib.error, msgspec.DecodeError) as error:
        raise ValueError(f"not packed symbols: {error}") from error


def read_inside(build: Path, name: str, limit: int = LIMIT) -> bytes | None:
    """A file of a build directory that strangers' makefiles wrote; ``None`` where there is none
    that can be trusted (:mod:`kdrv.core.inside`), or none of at most ``limit`` bytes."""
    try:
        with open_inside(build, Path(name), limit) as stream:
            return stream.read(limit)
    except (FileNotFoundError, UntrustedFile):
        return None


def parse_symbols(text: str, file: str = BINDINGS) -> dict[str, Symbol]:
    """The symbols of one generated file."""
    parts: dict[str, list[tuple[str, str, str]]] = {}
    for name, kind, declaration in _items(text.split("\n")):
        owner = _ANONYMOUS.split(name, maxsplit=1)[0]
        parts.setdefault(owner, []).append((name, kind, declaration))
    found = {}
    for owner, items in parts.items():
        kind = next((kind for name, kind, _ in items if name == owner and kind), items[0][1])
        kind = HELPER if file == HELPERS else kind
        if kind and not owner.startswith(_SUPPORT):
            whole = "\n".join(declaration for _, _, declaration in items)
            found[owner] = Symbol(owner, kind, whole, file)
    return found


def _items(lines: list[str]) -> Iterator[tuple[str, str, str]]:
    """Each item as name, kind and text; what an ``impl`` adds to a type has no kind."""
    attributes: list[str] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if line.startswith("#["):
            attributes.append(line)
            continue
        if line.startswith("pub "):
            begin = at - 1
            closing = "}" if line.endswith("{") else (";", "}")
            while not lines[at - 1].endswith(closing) and at < len(lines):
                at += 1
            yield from _item(attributes, lines[begin:at])
        elif line.endswith("{"):
            begin = at
            while at < len(lines) and lines[at] != "}":
                at += 1
            if line.endswith('extern "C" {'):
                yield from _foreign(lines[begin:at])
            elif match := _IMPL.match(line):
                yield from _added(match["name"], "\n".join(lines[begin:at]))
        attributes = []


def _item(attributes: list[str], lines: list[str]) -> Iterator[tuple[str, str, str]]:
    match = _HEAD.match(lines[0])
    if not match:
        return
    name = match["name"] or match["alias"]
    if _COUNTED.match(name):
        return
    if attributes:
        # Every type has a default; whether it is derived depends on what it contains.
        shown = (attribute.replace("(Default, ", "(") for attribute in attributes)
        lines = [*(a for a in shown if a not in _USUAL and not a.startswith(_LINK_NAME)), *lines]
    text = "\n".join(lines)
    if "_bindgen_ty_" in text:
        text = _COUNTED.sub("_bindgen_ty", text)
    yield name, match["kind"] or "type", text


def _foreign(lines: list[str]) -> Iterator[tuple[str, str, str]]:
    """The functions and variables of an ``extern`` block."""
    attributes: list[str] = []
    item: list[str] = []
    for line in lines:
        plain = line[4:]
        if not item and plain.startswith("#["):
            attributes.append(plain)
            continue
        item.append(plain)
        if plain.endswith(";"):
            yield from _item(attributes, item)
            attributes, item = [], []


def _added(name: str, body: str) -> Iterator[tuple[str, str, str]]:
    """The bit-fields of a struct, and the constants of an enum that is a type."""
    if constants := list(_IMPL_CONST.finditer(body)):
        for one in constants:
            yield f"{name}::{one['name']}", "const", one.group().strip()
        return
    fields = [
        f"// {one['unit']}: {one['name']}: {one['type']}, {one['size']} bits at {one['at']}"
        for one in _BITS.finditer(body)
    ]
    if fields:
        yield name, "", "\n".join(fields)
