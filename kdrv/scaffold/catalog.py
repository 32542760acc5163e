"""The buses that ``kdrv new`` knows: directories of templates, each with a ``bus.toml``."""

from __future__ import annotations

import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from kdrv.core.errors import SetupError, UsageError

TEMPLATES = Path(__file__).resolve().parent / "templates"
"""Where the templates are, in a checkout as in an installed package."""

Value = bool | int | str
"""What an option or a key of a device can be."""


class OptionType(StrEnum):
    """What values an option takes; ``choice`` has a list of them."""

    BOOL = "bool"
    INT = "int"
    CHOICE = "choice"
    STRING = "string"
    PCI_ID = "pci-id"
    COMPATIBLE = "compatible"
    ACPI_ID = "acpi-id"


class Option(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[[option]]``: something to choose. Without a ``default`` it must be given or is asked for.

    ``min`` and ``max`` bound an ``int``. ``requires`` are boolean options that must be on when
    this one is on.
    """

    name: str
    help: str
    type: OptionType
    default: Value | None = None
    min: int | None = None
    max: int | None = None
    choices: tuple[int | str, ...] = ()
    requires: tuple[str, ...] = ()


class Kconfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[kconfig]``: the driver's entry, and the directory it has in a kernel tree by default."""

    subdir: str
    help: str
    depends: tuple[str, ...] = ()
    select: tuple[str, ...] = ()


class Kernel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[kernel]``: lines that the lane's configuration needs, as in a .config."""

    config: tuple[str, ...] = ()


class Bus(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    rename={"options": "option", "devices": "device"},
):
    """A ``bus.toml``. ``kernels`` are the series the files are proven against, newest first.

    ``series`` has what differs between them and is too small for a file of its own. ``name`` and
    ``path`` say where it was read.
    """

    title: str
    summary: str
    kernels: tuple[str, ...]
    kconfig: Kconfig
    kernel: Kernel = Kernel()
    series: dict[str, dict[str, Any]] = {}
    options: tuple[Option, ...] = ()
    devices: tuple[dict[str, Value | dict[str, str]], ...] = ()
    name: str = ""
    path: Path = Path()

    def option(self, name: str) -> Option | None:
        """The option of that name."""
        return next((option for option in self.options if option.name == name), None)


def bus_names(templates: Path = TEMPLATES) -> tuple[str, ...]:
    """The names of all buses, in alphabetical order."""
    return tuple(sorted(path.parent.name for path in templates.glob("bus/*/bus.toml")))


def load_bus(name: str, templates: Path = TEMPLATES) -> Bus:
    """Read a bus. Raises :class:`UsageError` for one that does not exist."""
    known = bus_names(templates)
    if name not in known:
        raise UsageError(
            f"kdrv has no templates for a bus named {name!r}",
            expected=f"one of: {', '.join(known)}",
            remedy="kdrv new --list",
        )
    path = templates / "bus" / name
    try:
        bus = msgspec.convert(tomllib.loads((path / "bus.toml").read_text()), Bus)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise SetupError(
            f"{path / 'bus.toml'}: {error}", expected=f"a table as in {templates / 'README.md'}"
        ) from error
    return msgspec.structs.replace(bus, name=name, path=path)


def choose_series(bus: Bus, wanted: str) -> tuple[str, str]:
    """The series whose templates fit a kernel of series ``wanted``, and a note or nothing.

    A newer kernel than any that was proven gets the newest templates and a note. Raises
    :class:`UsageError` for an older one.
    """
    newest = bus.kernels[0]
    if wanted in bus.kernels:
        return wanted, ""
    try:
        too_old = _pair(wanted) < _pair(newest)
    except ValueError:
        raise UsageError(
            f"{wanted!r} is no series of Linux kernels",
            expected=f"one of: {', '.join(bus.kernels)}",
            remedy=f"--kernel {newest}",
        ) from None
    if too_old:
        raise UsageError(
            f"the {bus.name} templates do not fit Linux {wanted}",
            expected=f"one of: {', '.join(bus.kernels)}",
            remedy=f"--kernel {newest}",
        )
    return newest, f"Linux {wanted} is newer than {newest}, which the templates are proven against"


def _pair(series: str) -> tuple[int, int]:
    major, minor = series.split(".")
    return int(major), int(minor)
