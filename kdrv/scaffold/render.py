"""Layers of templates to the files of a project, all in memory."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from kdrv.core.errors import UsageError

if TYPE_CHECKING:
    import jinja2

SUFFIX = ".j2"


@dataclass(frozen=True)
class Rendered:
    """A file to be: its content, and whether it can be executed."""

    content: bytes
    executable: bool = False


class Renderer:
    """Renders text with one set of variables; an undefined one is an error."""

    def __init__(self, variables: Mapping[str, Any]) -> None:
        self._variables = variables

    def text(self, template: str) -> str:
        """Render a string."""
        return _compiled(template).render(self._variables)

    def layers(self, layers: Sequence[Path]) -> dict[PurePosixPath, Rendered]:
        """Render directories; a file of a later layer replaces one of the same path."""
        sources: dict[PurePosixPath, Path] = {}
        for layer in layers:
            for source in sorted(path for path in layer.rglob("*") if path.is_file()):
                target = self._target(source.relative_to(layer))
                if target is not None:
                    sources[target] = source
        return {target: self._file(source) for target, source in sources.items()}

    def _target(self, path: Path) -> PurePosixPath | None:
        """Where a file goes; ``None`` when a segment of its path comes out empty."""
        parts = [self.text(part) for part in path.parts]
        parts[-1] = parts[-1].removesuffix(SUFFIX)
        return PurePosixPath(*parts) if all(parts) else None

    def _file(self, source: Path) -> Rendered:
        executable = bool(source.stat().st_mode & 0o100)
        if source.suffix != SUFFIX:
            return Rendered(source.read_bytes(), executable)
        return Rendered(self.text(source.read_text()).encode(), executable)


@functools.lru_cache(maxsize=256)
def _compiled(text: str) -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    environment.filters.update(toml=_toml, sentence=_sentence, indent_tab=_indent_tab)
    return environment.from_string(text)


def refuse_clash(name: str, stem: str, rust: str) -> None:
    """Raise :class:`UsageError` when a type made from ``stem`` is another of the source's names.

    ``rust`` was rendered with :data:`PROBE` for the stem, so that its own names stand apart.
    """
    code = re.sub(r'//.*|"(?:[^"\\]|\\.)*"', "", rust)
    words = set(re.findall(r"\w+", code))
    made = {word for word in words if word.startswith(PROBE)}
    for word in sorted(made):
        wanted = stem + word.removeprefix(PROBE)
        if wanted in words - made:
            raise UsageError(
                f"a driver cannot be named {name!r}: its type {wanted} is in use already",
                expected="a name that is no type of the kernel crate",
                remedy=f"kdrv new {name}-driver",
            )


PROBE = "KdrvProbe"
"""Stands for the stem of type names where clashes are looked for."""


def _toml(value: Any) -> str:
    """A string, number, boolean or list as TOML: JSON's notation of them is valid TOML."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _indent_tab(text: str) -> str:
    """Kconfig's help: a tab and two spaces."""
    return "\n".join(f"\t  {line}" if line else "" for line in text.strip().splitlines())
