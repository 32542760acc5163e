"""Scope and churn: where a series works, and how much it changes there.

A driver that a series adds is a file new in it, still there at its tip, that says in C
``MODULE_LICENSE``, ``module_…_driver`` or ``builtin_…_driver``, in Rust ``module!`` or
``module_…_driver!``, at the start of a line: what every driver says once, however many files and
directories it has, and a file that is no driver does not.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from pathlib import PurePosixPath

from pathspec import PathSpec, Pattern

from kdrv.build.diagnostics import Diagnostic, Level
from kdrv.gate.git import Repo
from kdrv.gate.policy import Policy
from kdrv.gate.result import Check, Outcome
from kdrv.gate.rules import ANY
from kdrv.gate.series import Patch, Series, Status

DRIVER = "driver"
TOOL = "kdrv"
"""Whose diagnostics these are."""

BUCKETS = ("core", "abstractions", "users")
"""What budgets of changed lines there are, as :class:`kdrv.gate.policy.Churn` names them."""

_DRIVER = {
    ".c": re.compile(r"^(?:MODULE_LICENSE|(?:module|builtin)_(?:\w+_)?driver\w*)\s*\(", re.M),
    ".rs": re.compile(r"^(?:\w+::)*module(?:_\w+_driver)?!\s*[{(\[]", re.M),
}
_GLUE = ("Makefile", "Kconfig", "Kbuild")
_LARGEST = 5


@lru_cache(maxsize=256)
def _spec(globs: tuple[str, ...]) -> PathSpec[Pattern]:
    return PathSpec.from_lines("gitignore", globs)


def classify(policy: Policy, path: str) -> str:
    """The category of a path, the first that has it; ``core`` where none does."""
    for name, globs in policy.rules.categories.items():
        if _spec(globs).match_file(path):
            return name
    return "core"


def in_scope(policy: Policy, path: str) -> bool:
    """Whether a series may touch a path."""
    allow = policy.rules.scope.allow
    if ANY in allow or classify(policy, path) in allow:
        return True
    globs = tuple(entry for entry in allow if entry not in policy.rules.categories)
    return bool(globs) and _spec(globs).match_file(path)


def judge_scope(policy: Policy, patch: Patch) -> Check:
    """Whether a patch touches only what the policy lets a series touch."""
    outside = [path for path in dict.fromkeys(patch.paths) if not in_scope(policy, path)]
    found = tuple(
        Diagnostic(
            tool=TOOL,
            level=Level.ERROR,
            message=f"out of scope, this is of {classify(policy, path)}",
            file=path,
            code="scope",
        )
        for path in outside
    )
    if not found:
        return Check("scope", Outcome.PASS)
    more = f" and {len(outside) - 1} more" if len(outside) > 1 else ""
    return Check(
        "scope",
        Outcome.FAIL,
        f"touches what is out of scope: {outside[0]}{more}",
        found,
        policy=policy.cite("scope.allow"),
        reproducer=f"git show --stat --format=%h {patch.commit}",
    )


def added_drivers(policy: Policy, git: Repo, series: Series) -> tuple[str, ...]:
    """The files that each make a driver the series adds; see the module's description."""
    found = []
    for path in sorted(_added(series)):
        says = _DRIVER.get(PurePosixPath(path).suffix)
        if says and classify(policy, path) == DRIVER:
            text = git.blob(series.tip, path)
            if text and says.search(text):
                found.append(path)
    return tuple(found)


def judge_churn(policy: Policy, git: Repo, series: Series) -> tuple[Check, ...]:
    """The changed lines of a series against its budgets, one check for each of :data:`BUCKETS`.

    Lines are counted patch by patch, since each is read. ``users`` are drivers that were there
    before, without their Makefile and Kconfig, where a new neighbour leaves a line.
    """
    drivers = added_drivers(policy, git, series)
    new = _added(series)
    lines: dict[str, Counter[str]] = {bucket: Counter() for bucket in BUCKETS}
    for patch in series.patches:
        for change in patch.changes:
            bucket = classify(policy, change.path)
            if bucket == DRIVER:
                glue = PurePosixPath(change.path).name in _GLUE
                bucket = "" if glue or change.path in new else "users"
            if bucket in lines and change.added + change.removed:
                lines[bucket][change.path] += change.added + change.removed
    return tuple(_budget(policy, series, bucket, lines[bucket], drivers) for bucket in BUCKETS)


def budget_of(policy: Policy, key: str, drivers: int) -> int | None:
    """What a budget comes to with so many added drivers, ``None`` for no limit. A series that
    adds none has the budget of one."""
    value = policy.value(key)
    return None if value == ANY else value * max(1, drivers)


def over(count: int, limit: int | None, drivers: int) -> str:
    """A count against a limit, in words."""
    if limit is None:
        return f"{count}"
    for_what = f" for {drivers} added drivers" if drivers > 1 else ""
    return f"{count} of at most {limit}{for_what}"


def _added(series: Series) -> frozenset[str]:
    """The files that the series brings; what it moves was there before."""
    added: set[str] = set()
    for change in (change for patch in series.patches for change in patch.changes):
        moved = change.status is Status.RENAMED and change.old in added
        if change.status is Status.ADDED or moved:
            added.add(change.path)
    return frozenset(added)


def _budget(
    policy: Policy, series: Series, bucket: str, lines: Counter[str], drivers: tuple[str, ...]
) -> Check:
    key = f"churn.{bucket}"
    limit = budget_of(policy, key, len(drivers))
    total = lines.total()
    exceeded = limit is not None and total > limit
    return Check(
        f"churn {bucket}",
        policy.outcome("churn") if exceeded else Outcome.PASS,
        f"{over(total, limit, len(drivers))} changed lines",
        detail=tuple(f"{count} {path}" for path, count in lines.most_common(_LARGEST)),
        policy=policy.cite(key) if limit is not None else "",
        reproducer=f"git log --stat --format=%h {series.base}..{series.tip}" if exceeded else "",
    )
