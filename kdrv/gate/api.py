"""Judging a series: from what a user typed to one result."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import tarfile
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from kdrv.build.api import spelled
from kdrv.build.lane import TINY, Language, make_lane, read_fragment
from kdrv.build.result import ToolchainRecord
from kdrv.core.context import Context
from kdrv.core.errors import UsageError
from kdrv.core.executor import workers
from kdrv.gate.churn import judge_churn
from kdrv.gate.git import Repo, borrow, open_repo
from kdrv.gate.history import merged, read_range, read_series
from kdrv.gate.jobs import Ground, LaneReport, read_text, walk_lane
from kdrv.gate.mails import (
    Applied,
    applied_before,
    apply,
    fetch,
    named_base,
    read_folder,
    read_mails,
)
from kdrv.gate.maintainers import maintainers
from kdrv.gate.policy import load_policy
from kdrv.gate.result import Break, Check, GateResult, Outcome, PatchResult
from kdrv.gate.rustcode import judge_rust_series
from kdrv.gate.series import Patch, Series
from kdrv.gate.verdict import LaneJudge
from kdrv.kernel.arch import Arch
from kdrv.kernel.tree import KernelTree, read_version
from kdrv.toolchain.base import SOURCE, Bind, Toolchain
from kdrv.toolchain.select import AUTO, select

STDIN = "-"
NEEDED = ("Makefile", "scripts")
"""What of the base is read before anything is built: its version and its needs."""
PEOPLE = ("COPYING", "CREDITS", "Kbuild", "MAINTAINERS", "Makefile", "README", "scripts")
FOLDERS = ("Documentation", "arch", "include", "drivers", "fs", "init", "ipc", "kernel", "lib")
"""By these get_maintainer.pl knows a kernel's tree; of the folders it reads nothing."""


class Boots(StrEnum):
    """After which patches the kernels are booted."""

    EACH = "each"
    TIP = "tip"
    NEVER = "never"


@dataclass(frozen=True)
class GateRequest:
    """A series to judge, and how.

    ``source`` is ``BASE..TIP``, the path of an mbox or of a folder of patches, ``-`` for ``text``
    (standard input), or a message-id for b4; all but the first stand on ``base``, or on what the
    mails' own ``base-commit:`` names. ``policy`` is a kdrv.toml, ``preset`` a policy by name.
    """

    source: str
    repo: Path = Path()
    base_commit: str | None = None
    text: bytes = b""
    toolchain: str = AUTO
    arch: Arch = Arch.X86_64
    base: str = TINY
    fragments: tuple[Path, ...] = ()
    boots: Boots = Boots.TIP
    policy: Path | None = None
    preset: str | None = None
    cluster: str | None = None
    kernel: None = None
    debug: bool = False

    @property
    def options(self) -> tuple[str, ...]:
        """The command line that judges another series in the same way, but for the series."""
        words = ["kdrv", "gate"]
        words += ["--repo", str(self.repo)] if self.repo != Path() else []
        words += spelled(self)
        for option, value in (("--policy", self.policy), ("--preset", self.preset)):
            if value:
                words += [option, str(value)]
        return tuple(words)

    def command(self) -> str:
        """The whole command line."""
        words = [*self.options]
        words += ["--base", self.base_commit] if self.base_commit else []
        words += ["--boot", self.boots.value] if self.boots is not Boots.TIP else []
        return shlex.join([*words, self.source])


def gate(ctx: Context, request: GateRequest) -> GateResult:
    """Judge a series.

    Raises :class:`UsageError` or :class:`kdrv.core.errors.SetupError` when it cannot be judged.
    """
    if request.arch is Arch.UM and request.boots is not Boots.NEVER:
        raise UsageError(
            "a kernel for --arch um cannot be booted in QEMU",
            expected="--boot never with it",
            remedy=f"{request.command()} --boot never",
        )
    began = time.monotonic()
    policy = load_policy(request.policy, request.preset)
    theirs = open_repo(ctx, request.repo)
    ours = borrow(ctx, theirs)
    series, applied = _series(ctx, request, theirs, ours)
    tree = _head_of(ours, series.base)
    toolchain = select(ctx, request.toolchain, tree.path, rust=True)
    ground = Ground(
        repository=theirs.directory,
        series=series,
        base_tree=ours.text("rev-parse", f"{series.base}^{{tree}}"),
        toolchain=toolchain.name,
        policy=policy,
        bundle=_bundle(ours, series) if series.patches and (applied or request.cluster) else b"",
        cache=None if request.cluster else ctx.cache,
        jobs=None if request.cluster else ctx.jobs,
    )
    reports, texts = _run(ctx, request, ground)
    no_sparse = _no_sparse(ctx, toolchain, tree)
    judges = [LaneJudge(policy, series, report, request.options, no_sparse) for report in reports]
    results = _patches(ours, series, judges, texts)
    if applied and applied.refused:
        results += (_refused(applied, series, request),)
    checks = (*judge_churn(policy, ours, series), *judge_rust_series(policy, ours, series))
    if applied:
        results = tuple(replace(one, checks=_by_mail(one.checks, request)) for one in results)
        checks = _by_mail(checks, request)
    breaks = tuple(
        _answered(ground.guarded(ctx), toolchain, ours, series, one)
        for judge in judges
        for one in judge.breaks()
    )
    return GateResult(
        series=series,
        patches=results,
        checks=checks,
        breaks=breaks,
        policy=policy.name,
        kernel=str(tree.version),
        toolchain=ToolchainRecord(toolchain.name, toolchain.identity, toolchain.versions),
        seconds=time.monotonic() - began,
        reproducer=request.command(),
    )


def _series(
    ctx: Context, request: GateRequest, theirs: Repo, ours: Repo
) -> tuple[Series, Applied | None]:
    source, path = request.source, Path(request.source)
    if re.search(r"\.\.(?!/)", source) and not path.exists():
        return read_range(theirs, ours, source), None
    name = source
    if source == STDIN:
        sources, name = [request.text], "standard input"
    elif path.is_dir():
        sources, name = read_folder(path), str(path)
    elif path.exists():
        sources = [path.read_bytes()]
    elif "@" in source or source.count("-") >= 2:
        sources = fetch(ctx, source)
    else:
        raise UsageError(
            f"{source} is neither a range, a file, a folder nor a message-id",
            expected="BASE..TIP, an mbox, a folder of patches, - or a message-id",
            remedy="kdrv gate HEAD~1..HEAD",
        )
    mails = read_mails(ours, sources, name)
    if not request.base_commit and len(mails) == 1 and (known := applied_before(theirs, mails[0])):
        # What checks a patch before it is sent has it from the branch: there it is judged.
        return read_series(ours, source, ours.text("rev-parse", f"{known}^"), known), None
    wanted = request.base_commit or named_base(sources)
    base = theirs.resolve(wanted) if wanted else None
    if base is None:
        raise UsageError(
            f"{wanted} is no commit of {theirs.directory}" if wanted else "the mails name no base",
            expected="the commit that the patches apply to",
            remedy=f"kdrv gate --base REV {source}",
        )
    applied = apply(ours, base, mails)
    return _mailed(ours, source, applied), applied


def _mailed(ours: Repo, source: str, applied: Applied) -> Series:
    if applied.tip == applied.base:
        return Series(source, applied.base, applied.tip, ())
    series = read_series(ours, source, applied.base, applied.tip)
    patches = (
        replace(patch, message_id=applied.message_ids.get(patch.commit, ""))
        for patch in series.patches
    )
    return replace(series, patches=tuple(patches))


def _head_of(ours: Repo, base: str) -> KernelTree:
    """The few files of the base that are needed before there is a checkout."""
    place = ours.directory.parent / "head" / base
    if not (place / "Makefile").exists():
        place.parent.mkdir(exist_ok=True)
        unpacked = Path(tempfile.mkdtemp(dir=place.parent))
        if not _unpack(ours, base, NEEDED, unpacked):
            shutil.rmtree(unpacked)
            raise UsageError(
                f"{base[:12]} is no commit of a kernel's tree",
                expected=f"a tree with {' and '.join(NEEDED)}",
                remedy="kdrv gate --repo DIR BASE..TIP",
            )
        # Another kdrv may have been first.
        with contextlib.suppress(OSError):
            unpacked.rename(place)
    return KernelTree(place, read_version(place), f"commit {base[:12]}")


def _unpack(git: Repo, commit: str, paths: Sequence[str], place: Path) -> bool:
    """Some files of a commit below ``place``; whether it has them all."""
    with tempfile.NamedTemporaryFile(prefix="kdrv-", suffix=".tar") as archive:
        words = ("archive", f"--output={archive.name}", commit, "--", *paths)
        if not git.run(*words, check=False).ok:
            return False
        try:
            with tarfile.open(archive.name) as tar:
                tar.extractall(place, filter="data")
        except (tarfile.TarError, OSError):
            return False  # a link that leads outside
    return True


def _no_sparse(ctx: Context, toolchain: Toolchain, tree: KernelTree) -> str:
    """Why sparse says nothing of this tree, empty when it does (scripts/checker-valid.sh)."""
    argv = ("sh", f"{SOURCE}/scripts/checker-valid.sh", "sparse")
    command = toolchain.command(argv, binds=[Bind(tree.path, SOURCE)])
    done = ctx.runner.run(command, deadline=60.0, check=False)
    if done.output.strip() == "1":
        return ""
    return "sparse is too old for this tree" if done.ok else "the toolchain has no sparse"


def _bundle(ours: Repo, series: Series) -> bytes:
    """The commits that only our repository has, for workers elsewhere."""
    with tempfile.TemporaryDirectory(prefix="kdrv-") as scratch:
        path = Path(scratch, "series.bundle")
        ref = f"refs/kdrv/{series.tip}"
        ours.run("update-ref", ref, series.tip)
        ours.run("bundle", "create", "-q", str(path), ref, f"^{series.base}")
        return path.read_bytes()


def _run(
    ctx: Context, request: GateRequest, ground: Ground
) -> tuple[tuple[LaneReport, ...], tuple[tuple[Check, ...], ...]]:
    """Both lanes and the text side by side."""
    if not ground.series.patches:
        return (), ()
    extra = tuple(read_fragment(path) for path in request.fragments)
    lanes = [
        make_lane(language, request.arch, debug=request.debug, base=request.base, extra=extra)
        for language in Language
    ]
    last = len(ground.series.patches)
    boots = {
        Boots.EACH: tuple(range(1, last + 1)),
        Boots.TIP: (last,),
        Boots.NEVER: (),
    }[request.boots]
    here = None if request.cluster else ctx
    with workers(len(lanes) + 1, cluster=request.cluster, threads=True) as pool:
        walks: list[Future[LaneReport]] = [
            pool.submit(walk_lane, ground, lane, boots, here) for lane in lanes
        ]
        text = pool.submit(read_text, ground, here)
        reports = tuple(walk.result() for walk in walks)
        return reports, text.result()


def _patches(
    ours: Repo,
    series: Series,
    judges: Sequence[LaneJudge],
    texts: Sequence[tuple[Check, ...]],
) -> tuple[PatchResult, ...]:
    results = []
    for patch, text in zip(series.patches, texts, strict=True):
        checks = [_applies(ours, patch)]
        checks += [check for judge in judges for check in judge.checks(patch)]
        blasts = [judge.report.blasts[patch.number - 1] for judge in judges]
        blast = next((one for one in blasts if one is not None), None)
        results.append(PatchResult(patch, (*checks, *text), blast))
    return tuple(results)


def _applies(ours: Repo, patch: Patch) -> Check:
    if brought := merged(ours, patch):
        return Check(
            "applies",
            Outcome.WARN,
            f"a merge: the {brought} commits that it brings in are judged as one step",
        )
    return Check("applies", Outcome.PASS)


def _refused(applied: Applied, series: Series, request: GateRequest) -> PatchResult:
    """The patch that does not apply, as the last that could be judged."""
    refused = applied.refused
    assert refused is not None
    mail = refused.mail
    patch = Patch(
        number=refused.number,
        commit="",
        parent=applied.tip,
        tree="",
        subject=mail.title,
        author=f"{mail.author} <{mail.email}>",
        message=f"{mail.title}\n\n{mail.message}",
        changes=(),
        message_id=mail.message_id,
    )
    left = f"; {refused.left} more were not tried" if refused.left else ""
    where = f"on patch {refused.number - 1}" if series.patches else "on the base"
    check = Check(
        "applies",
        Outcome.FAIL,
        f"does not apply {where}, {applied.tip[:12]}{left}: {refused.why[0]}",
        detail=refused.why,
        reproducer=request.command(),
    )
    return PatchResult(patch, (check,))


def _by_mail(checks: Sequence[Check], request: GateRequest) -> tuple[Check, ...]:
    """Checks of mailed patches: nobody else has their commits, so the mails are judged again."""
    again = request.command()
    return tuple(replace(one, reproducer=again if one.reproducer else "") for one in checks)


def _answered(ctx: Context, toolchain: Toolchain, git: Repo, series: Series, one: Break) -> Break:
    """A break with the people who answer for the Rust files it is about."""
    uses = (use for symbol in one.symbols for use in symbol.uses)
    files = tuple(dict.fromkeys(use.file for use in uses))
    commit = series.patches[one.patch - 1].commit
    with tempfile.TemporaryDirectory(prefix="kdrv-") as scratch:
        place = Path(scratch)
        # The base's script and list: what runs here is no patch's.
        if not (files and _unpack(git, series.base, PEOPLE, place)):
            return one
        if not _unpack(git, commit, files, place):
            return one
        for name in FOLDERS:
            (place / name).mkdir(exist_ok=True)
        return replace(one, maintainers=maintainers(ctx, toolchain, place, files))
