"""A mutant: a small edit of a project as ``kdrv new`` writes it, as data."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from kdrv.core.errors import UsageError
from kdrv.scaffold.api import ScaffoldRequest, create

Language = Literal["rust", "c"]
DATA = Path(__file__).parent


class Edit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is found exactly once in a file (empty: the driver's source) becomes ``put``."""

    find: str
    put: str
    file: str = ""


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mutant of a file's driver."""

    name: str
    kind: str
    words: str
    edit: tuple[Edit, ...]


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of mutants of one driver: a device's, in a language."""

    device: str
    language: Language
    mutant: tuple[Row, ...]


@dataclass(frozen=True)
class Driver:
    """A driver that ``kdrv new`` writes: the Rust one of a device, or its C twin."""

    device: str
    language: Language

    @property
    def name(self) -> str:
        """As it stands in a table."""
        return f"{self.device}, {self.language}"

    @property
    def module(self) -> str:
        """Its name in /proc/modules."""
        return self.device if self.language == "rust" else f"{self.device}_c"

    @property
    def source(self) -> str:
        """Its file in the project."""
        return f"{self.module}.{'rs' if self.language == 'rust' else 'c'}"

    def write(self, folder: Path) -> Path:
        """Write the project below ``folder``, with this driver as the one under test."""
        request = ScaffoldRequest(self.device, "pci", self.device, twin=True, directory=folder)
        project = create(request).path
        other = Driver(self.device, "c" if self.language == "rust" else "rust")
        for edit in (
            Edit(f'module = "{self.device}"', f'module = "{self.module}"', "kdrv.toml"),
            Edit(f'twin = "{self.device}_c"\n', "", "kdrv.toml"),
            # The other one need not be built.
            Edit(f" += {other.module}.o\n", " += \n", "Kbuild"),
        ):
            apply(edit, project, self.source)
        return project


@dataclass(frozen=True)
class Mutant:
    """A driver with a bug of some ``kind``; ``words`` say which."""

    driver: Driver
    name: str
    kind: str
    words: str
    edits: tuple[Edit, ...]

    def write(self, folder: Path) -> Path:
        """Write the project below ``folder``. Raises :class:`UsageError` where it does not fit."""
        project = self.driver.write(folder)
        for edit in self.edits:
            apply(edit, project, self.driver.source)
        return project


def apply(edit: Edit, project: Path, source: str) -> None:
    """Carry an edit out. Raises :class:`UsageError` when its text is not found exactly once."""
    path = project / (edit.file or source)
    text = path.read_text()
    if (count := text.count(edit.find)) != 1:
        raise UsageError(
            f"{path.name} has {count} places like this: {edit.find.strip()!r}",
            expected="exactly one, as kdrv new writes it",
            remedy=f"make the mutant fit the driver: {DATA}",
        )
    path.write_text(text.replace(edit.find, edit.put))


def mutants(folder: Path = DATA) -> Iterator[Mutant]:
    """All mutants of a folder's tables, driver by driver."""
    for path in sorted(folder.glob("*.toml")):
        table = msgspec.convert(tomllib.loads(path.read_text()), Table)
        driver = Driver(table.device, table.language)
        for row in table.mutant:
            yield Mutant(driver, row.name, row.kind, row.words, row.edit)
