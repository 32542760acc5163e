"""What the cache holds, how large it is, and pruning it."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from kdrv.core.context import Context
from kdrv.core.store import Entry, Store, remove_tree

PLAIN = ("ccache", "apt", "demo")
"""Directories below the cache that are no entries: compiler caches, apt's state, the demo."""


@dataclass(frozen=True)
class Item:
    """One thing in the cache. ``used_at`` is in seconds since the epoch."""

    kind: str
    about: str
    path: Path
    bytes: int
    used_at: float
    finished: bool


@dataclass(frozen=True)
class Survey:
    """All of the cache, the most recently used first."""

    root: Path
    items: tuple[Item, ...]

    @property
    def total(self) -> int:
        """Bytes on disk."""
        return sum(item.bytes for item in self.items)


def survey(ctx: Context) -> Survey:
    """Look at the whole cache; takes a second or two for millions of blocks."""
    store = Store(ctx)
    items = [
        Item(e.kind, _about(e), e.path, _bytes(e.path), e.used_at, True) for e in store.entries()
    ]
    for path in store.unfinished():
        used = path.stat().st_mtime
        items.append(Item(path.parent.name, path.name, path, _bytes(path), used, False))
    for kind in PLAIN:
        for path in sorted((store.root / kind).glob("*/")):
            used = path.stat().st_mtime
            items.append(Item(kind, path.name, path, _bytes(path), used, True))
    return Survey(store.root, tuple(sorted(items, key=lambda item: -item.used_at)))


def prune(ctx: Context, *, days: float | None = None, keep: int | None = None) -> list[Item]:
    """Remove interrupted entries, those unused for ``days``, and all but ``keep`` of each kind."""
    store = Store(ctx)
    seen: dict[str, int] = defaultdict(int)
    removed = []
    for item in survey(ctx).items:
        seen[item.kind] += 1
        old = days is not None and time.time() - item.used_at >= days * 86400
        surplus = keep is not None and seen[item.kind] > keep
        if item.finished and not old and not surplus:
            continue
        with ctx.events.step(f"removing {item.kind} {item.about}"):
            if item.kind in PLAIN:
                remove_tree(item.path)
            else:
                store.remove(item.path)
        removed.append(item)
    return removed


def _about(entry: Entry) -> str:
    facts = entry.facts
    match entry.kind:
        case "toolchain":
            return f"Debian root, {len(facts.get('packages', ()))} packages"
        case "source":
            return f"{facts.get('package')} {facts.get('version')}"
        case "kernel" | "workspace":
            return f"Linux {facts.get('version')} {facts.get('arch')}, lane {facts.get('lane')}"
        case "module":
            return f"{facts.get('directory')}, lane {facts.get('lane')}"
    return entry.key


def _bytes(path: Path) -> int:
    total = 0
    for place, _, names in os.walk(path):
        for name in names:
            try:
                total += Path(place, name).lstat().st_blocks * 512
            except FileNotFoundError:
                continue
    return total
