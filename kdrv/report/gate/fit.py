"""A result made fit to be shown: subjects, messages and compiler output are other people's."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from enum import Enum
from typing import Any

from kdrv.build.diagnostics import Diagnostic
from kdrv.core.show import clean
from kdrv.gate.result import Check, GateResult, SymbolChange
from kdrv.gate.series import Patch

# What may have several lines; of all else a second line could pass for one of ours.
_LONG = {
    (Patch, "message"),
    (Diagnostic, "detail"),
    (Check, "detail"),
    (SymbolChange, "before"),
    (SymbolChange, "after"),
}


def fit(result: GateResult) -> GateResult:
    """The result with every text cleaned; every view begins with this."""
    return dataclasses.replace(result, **_fields(result))


def line(text: str) -> str:
    """A cleaned text in one line."""
    return re.sub(r"[\n\t]+", " ", clean(text)).strip()


def _fields(value: Any) -> dict[str, Any]:
    kind = type(value)
    return {
        field.name: _fit(getattr(value, field.name), long=(kind, field.name) in _LONG)
        for field in dataclasses.fields(value)
    }


def _fit(value: Any, *, long: bool) -> Any:
    if isinstance(value, Enum):
        return value
    if isinstance(value, str):
        return clean(value) if long else line(value)
    if isinstance(value, tuple):
        return tuple(_fit(item, long=long) for item in value)
    if isinstance(value, Mapping):
        return {line(str(key)): _fit(item, long=long) for key, item in value.items()}
    if dataclasses.is_dataclass(value):
        return dataclasses.replace(value, **_fields(value))  # type: ignore[type-var]
    return value
