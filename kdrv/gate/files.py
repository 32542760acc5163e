"""Checks that run the kernel's own tools on the files of a patch: no build, before against after.

All tools of a patch share one start of the sandbox. The kernel's tree is there read-only, and the
files' contents under numbers instead of their names, which a patch may have chosen with care.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from kdrv.build import check_parse
from kdrv.build.diagnostics import Diagnostic, Level, fresh
from kdrv.core.context import Context
from kdrv.gate.churn import classify
from kdrv.gate.files_run import Job, Said, run, silent, trouble
from kdrv.gate.git import Repo
from kdrv.gate.policy import Policy
from kdrv.gate.result import Check, Outcome, worst
from kdrv.gate.rustcode import VENDORED
from kdrv.gate.series import SYMLINK, Change, Patch, Status
from kdrv.toolchain.base import MODULE, SOURCE, Toolchain

CHECKPATCH = "checkpatch"
RUSTFMT = "rustfmt"
KERNEL_DOC = "kernel-doc"
NAMES = (CHECKPATCH, RUSTFMT, KERNEL_DOC)
"""The checks, in the order in which they are given."""

MAIL = "mail"
_MAIL = (
    *("format-patch", "-1", "--stdout", "--no-ext-diff", "--no-textconv", "--no-attach"),
    *("--no-signature", "--no-signoff", "--no-cover-letter", "--no-base"),
    *("--src-prefix=a/", "--dst-prefix=b/"),
)
_STRICT = ("scripts/checkpatch.pl", "--strict")
_TERSE = ("--terse", "--showfile", "--show-types", "--no-summary", "--color=never")
_STYLE = ("rustfmt", "--check", "--color=never", "--config-path")
_RC = ".rustfmt.toml"


@dataclass(frozen=True)
class _File:
    """A file of the patch and what its sides are called in the sandbox, empty for no such side."""

    path: str
    before: str
    after: str

    @property
    def sides(self) -> tuple[str, ...]:
        return tuple(name for name in (self.before, self.after) if name)


def judge_files(
    ctx: Context, toolchain: Toolchain, tree: Path, git: Repo, patch: Patch, policy: Policy
) -> tuple[Check, ...]:
    """``checkpatch``, ``rustfmt`` and ``kernel-doc`` of one patch.

    ``tree`` is a checkout of the kernel at or near the patch: its scripts and style are used.
    checkpatch speaks of the patch itself; of the others counts what the parent's file has not.
    """
    mail = git.run(*_MAIL, patch.commit).output
    if not mail.startswith(f"From {patch.commit}"):
        # A merge has no patch; git gives that of the nearest commit that has one.
        mail = ""
    with TemporaryDirectory(prefix="kdrv-gate-") as folder:
        scratch = Path(folder)
        (scratch / MAIL).write_text(mail)
        rust = _put(git, patch, policy, scratch, (".rs",))
        docs = _put(git, patch, policy, scratch, (".c", ".h"))
        jobs = tuple(_jobs(policy, bool(mail), rust, docs))
        deadline = policy.rules.limits.minutes * 60
        said = run(ctx, toolchain, tree, scratch, jobs, deadline) if jobs else {}
    return (
        _checkpatch(policy, patch, said.get(CHECKPATCH)),
        _rustfmt(policy, patch, rust, said),
        _kernel_doc(policy, patch, docs, said),
    )


def _put(
    git: Repo, patch: Patch, policy: Policy, scratch: Path, suffixes: tuple[str, ...]
) -> tuple[_File, ...]:
    """The files of the patch that have a suffix, written to the scratch directory."""
    files = []
    for number, change in enumerate(patch.changes):
        if _is_code(policy, change) and change.path.endswith(suffixes):
            after = git.blob(patch.commit, change.path)
            new = change.status is Status.ADDED
            before = None if new else git.blob(patch.parent, change.old or change.path)
            if after is None:
                continue
            suffix = Path(change.path).suffix
            names = []
            for side, text in (("before", before), ("after", after)):
                names.append(f"{number}-{side}{suffix}" if text is not None else "")
                if text is not None:
                    (scratch / names[-1]).write_text(text, newline="")
            files.append(_File(change.path, *names))
    return tuple(files)


def _is_code(policy: Policy, change: Change) -> bool:
    gone = change.status is Status.DELETED
    return not gone and change.mode != SYMLINK and classify(policy, change.path) != VENDORED


def _jobs(
    policy: Policy, mail: bool, rust: Sequence[_File], docs: Sequence[_File]
) -> Iterator[Job]:
    if mail:
        argv = (f"{SOURCE}/{_STRICT[0]}", *_STRICT[1:], *_TERSE, *_ignored(policy), "-")
        yield Job(CHECKPATCH, "perl", argv, MAIL)
    for file in rust:
        # By standard input: given a name, rustfmt goes on to the files of its modules.
        for side in file.sides:
            yield Job(side, RUSTFMT, (*_STYLE, f"{SOURCE}/{_RC}"), side)
    sides = [side for file in docs for side in file.sides]
    if sides:
        names = [f"{MODULE}/{side}" for side in sides]
        yield Job(KERNEL_DOC, "python3", (f"{SOURCE}/scripts/kernel-doc", "-none", *names))


def _ignored(policy: Policy) -> tuple[str, ...]:
    types = policy.rules.checkpatch.ignore
    return (f"--ignore={','.join(types)}",) if types else ()


def _checkpatch(policy: Policy, patch: Patch, said: Said | None) -> Check:
    if said is None:
        return Check(CHECKPATCH, Outcome.SKIP, "a merge is no patch")
    if problem := trouble(CHECKPATCH, "perl", said):
        return problem
    found = tuple(dict.fromkeys(check_parse.checkpatch(said.output, Level.NOTE)))
    if said.status and not found:
        return silent(CHECKPATCH, said)
    keys = {Level.ERROR: "error", Level.WARNING: "warning", Level.NOTE: "check"}
    outcomes = {
        level: policy.outcome(f"checkpatch-{word}")
        for level, word in keys.items()
        if any(one.level is level for one in found)
    }
    outcome = worst(tuple(Check("", one) for one in outcomes.values()))
    cited = next((keys[level] for level, one in outcomes.items() if one is outcome), "")
    count = Counter(one.level for one in found)
    bad = outcome is not Outcome.PASS
    words = (*_STRICT, *_ignored(policy), "-")
    return Check(
        CHECKPATCH,
        outcome,
        ", ".join(_many(count[level], word) for level, word in keys.items() if count[level]),
        found,
        policy=policy.cite(f"severity.checkpatch-{cited}") if bad else "",
        reproducer=f"git format-patch -1 --stdout {patch.commit} | {shlex.join(words)}"
        if bad
        else "",
    )


def _rustfmt(
    policy: Policy, patch: Patch, files: Sequence[_File], said: Mapping[str, Said]
) -> Check:
    if not files:
        return Check(RUSTFMT, Outcome.SKIP, "no Rust file is touched")
    found: list[Diagnostic] = []
    for file in files:
        sides: dict[str, tuple[Diagnostic, ...]] = {"": ()}
        for side in file.sides:
            if problem := trouble(RUSTFMT, RUSTFMT, said[side]):
                return problem
            records = check_parse.rustfmt(said[side].output)
            if said[side].status and not records and side == file.after:
                return silent(RUSTFMT, said[side])
            sides[side] = tuple(replace(one, file=file.path) for one in records)
        found += _new_places(sides[file.before], sides[file.after])
    lines = (
        f"git show {shlex.quote(f'{patch.commit}:{path}')} | rustfmt --check --config-path {_RC}"
        for path in dict.fromkeys(one.file for one in found)
    )
    return _compared(policy, RUSTFMT, found, "; ".join(lines))


def _new_places(before: Iterable[Diagnostic], after: Iterable[Diagnostic]) -> Iterator[Diagnostic]:
    """What rustfmt would change only now: told by the lines it would change, since each place
    has the same message."""

    def key(one: Diagnostic) -> tuple[str, ...]:
        lines = (line for line in one.detail.splitlines() if line.startswith(("-", "+")))
        return one.level, one.message, *lines

    known = Counter(map(key, before))
    for one in after:
        known[key(one)] -= 1
        if known[key(one)] < 0:
            yield one


def _kernel_doc(
    policy: Policy, patch: Patch, files: Sequence[_File], said: Mapping[str, Said]
) -> Check:
    if not files:
        return Check(KERNEL_DOC, Outcome.SKIP, "no C file is touched")
    if problem := trouble(KERNEL_DOC, "python3", said[KERNEL_DOC]):
        return problem
    records = check_parse.kernel_doc(said[KERNEL_DOC].output)
    if said[KERNEL_DOC].status and not records:
        return silent(KERNEL_DOC, said[KERNEL_DOC])
    befores = {f"{MODULE}/{file.before}": file.path for file in files if file.before}
    afters = {f"{MODULE}/{file.after}": file.path for file in files}
    before, after = (
        [replace(one, file=names[one.file]) for one in records if one.file in names]
        for names in (befores, afters)
    )
    found = fresh(before, after)
    lines = []
    for path in dict.fromkeys(one.file for one in found):
        copy = f"/tmp/kernel-doc{Path(path).suffix}"
        show = f"git show {shlex.quote(f'{patch.commit}:{path}')} >{copy}"
        lines.append(f"{show} && scripts/kernel-doc -none {copy}")
    return _compared(policy, KERNEL_DOC, found, "; ".join(lines))


def _compared(policy: Policy, name: str, found: Sequence[Diagnostic], reproducer: str) -> Check:
    if not found:
        return Check(name, Outcome.PASS)
    return Check(
        name,
        policy.outcome(name),
        _many(len(found), "new message"),
        tuple(found),
        policy=policy.cite(f"severity.{name}"),
        reproducer=reproducer,
    )


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
