"""The values of a bus's options: read from text, checked, completed with defaults."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from kdrv.core.errors import UsageError
from kdrv.scaffold.catalog import Bus, Option, OptionType, Value

Fill = Callable[[str], str]
"""Renders a default, which may hold ``{{ name }}``."""

_TRUE = {"true", "yes", "y", "on", "1"}
_FALSE = {"false", "no", "n", "off", "0"}

PATTERNS: Mapping[OptionType, tuple[str, str]] = {
    OptionType.STRING: (r"[ !#-\[\]-~]*", 'printable ASCII without " and \\'),
    # Vendor and device as lspci -nn shows them; all ones is what an absent device reads as.
    OptionType.PCI_ID: (
        r"(?!ffff:)[0-9a-f]{4}:[0-9a-f]{4}",
        "VENDOR:DEVICE, four hexadecimal digits each, such as 1234:11e8",
    ),
    # Devicetree Specification 2.3.1: "manufacturer,model"; shorter than the kernel's 127.
    OptionType.COMPATIBLE: (
        r"(?=.{3,64}$)[a-z0-9][a-z0-9-]*,[a-zA-Z0-9][a-zA-Z0-9,._+-]*",
        "vendor,device of at most 64 letters, digits and - . _ +, such as acme,widget",
    ),
    # ACPI Specification 6.1.5: a PNP id (AAA####) or an ACPI id (NNNN####).
    OptionType.ACPI_ID: (
        r"[A-Z]{3}[0-9A-F]{4}|[A-Z0-9]{4}[0-9A-F]{4}",
        "three or four capitals and four hexadecimal digits, such as LNUXBEEF or PNP0C02",
    ),
}


def read_value(option: Option, given: Value) -> Value:
    """A value of the option's type. Raises :class:`UsageError` naming what is expected."""
    text = str(given).strip()
    match option.type:
        case OptionType.BOOL:
            return _boolean(option, text)
        case OptionType.INT:
            return _integer(option, text)
        case OptionType.CHOICE:
            for choice in option.choices:
                if str(choice) == text:
                    return choice
            raise _refused(option, text, f"one of: {', '.join(map(str, option.choices))}")
    pattern, expected = PATTERNS[option.type]
    if option.type is OptionType.PCI_ID:
        text = text.lower()
    if not re.fullmatch(pattern, text) and text != option.default:
        raise _refused(option, text, expected)
    return text


def resolve(bus: Bus, given: Mapping[str, Value], fill: Fill) -> dict[str, Value]:
    """All options of a bus: the given ones, the others by default.

    Raises :class:`UsageError` for an unknown option, a bad value, a missing one without default,
    and one that is on without what it requires.
    """
    for name in given:
        if bus.option(name) is None:
            known = ", ".join(option.name for option in bus.options)
            raise UsageError(
                f"the {bus.name} templates have no option {name!r}",
                expected=f"one of: {known}" if known else "no options",
                remedy="kdrv new --list",
            )
    values: dict[str, Value] = {}
    for option in bus.options:
        value = given.get(option.name, option.default)
        if value is None:
            raise UsageError(
                f"the option {option.name} of {bus.name} has no default ({option.help})",
                expected=f"a value of type {option.type}",
                remedy=f"kdrv new ... -o {option.name}=VALUE",
            )
        values[option.name] = read_value(option, fill(value) if isinstance(value, str) else value)
    for option in bus.options:
        lacking = [name for name in option.requires if not values[name]]
        if values[option.name] and lacking:
            raise UsageError(
                f"the option {option.name} needs {lacking[0]}, which is off",
                expected=f"{', '.join(option.requires)} on as well",
                remedy=f"-o {lacking[0]}=true, or -o {option.name}=false",
            )
    return values


def _boolean(option: Option, text: str) -> bool:
    if text.lower() not in _TRUE | _FALSE:
        raise _refused(option, text, "true or false")
    return text.lower() in _TRUE


def _integer(option: Option, text: str) -> int:
    low = "" if option.min is None else f" from {option.min}"
    high = "" if option.max is None else f" to {option.max}"
    try:
        value = int(text, 0)
    except ValueError:
        raise _refused(option, text, f"a whole number{low}{high}") from None
    if (option.min is not None and value < option.min) or (
        option.max is not None and value > option.max
    ):
        raise _refused(option, text, f"a whole number{low}{high}")
    return value


def _refused(option: Option, text: str, expected: str) -> UsageError:
    remedy = "" if option.default is None else f"-o {option.name}={option.default}"
    return UsageError(
        f"{text!r} is no value for the option {option.name} ({option.help})",
        expected=expected,
        remedy=remedy,
    )
