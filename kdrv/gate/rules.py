"""The rules of a policy as ``[policy]`` has them; msgspec names the place of a mistake."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import msgspec

ANY = "any"
"""No limit; in ``scope.allow``: everything."""

Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Budget = Count | Literal["any"]


class Contract(StrEnum):
    """When a language must build: after each patch, at the end of the series, or unless the
    patch that breaks it gives notice (:data:`NOTICES`)."""

    EACH = "each"
    SERIES = "series"
    NOTICE = "notice"


class Severity(StrEnum):
    """What a finding does to the verdict."""

    FAIL = "fail"
    WARN = "warn"
    PASS = "pass"


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    pass


class Scope(_Section, frozen=True):
    """Where a series may work: names of categories, globs, or ``any``."""

    allow: tuple[str, ...]


class Build(_Section, frozen=True):
    """The build contract of each language."""

    rust: Contract
    c: Contract


class Churn(_Section, frozen=True):
    """Changed lines, and changed public items of rust/kernel, for each driver that is added."""

    core: Budget
    abstractions: Budget
    users: Budget
    public_api: Budget


class Unsafe(_Section, frozen=True):
    """New unsafe blocks, functions and impls: ``new`` for each driver that is added,
    ``uncommented``, those that do not say why they are sound, for each patch."""

    new: Budget
    uncommented: Budget


class Checkpatch(_Section, frozen=True):
    """``ignore``: types of messages of checkpatch that are none of the gate's."""

    ignore: tuple[str, ...]


class Severities(_Section, frozen=True):
    """What the findings of a check do to the verdict."""

    checkpatch_error: Severity
    checkpatch_warning: Severity
    checkpatch_check: Severity
    rustfmt: Severity
    clippy: Severity
    rustdoc: Severity
    kernel_doc: Severity
    sparse: Severity
    warnings: Severity
    config: Severity
    churn: Severity
    public_api: Severity
    unsafe: Severity


class Limits(_Section, frozen=True):
    """Of one job: processes, MiB of memory, MiB of disk, minutes."""

    processes: Positive
    memory: Positive
    disk: Positive
    minutes: Positive


class Rules(_Section, frozen=True):
    """A whole ``[policy]``, with its preset's values where it has none of its own.

    ``categories`` are in the order in which they are tried.
    """

    about: str
    scope: Scope
    build: Build
    churn: Churn
    unsafe: Unsafe
    checkpatch: Checkpatch
    severity: Severities
    limits: Limits
    categories: dict[str, tuple[str, ...]]
    why: dict[str, str]
