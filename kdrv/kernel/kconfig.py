"""Files of Kconfig settings: ``.config`` and fragments, read, merged and compared.

The format is that of ``conf_read_simple`` in the kernel's scripts/kconfig/confdata.c, read more
strictly: the kernel only warns about a line it does not understand, and the setting is lost.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kdrv.core.errors import UsageError

PREFIX = "CONFIG_"
_SET = re.compile(r"CONFIG_(\w+)=(.*)")
_UNSET = re.compile(r"# CONFIG_(\w+) is not set")
_VALUE = re.compile(r'[ymn]|-?[0-9]+|0[xX][0-9a-fA-F]+|"(?:[^"\\]|\\.)*"')


@dataclass(frozen=True)
class Setting:
    """One symbol's value as a file asks for it.

    ``symbol`` has no ``CONFIG_``. ``value`` is ``y``, ``m``, ``n``, a number, or a string without
    its quotes and escapes. ``file`` and ``line`` say where it stands. ``replaced`` are the earlier
    settings of the same symbol that this one overrode, oldest first.
    """

    symbol: str
    value: str
    file: Path | None = None
    line: int = 0
    replaced: tuple[Setting, ...] = field(default=(), compare=False)

    @property
    def place(self) -> str:
        """``file:line``, or an empty string when it came from no file."""
        return f"{self.file}:{self.line}" if self.file else ""

    def __str__(self) -> str:
        quoted = self.value if _VALUE.fullmatch(self.value) else quote(self.value)
        return f"{PREFIX}{self.symbol}={quoted}"


@dataclass(frozen=True)
class Missing:
    """A setting the final configuration does not honour; ``got`` is what it has instead."""

    setting: Setting
    got: str


def quote(value: str) -> str:
    """A string as a value in a .config: in quotes, with ``\\`` and ``"`` escaped."""
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


def unquote(value: str) -> str:
    """The text of a quoted value; any other value unchanged."""
    if len(value) > 1 and value[0] == value[-1] == '"':
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    return value


def parse_settings(text: str, file: Path | None = None) -> dict[str, Setting]:
    """The settings in ``text``, by symbol; a later line wins over an earlier one.

    Raises :class:`UsageError` with file and line for a line that is no setting.
    """
    settings: dict[str, Setting] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if found := _UNSET.fullmatch(line.strip()):
            symbol, value = found[1], "n"
        elif not line.strip() or line.lstrip().startswith("#"):
            continue
        elif (found := _SET.fullmatch(line.strip())) and _VALUE.fullmatch(found[2]):
            symbol, value = found[1], unquote(found[2])
        else:
            raise UsageError(
                f"{file or 'configuration'}:{number}: {line.strip()!r} is no Kconfig setting",
                expected='CONFIG_NAME=y, =m, =n, a number or a "string"; comments start with #',
                remedy=f"correct line {number} of {file or 'the configuration'}",
            )
        _put(settings, Setting(symbol, value, file, number))
    return settings


def read_settings(file: Path) -> dict[str, Setting]:
    """The settings in a ``.config`` or fragment; see :func:`parse_settings`.

    Raises :class:`UsageError` when the file cannot be read.
    """
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        raise UsageError(
            f"cannot read the configuration {file}: {reason}",
            expected="a .config or a fragment of one: lines such as CONFIG_PCI=y",
        ) from error
    return parse_settings(text, file)


def merge(*fragments: Mapping[str, Setting]) -> dict[str, Setting]:
    """All settings together; a later fragment wins, and remembers what it replaced."""
    settings: dict[str, Setting] = {}
    for fragment in fragments:
        for setting in fragment.values():
            _put(settings, setting)
    return settings


def compare(requested: Mapping[str, Setting], final: Mapping[str, Setting]) -> tuple[Missing, ...]:
    """What was requested and is not in the final configuration, in the order of the request.

    A symbol that the final ``.config`` does not mention is ``n``.
    """
    missing = []
    for setting in requested.values():
        present = final.get(setting.symbol)
        got = present.value if present else "n"
        if not same_value(setting.value, got):
            missing.append(Missing(setting, got))
    return tuple(missing)


def same_value(wanted: str, got: str) -> bool:
    """Whether two values mean the same: numbers by value, as Kconfig writes 0x10 for 0X010."""
    if wanted == got or (wanted == "" and got == "n"):
        return True
    try:
        return int(wanted, 0) == int(got, 0)
    except ValueError:
        return False


def _put(settings: dict[str, Setting], setting: Setting) -> None:
    if earlier := settings.get(setting.symbol):
        replaced = (*earlier.replaced, Setting(*_fields(earlier)), *setting.replaced)
        setting = Setting(*_fields(setting), replaced=replaced)
    settings[setting.symbol] = setting


def _fields(setting: Setting) -> tuple[str, str, Path | None, int]:
    return setting.symbol, setting.value, setting.file, setting.line
