"""Rust code of a patch or series: what is unsafe in it, and the public interface of rust/kernel.

The files are read from git and parsed, before and after; nothing is built.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kdrv.build.diagnostics import Diagnostic, Level
from kdrv.gate.churn import TOOL, added_drivers, budget_of, classify, over
from kdrv.gate.git import Repo
from kdrv.gate.policy import Policy
from kdrv.gate.result import Changed, Check, Outcome
from kdrv.gate.rust_api import ItemChange, compare, is_public_file, items
from kdrv.gate.rust_parse import Source, Unreadable
from kdrv.gate.rust_unsafe import Site, new_sites, sites
from kdrv.gate.series import SYMLINK, Patch, Series, Status

VENDORED = "vendored"
"""The category of Rust code that is not judged: it is another project's."""

SAFETY = "safety"
UNSAFE = "unsafe"
PUBLIC_API = "public api"
_MISSING = {
    "block": "unsafe block without a SAFETY comment",
    "impl": "unsafe impl without a SAFETY comment",
    "fn": "unsafe function without a Safety section in its documentation",
    "trait": "unsafe trait without a Safety section in its documentation",
}


@dataclass(frozen=True)
class _Sides:
    """The Rust files of a change, parsed, before and after it."""

    before: tuple[Source, ...]
    after: tuple[Source, ...]

    def __bool__(self) -> bool:
        return bool(self.before or self.after)

    def new_sites(self, which: Callable[[Site], bool]) -> tuple[Site, ...]:
        """The unsafe places that are new among those that ``which`` chooses."""
        before = (site for source in self.before for site in sites(source) if which(site))
        after = (site for source in self.after for site in sites(source) if which(site))
        return new_sites(before, after)

    def api(self) -> tuple[ItemChange, ...] | None:
        """What becomes of the public interface; ``None`` when no file of it changes."""
        before, after = (
            [source for source in side if is_public_file(source.path)]
            for side in (self.before, self.after)
        )
        if not (before or after):
            return None
        return compare(
            (item for source in before for item in items(source)),
            (item for source in after for item in items(source)),
        )


def judge_rust(policy: Policy, git: Repo, patch: Patch) -> tuple[Check, ...]:
    """``safety``: new unsafe code says why it is sound. ``public api``: what becomes of the
    items of rust/kernel; where the policy leaves no budget at all, a change of one is judged here
    and otherwise by :func:`judge_rust_series`."""
    try:
        sides = _of_patch(policy, git, patch)
    except Unreadable as error:
        return tuple(Check(name, Outcome.UNKNOWN, str(error)) for name in (SAFETY, PUBLIC_API))
    if not sides:
        reason = "no Rust file is touched"
        return tuple(Check(name, Outcome.SKIP, reason) for name in (SAFETY, PUBLIC_API))
    return _safety(policy, patch, sides), _patch_api(policy, patch, sides)


def judge_rust_series(policy: Policy, git: Repo, series: Series) -> tuple[Check, ...]:
    """``unsafe`` and ``public api``: the whole series, from its base to its tip, against the
    budgets for each driver that it adds."""
    try:
        sides = _of_series(policy, git, series)
    except Unreadable as error:
        return tuple(Check(name, Outcome.UNKNOWN, str(error)) for name in (UNSAFE, PUBLIC_API))
    drivers = len(added_drivers(policy, git, series))
    show = f"git diff {series.base} {series.tip} -- {_names(sides)}"
    unsafe = sides.new_sites(lambda _: True)
    limit = budget_of(policy, "unsafe.new", drivers)
    exceeded = limit is not None and len(unsafe) > limit
    kinds = Counter(f"{site.kind} in {site.file}" for site in unsafe)
    first = Check(
        UNSAFE,
        policy.outcome(UNSAFE) if exceeded else Outcome.PASS,
        f"{over(len(unsafe), limit, drivers)} new unsafe blocks, functions, traits and impls",
        detail=tuple(f"{count} {kind}" for kind, count in kinds.most_common()),
        policy=policy.cite("unsafe.new") if limit is not None else "",
        reproducer=show if exceeded else "",
    )
    changes = sides.api() or ()
    broken = [change for change in changes if change.changed is not Changed.ADDED]
    limit = budget_of(policy, "churn.public-api", drivers)
    exceeded = limit is not None and len(broken) > limit
    second = Check(
        PUBLIC_API,
        policy.outcome("public-api") if exceeded else Outcome.PASS,
        f"{over(len(broken), limit, drivers)} public items changed or gone, "
        f"{len(changes) - len(broken)} added",
        tuple(_told(change) for change in broken),
        policy=policy.cite("churn.public-api") if limit is not None else "",
        reproducer=show if exceeded else "",
    )
    return first, second


def _safety(policy: Policy, patch: Patch, sides: _Sides) -> Check:
    silent = sides.new_sites(lambda site: not site.said)
    found = tuple(
        Diagnostic(
            tool=TOOL,
            level=Level.ERROR,
            message=_MISSING[site.kind],
            file=site.file,
            line=site.line,
            code=SAFETY,
            detail=f"in {site.within}" if site.within else "",
        )
        for site in silent
    )
    limit = budget_of(policy, "unsafe.uncommented", 1)
    many = f"{len(found)} new unsafe without the reason why it is sound" if found else ""
    if limit is None or len(found) <= limit:
        return Check(SAFETY, Outcome.PASS, many, found)
    return Check(
        SAFETY,
        Outcome.FAIL,
        many,
        found,
        policy=policy.cite("unsafe.uncommented"),
        reproducer=_show(patch, (site.file for site in silent)),
    )


def _patch_api(policy: Policy, patch: Patch, sides: _Sides) -> Check:
    changes = sides.api()
    if changes is None:
        return Check(PUBLIC_API, Outcome.SKIP, "no file of rust/kernel is touched")
    count = Counter(change.changed for change in changes)
    summary = ", ".join(f"{count[one]} {one}" for one in Changed if count[one])
    found = tuple(_told(change) for change in changes)
    key = "churn.public-api"
    if budget_of(policy, key, 1) != 0 or not (count[Changed.GONE] + count[Changed.CHANGED]):
        return Check(PUBLIC_API, Outcome.PASS, summary, found)
    return Check(
        PUBLIC_API,
        policy.outcome("public-api"),
        summary,
        found,
        policy=policy.cite(key),
        reproducer=_show(patch, (change.file for change in changes)),
    )


def _told(change: ItemChange) -> Diagnostic:
    added = change.changed is Changed.ADDED
    sides = (("-", change.before), ("+", change.after))
    return Diagnostic(
        tool=TOOL,
        level=Level.NOTE if added else Level.WARNING,
        message=f"{change.name} is {change.changed}",
        file=change.file,
        line=change.line,
        code=f"api-{change.changed}",
        detail="\n".join(f"{sign} {text}" for sign, text in sides if text),
    )


def _of_patch(policy: Policy, git: Repo, patch: Patch) -> _Sides:
    changes = [change for change in patch.changes if change.mode != SYMLINK]
    olds = [change.old or change.path for change in changes if change.status is not Status.ADDED]
    news = [change.path for change in changes if change.status is not Status.DELETED]
    return _Sides(
        _parsed(policy, git, patch.parent, olds), _parsed(policy, git, patch.commit, news)
    )


def _of_series(policy: Policy, git: Repo, series: Series) -> _Sides:
    changes = [one for patch in series.patches for one in patch.changes if one.mode != SYMLINK]
    paths = sorted({path for change in changes for path in change.paths})
    return _Sides(_parsed(policy, git, series.base, paths), _parsed(policy, git, series.tip, paths))


def _parsed(policy: Policy, git: Repo, commit: str, paths: Iterable[str]) -> tuple[Source, ...]:
    wanted = [path for path in paths if path.endswith(".rs") and classify(policy, path) != VENDORED]
    texts = ((path, git.blob(commit, path)) for path in wanted)
    return tuple(Source.parse(path, text) for path, text in texts if text is not None)


def _names(sides: _Sides) -> str:
    return shlex.join(sorted({source.path for source in sides.before + sides.after}))


def _show(patch: Patch, files: Iterable[str]) -> str:
    return f"git show {patch.commit} -- {shlex.join(sorted(set(files)))}"
