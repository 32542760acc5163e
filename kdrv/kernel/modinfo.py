"""What a .ko file says of itself (its ``.modinfo`` section)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from kdrv.core.errors import UsageError


@dataclass(frozen=True)
class ModuleInfo:
    """``release`` is the kernel it was built for, the first word of its vermagic."""

    name: str
    release: str
    depends: tuple[str, ...]


def read_module(path: Path) -> ModuleInfo:
    """Read a module. Raises :class:`UsageError` when the file is no kernel module."""
    try:
        with path.open("rb") as file:
            section = ELFFile(file).get_section_by_name(".modinfo")
            data: bytes = section.data() if section else b""
    except (OSError, ELFError) as error:
        raise UsageError(
            f"{path} is not a kernel module: {error}",
            expected="an ELF file that the kernel's make built (.ko)",
            remedy=f"kdrv build {path.parent}",
        ) from error
    pairs = (entry.partition("=") for entry in data.decode(errors="replace").split("\0"))
    fields = {name: value for name, _, value in pairs if value}
    if "vermagic" not in fields:
        raise UsageError(
            f"{path} is not a kernel module: it has no vermagic",
            expected="a file that the kernel's make built (.ko)",
            remedy=f"kdrv build {path.parent}",
        )
    depends = tuple(name for name in fields.get("depends", "").split(",") if name)
    return ModuleInfo(fields.get("name", path.stem), fields["vermagic"].split()[0], depends)
