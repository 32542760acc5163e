"""The buses that ``kdrv new`` knows: directories of templates, each with a ``bus.toml``.

A bus may have several devices to write a driver for, a directory with a ``device.toml`` each.
"""

from __future__ import annotations

import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from kdrv.core.errors import SetupError, UsageError

TEMPLATES = Path(__file__).resolve().parent / "templates"
"""Where the templates are, in a checkout as in an installed package."""

TWIN = "twin"
"""The directory of a twin in C."""

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
    """``[kconfig]``: the driver's entry, and the directory it has in a kernel tree by default.

    ``twin_select`` is what the twin in C selects besides.
    """

    subdir: str
    help: str
    depends: tuple[str, ...] = ()
    select: tuple[str, ...] = ()
    twin_select: tuple[str, ...] = ()


class Kernel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[kernel]``: lines that the lane's configuration needs, as in a .config."""

    config: tuple[str, ...] = ()


class Bus(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    rename={"options": "option", "devices": "device", "device": "chosen_device"},
):
    """A ``bus.toml``, and over it the chosen device's ``device.toml``, if the bus has such.

    ``kernels`` are the series the files are proven against, newest first; ``series`` has what
    differs between them and is too small for a file of its own. ``default_device`` is chosen when
    nobody chooses. ``name`` and ``device`` say what was read, and ``path`` where its files are.
    """

    title: str
    summary: str
    kernels: tuple[str, ...]
    kconfig: Kconfig
    kernel: Kernel = Kernel()
    series: dict[str, dict[str, Any]] = {}
    options: tuple[Option, ...] = ()
    devices: tuple[dict[str, Value | dict[str, str]], ...] = ()
    default_device: str = ""
    name: str = ""
    device: str = ""
    path: Path = Path()

    @property
    def has_twin(self) -> bool:
        """Whether there is a twin in C."""
        return (self.path / TWIN).is_dir()

    def option(self, name: str) -> Option | None:
        """The option of that name."""
        return next((option for option in self.options if option.name == name), None)


def bus_names(templates: Path = TEMPLATES) -> tuple[str, ...]:
    """The names of all buses, in alphabetical order."""
    return tuple(sorted(path.parent.name for path in templates.glob("bus/*/bus.toml")))


def device_names(bus: str, templates: Path = TEMPLATES) -> tuple[str, ...]:
    """The names of a bus's devices, in alphabetical order; none where there is no choice."""
    return tuple(sorted(p.parent.name for p in (templates / "bus" / bus).glob("*/device.toml")))


def load_bus(name: str, templates: Path = TEMPLATES, device: str = "") -> Bus:
    """Read a bus, with one of its devices (empty: the bus's default).

    Raises :class:`UsageError` for a bus or device that does not exist.
    """
    known = bus_names(templates)
    if name not in known:
        raise UsageError(
            f"kdrv has no templates for a bus named {name!r}",
            expected=f"one of: {', '.join(known)}",
            remedy="kdrv new --list",
        )
    path = templates / "bus" / name
    source = path / "bus.toml"
    try:
        table = tomllib.loads(source.read_text())
        device = _choose_device(name, device or table.get("default_device", ""), templates)
        if device:
            path /= device
            source = path / "device.toml"
            table = _over(table, tomllib.loads(source.read_text()))
        bus = msgspec.convert(table, Bus)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise SetupError(
            f"{source}: {error}", expected=f"a table as in {templates / 'README.md'}"
        ) from error
    return msgspec.structs.replace(bus, name=name, device=device, path=path)


def _choose_device(bus: str, device: str, templates: Path) -> str:
    devices = device_names(bus, templates)
    if device and device not in devices:
        raise UsageError(
            f"kdrv has no {bus} templates for a device named {device!r}",
            expected=f"one of: {', '.join(devices)}" if devices else "no --device for this bus",
            remedy="kdrv new --list",
        )
    return device


def _over(lower: dict[str, Any], upper: dict[str, Any]) -> dict[str, Any]:
    """Two tables as one; where both have a table of the same name, these as one."""
    both = {
        key: _over(lower[key], value)
        for key, value in upper.items()
        if isinstance(value, dict) and isinstance(lower.get(key), dict)
    }
    return {**lower, **upper, **both}


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
