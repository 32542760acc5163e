"""Fault profiles: kdrv's own by name, and a user's, written in TOML.

A profile is a list of rules, either a file of its own or a table ``[faults.NAME]`` of kdrv.toml::

    description = "a cable with a loose contact"

    [[rule]]
    kind = "irq_lost"
    rate = 0.1
    device = "edu"
    start = "5ms"
    stop = "2s"

Decoded and validated by msgspec, which names the place of a mistake (``$.rule[0].rate``).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import msgspec

from kdrv.core.errors import UsageError
from kdrv.sim.faults import ANY, FaultKind, Rule

PROFILES: Mapping[str, tuple[Rule, ...]] = {
    "calm": (),
    "lossy": (
        Rule(FaultKind.IRQ_LOST, 0.05),
        Rule(FaultKind.IRQ_LATE, 0.1),
        Rule(FaultKind.IRQ_DUPLICATE, 0.05),
        Rule(FaultKind.IRQ_SPURIOUS, 0.01),
        Rule(FaultKind.COMPLETION_REORDER, 0.05),
        Rule(FaultKind.FW_ERROR, 0.01),
        Rule(FaultKind.DEVICE_LATE, 0.01),
    ),
    "hostile": (
        Rule(FaultKind.IRQ_LOST, 0.05),
        Rule(FaultKind.IRQ_SPURIOUS, 0.02),
        Rule(FaultKind.IRQ_STORM, 0.005, most=2),
        Rule(FaultKind.REG_STUCK, 0.01),
        Rule(FaultKind.REG_ALL_ONES, 0.02),
        Rule(FaultKind.REG_BITFLIP, 0.02),
        Rule(FaultKind.REG_TOCTOU, 0.05),
        Rule(FaultKind.DMA_CORRUPT, 0.05),
        Rule(FaultKind.DMA_LATE, 0.05),
        Rule(FaultKind.DESC_BAD, 0.05),
        Rule(FaultKind.COMPLETION_REORDER, 0.05),
        Rule(FaultKind.RESET_FAIL, 0.2),
        Rule(FaultKind.COMMAND_ERROR, 0.02),
        Rule(FaultKind.FW_ERROR, 0.02),
        Rule(FaultKind.DEVICE_LATE, 0.02),
    ),
    "removal": (
        Rule(FaultKind.SURPRISE_REMOVE, 0.01, most=1),
        Rule(FaultKind.PM_FAIL, 0.1, most=1),
    ),
    "oom": (Rule(FaultKind.PROBE_FAIL_NTH, 0.5), Rule(FaultKind.ALLOC_FAIL_NTH, 0.2)),
}

UNITS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_DURATION = r"^[0-9]+(\.[0-9]+)?(ns|us|ms|s)$"
Duration = Annotated[
    str, msgspec.Meta(pattern=_DURATION, description="virtual time", examples=["5ms", "1.5s"])
]
Count = Annotated[int, msgspec.Meta(ge=0)]


class RuleTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a fault is to happen, on which device and register.

    Either ``rate``, the probability at each opportunity, or ``numbers``, the opportunities
    themselves, counted from 0. ``most`` (0: no limit) and ``stop`` (0s: no end) bound it;
    ``lasts`` (0s: as usual for the kind) is how long it lasts, or how late what it delays comes.
    """

    kind: FaultKind
    rate: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    numbers: tuple[Count, ...] = ()
    device: str = ANY
    register: str = ANY
    start: Duration = "0s"
    stop: Duration = "0s"
    most: Count = 0
    lasts: Duration = "0s"

    def __post_init__(self) -> None:
        if bool(self.rate) == bool(self.numbers):
            raise ValueError("a rule has either a `rate` above 0 or `numbers`")
        start, stop = nanoseconds(self.start), nanoseconds(self.stop)
        if stop and stop <= start:
            raise ValueError(f"a rule that stops at {self.stop} cannot start at {self.start}")

    def rule(self) -> Rule:
        """The rule, its times in nanoseconds."""
        return Rule(
            self.kind,
            self.rate,
            self.numbers,
            self.device,
            self.register,
            nanoseconds(self.start),
            nanoseconds(self.stop),
            self.most,
            nanoseconds(self.lasts),
        )


class ProfileTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What devices do wrong, under one name."""

    rule: tuple[RuleTable, ...]
    description: str = ""


def profile(name: str, own: Mapping[str, Any] | None = None) -> tuple[Rule, ...]:
    """The rules of a profile: one of ``own``, one of kdrv's, or a TOML file.

    ``own`` is the ``[faults]`` table of kdrv.toml. A name with a slash, or that ends in ``.toml``,
    is a file's. Raises :class:`UsageError` that says where what is wrong.
    """
    tables = own or {}
    if name in tables:
        return decode(tables[name], f"[faults.{name}] of kdrv.toml")
    if name in PROFILES:
        return PROFILES[name]
    if "/" in name or name.endswith(".toml"):
        return decode(_read(Path(name)), name)
    raise UsageError(
        f"there is no fault profile {name!r}",
        expected="one of " + ", ".join([*PROFILES, *tables]) + ", or a TOML file",
        remedy="kdrv test --sim --profile lossy",
    )


def decode(table: object, place: str) -> tuple[Rule, ...]:
    """The rules of a profile's table. Raises :class:`UsageError` naming ``place`` and key."""
    try:
        found = msgspec.convert(table, ProfileTable)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"{place}: {error}",
            expected="rules with the keys " + ", ".join(RuleTable.__struct_fields__),
        ) from error
    return tuple(rule.rule() for rule in found.rule)


def _read(path: Path) -> object:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(
            f"cannot read the fault profile {path}: {error.strerror}", expected="a TOML file"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no valid TOML: {error}", expected="TOML 1.0") from error


def nanoseconds(duration: str) -> int:
    """``"5ms"`` as 5000000."""
    number, unit = re.split(r"(?<=[0-9])(?=[a-z])", duration)
    return int(Decimal(number) * UNITS[unit])


def schema() -> dict[str, Any]:
    """A JSON schema of a profile's file, and of each table below ``[faults]``."""
    return msgspec.json.schema(ProfileTable)
