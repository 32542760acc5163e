"""Code checks of a driver: what a maintainer's scripts would say, as records.

rustfmt, clippy, rustdoc, checkpatch, kbuild's extra warnings, sparse, kernel-doc and modpost, each
run as the kernel runs it. With ``M=`` the kernel offers targets for clippy, sparse and modpost
only; the others are called with the tree's own configuration and the flags of its own compile.
A check fails when it finds an error or a warning.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from kdrv.build import check_parse
from kdrv.build.check_bench import Bench, Driver
from kdrv.build.check_undefined import BUILD_ERROR_MEANS, UNDEFINED, users
from kdrv.build.diagnostics import Diagnostic, Level, parse
from kdrv.build.diagnostics.rust_places import BUILD_ERROR
from kdrv.build.lane import Language
from kdrv.build.make import Make
from kdrv.core.context import Context
from kdrv.core.errors import UsageError
from kdrv.core.process import Completed
from kdrv.toolchain.base import SOURCE

MISSING_DOCS = "missing_docs"
"""rustc's own lint about documentation; told by the rustdoc check, not by clippy's."""

_CRATE_HASH = re.compile(r"\[[0-9a-f]{8,}\]")
NOT_COMPILED = "the driver does not compile"
NEED_RUST = ("clippy-driver", "rustdoc")
TOO_OLD = re.compile(r"C=2 specified, but sparse is not available or not up to date")


class Outcome(StrEnum):
    """How a check ended."""

    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True)
class CheckResult:
    """What one check said. ``reason`` is why it was skipped, in words.

    ``seconds`` is the time of the command that ``reproducer`` shows; checks that read the same
    build (clippy, build, sparse, modpost) have both in common.
    """

    name: str
    outcome: Outcome
    reason: str = ""
    diagnostics: tuple[Diagnostic, ...] = ()
    seconds: float = 0.0
    reproducer: str = ""


def run_checks(
    ctx: Context,
    driver: Driver,
    make: Make,
    scratch: Path,
    only: Collection[str] | None = None,
) -> tuple[CheckResult, ...]:
    """Check ``driver`` against the kernel that ``make`` has built.

    ``scratch`` is a directory of the caller's for what is built on the way. Neither the driver's
    sources nor the kernel's build directory are written to. ``only`` names the checks to run, all
    of :data:`CHECKS` otherwise. Raises :class:`UsageError` for a name that is no check.
    """
    names = CHECKS if only is None else only
    if unknown := sorted(set(names) - set(CHECKS)):
        raise UsageError(
            f"there is no check named {', '.join(unknown)}",
            expected=f"some of {', '.join(CHECKS)}",
        )
    chosen = [name for name in CHECKS if name in names]
    bench = Bench(ctx, driver, make, scratch)
    results = []
    label = f"checking {driver.directory.name} for lane {make.lane.name}"
    with ctx.events.step(label) as step:
        for number, name in enumerate(chosen):
            step.progress(number, len(chosen), name)
            results.append(CHECKS[name](bench))
        step.progress(len(chosen), len(chosen))
    return tuple(results)


def _rustfmt(bench: Bench) -> CheckResult:
    files = bench.driver.having(".rs")
    if reason := _inapplicable(bench, files, "Rust", "rustfmt"):
        return _skipped("rustfmt", reason)
    style = ("--config-path", f"{SOURCE}/.rustfmt.toml")
    done = bench.run(("rustfmt", "--check", "--color=never", *style, *bench.paths(files)))
    return _judged("rustfmt", bench, [done], check_parse.rustfmt(done.output))


def _clippy(bench: Bench) -> CheckResult:
    files = bench.driver.having(".rs")
    if reason := _inapplicable(bench, files, "Rust", "clippy-driver"):
        return _skipped("clippy", reason)
    found = _rust(bench)
    if not found and not bench.compiled:
        return _skipped("clippy", NOT_COMPILED)
    return _of_build("clippy", bench, [d for d in found if d.code != MISSING_DOCS])


def _rustdoc(bench: Bench) -> CheckResult:
    files = bench.driver.having(".rs")
    if reason := _inapplicable(bench, files, "Rust", "rustdoc"):
        return _skipped("rustdoc", reason)
    if not bench.crates:
        return _skipped("rustdoc", NOT_COMPILED)
    done = [bench.rustdoc(crate) for crate in bench.crates]
    output = "\n".join(one.output for one in done)
    return _judged("rustdoc", bench, done, check_parse.rust_json(output, "rustdoc", bench.place))


def _checkpatch(bench: Bench) -> CheckResult:
    files = bench.driver.sources
    if reason := _inapplicable(bench, files, "kernel", "perl"):
        return _skipped("checkpatch", reason)
    script = (f"{SOURCE}/scripts/checkpatch.pl", "--strict", "--terse", "--show-types")
    options = ["--no-summary", "--color=never"]
    if not bench.in_tree:
        # It wants the binding among the tree's, where a driver outside cannot have one.
        options.append("--ignore=UNDOCUMENTED_DT_STRING")
    done = bench.run((*script, *options, "-f", *bench.paths(files)))
    return _judged("checkpatch", bench, [done], check_parse.checkpatch(done.output))


def _build(bench: Bench) -> CheckResult:
    rust = _rust(bench)
    broken = any(d.level is Level.ERROR for d in rust)
    # make's own words matter only when no tool gave the reason.
    others = {"modpost", "sparse", *(["make"] if broken else [])}
    found = [d for d in parse(bench.build.output.splitlines()) if d.tool not in others]
    if "clippy-driver" in bench.absent:
        found += rust
    if not (found or bench.compiled or broken):
        return _judged("build", bench, [bench.build], ())
    return _of_build("build", bench, found)


def _sparse(bench: Bench) -> CheckResult:
    if reason := _inapplicable(bench, bench.driver.having(".c"), "C", "sparse"):
        return _skipped("sparse", reason)
    if TOO_OLD.search(bench.build.output):
        return _skipped("sparse", "the toolchain's sparse is too old for this tree")
    found = _said(bench, "sparse")
    if not found and not bench.compiled:
        return _skipped("sparse", NOT_COMPILED)
    return _of_build("sparse", bench, found)


def _kernel_doc(bench: Bench) -> CheckResult:
    files = bench.driver.having(".c", ".h")
    if reason := _inapplicable(bench, files, "C", "python3"):
        return _skipped("kernel-doc", reason)
    done = bench.run((f"{SOURCE}/scripts/kernel-doc", "-none", *bench.paths(files)))
    return _judged("kernel-doc", bench, [done], check_parse.kernel_doc(done.output))


def _modpost(bench: Bench) -> CheckResult:
    if bench.driver.objects:
        return _skipped("modpost", "single objects are not linked to a module")
    if not bench.compiled:
        return _skipped("modpost", NOT_COMPILED)
    return _of_build("modpost", bench, [_placed(bench, d) for d in _said(bench, "modpost")])


CHECKS: dict[str, Callable[[Bench], CheckResult]] = {
    "rustfmt": _rustfmt,
    "checkpatch": _checkpatch,
    "clippy": _clippy,
    "build": _build,
    "sparse": _sparse,
    "kernel-doc": _kernel_doc,
    "modpost": _modpost,
    "rustdoc": _rustdoc,
}
"""All checks by name, in the order they run: the quick ones first."""


def _rust(bench: Bench) -> tuple[Diagnostic, ...]:
    return check_parse.rust_json(bench.build.output, "clippy", bench.place)


def _said(bench: Bench, tool: str) -> list[Diagnostic]:
    return [d for d in parse(bench.build.output.splitlines()) if d.tool == tool]


def _placed(bench: Bench, diagnostic: Diagnostic) -> Diagnostic:
    """An undefined symbol with the functions that use it."""
    match = UNDEFINED.search(diagnostic.message)
    if not match:
        return diagnostic
    lines = [BUILD_ERROR_MEANS] if match["symbol"] == BUILD_ERROR else []
    if names := users(bench.output, match["symbol"]):
        plain = bench.run(("c++filt", *names)).output.splitlines()
        lines += [f"used by {_CRATE_HASH.sub('', name)}" for name in plain]
    return replace(diagnostic, detail="\n".join(filter(None, [diagnostic.detail, *lines])))


def _inapplicable(bench: Bench, files: Sequence[Path], language: str, program: str) -> str:
    """Why a check cannot be made; ``""`` when it can."""
    if not files:
        return f"no {language} sources"
    if program in NEED_RUST and bench.make.lane.language is Language.C:
        return "the lane has no Rust"
    return f"the toolchain has no {program}" if program in bench.absent else ""


def _skipped(name: str, reason: str) -> CheckResult:
    return CheckResult(name, Outcome.SKIP, reason)


def _of_build(name: str, bench: Bench, found: Sequence[Diagnostic]) -> CheckResult:
    """The result of a check that reads the build; what failed there else is not its matter."""
    return _result(name, bench, found, bench.build.seconds, bench.build_command().shell())


def _judged(
    name: str, bench: Bench, done: Sequence[Completed], found: Sequence[Diagnostic]
) -> CheckResult:
    """The result of a check with commands of its own; a failure without words is one too."""
    bad = next((one for one in done if not one.ok), None)
    if bad and not found:
        message = f"{name} ended with status {bad.status}"
        found = [Diagnostic(name, Level.ERROR, message, detail="\n".join(bad.tail()))]
    reproducer = " && ".join(one.command.shell() for one in done)
    return _result(name, bench, found, sum(one.seconds for one in done), reproducer)


def _result(
    name: str, bench: Bench, found: Sequence[Diagnostic], seconds: float, reproducer: str
) -> CheckResult:
    records = tuple(bench.at_home(diagnostic) for diagnostic in found)
    bad = any(record.level in (Level.ERROR, Level.WARNING) for record in records)
    outcome = Outcome.FAIL if bad else Outcome.PASS
    return CheckResult(name, outcome, "", records, seconds, reproducer)
