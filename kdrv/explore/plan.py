"""A plan: everything that decides a simulated run, as a file a person reads and edits.

TOML, decoded and validated by msgspec, written by tomli-w. Bytes are ``{hex = "..."}``; nothing is
``{none = true}``.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from kdrv.core.errors import UsageError
from kdrv.sim.faults import FaultPlan

FORMAT = 1


@dataclass(frozen=True)
class Step:
    """One operation: what, with which arguments, by which actor, after which pause.

    Actors act at the same time, each one step after the other. ``pause`` is in microseconds of
    virtual time before the step begins.
    """

    does: str
    arguments: dict[str, Any]
    actor: int = 0
    pause: int = 0

    def words(self) -> str:
        """The step in a line."""
        shown = ", ".join(f"{name}={brief(value)}" for name, value in self.arguments.items())
        after = f", {self.pause} us later" if self.pause else ""
        who = f" by actor {self.actor}" if self.actor else ""
        return f"{self.does}({shown}){who}{after}"


@dataclass(frozen=True)
class Plan:
    """Steps on the driver, and what the hardware does meanwhile.

    ``checked`` says on which of the two kernels.
    """

    steps: tuple[Step, ...]
    faults: FaultPlan
    checked: bool = False

    @property
    def seed(self) -> int:
        """The seed of all faults and timings."""
        return self.faults.seed

    @property
    def key(self) -> str:
        """A digest: plans with the same one are the same."""
        text = json.dumps(to_data(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def calm(self) -> Plan:
        """The same steps without a fault."""
        return replace(self, faults=replace(self.faults, rules=()))


def brief(value: Any) -> str:
    """A value as a story tells it."""
    if isinstance(value, bytes):
        return f"{value[:8].hex()}... ({len(value)} bytes)" if len(value) > 8 else repr(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 0xFFFF:
        return f"{value:#x}"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def to_data(plan: Plan) -> dict[str, Any]:
    """A plan as plain data: what its file holds."""
    return {
        "format": FORMAT,
        "checked": plan.checked,
        "faults": plan.faults.to_data(),
        "step": [_step_data(step) for step in plan.steps],
    }


def dump(plan: Plan) -> str:
    """A plan as the text of its file."""
    return tomli_w.dumps(to_data(plan))


class _StepTable(msgspec.Struct, forbid_unknown_fields=True):
    does: str
    arguments: dict[str, Any] = {}
    actor: int = 0
    pause: int = 0


class _PlanTable(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    faults: dict[str, Any]
    step: list[_StepTable]
    checked: bool = False


def load(text: str, name: str = "the plan") -> Plan:
    """The plan that :func:`dump` wrote, or a person has edited.

    Raises :class:`UsageError` naming what is wrong.
    """
    try:
        table = msgspec.convert(tomllib.loads(text), _PlanTable)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise UsageError(
            f"{name} cannot be read: {error}", expected="a plan as kdrv explore writes it"
        ) from error
    if table.format != FORMAT:
        raise UsageError(f"{name} has format {table.format}", expected=f"format {FORMAT}")
    try:
        steps = tuple(
            Step(
                one.does,
                {key: _decoded(value) for key, value in one.arguments.items()},
                one.actor,
                one.pause,
            )
            for one in table.step
        )
    except ValueError as error:
        raise UsageError(
            f"an argument in {name} cannot be read: {error}",
            expected='bytes as {hex = "00ff"}, large numbers as {int = "123"}',
        ) from error
    return Plan(steps, FaultPlan.from_data(table.faults), table.checked)


def read(path: Path) -> Plan:
    """The plan of a file. Raises :class:`UsageError`."""
    try:
        return load(path.read_text(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"cannot read the plan {path}: {reason}") from error


def _step_data(step: Step) -> dict[str, Any]:
    data: dict[str, Any] = {"does": step.does}
    if step.actor:
        data["actor"] = step.actor
    if step.pause:
        data["pause"] = step.pause
    if step.arguments:
        data["arguments"] = {name: encoded(value) for name, value in step.arguments.items()}
    return data


def encoded(value: Any) -> Any:
    """A value as TOML can hold it. Raises :class:`UsageError` for one that is no plain data."""
    if value is None:
        return {"none": True}
    if isinstance(value, bytes | bytearray):
        return {"hex": bytes(value).hex()}
    if isinstance(value, list | tuple):
        return [encoded(one) for one in value]
    if isinstance(value, dict):
        return {str(key): encoded(one) for key, one in value.items()}
    if isinstance(value, bool | str | float):
        return value
    if isinstance(value, int):
        # TOML's integers are signed, of 64 bits.
        return int(value) if -(1 << 63) <= value < 1 << 63 else {"int": str(int(value))}
    raise UsageError(
        f"an argument of an operation is {value!r}",
        expected="numbers, text, bytes, lists and tables of them",
    )


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(one) for one in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"none": True, **rest} if not rest:
            return None
        case {"hex": str(text), **rest} if not rest:
            return bytes.fromhex(text)
        case {"int": str(text), **rest} if not rest:
            return int(text)
    return {key: _decoded(one) for key, one in value.items()}
