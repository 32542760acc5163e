"""The public API of building: a request as a user makes it, results for every view."""

from __future__ import annotations

import shlex
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from kdrv.build.check_bench import Driver
from kdrv.build.checks import CheckResult, Outcome, run_checks
from kdrv.build.diagnostics import Diagnostic
from kdrv.build.intree import built_module, symbol_line
from kdrv.build.kernel import build_kernel
from kdrv.build.lane import TINY, Fragment, Lane, Language, make_lane, read_fragment
from kdrv.build.make import Make
from kdrv.build.module import build_module, require_module
from kdrv.build.result import KernelBuild, ModuleBuild
from kdrv.core.context import Context
from kdrv.core.errors import UsageError
from kdrv.core.project import FILENAME, DriverSection, Project, load_project
from kdrv.kernel import source
from kdrv.kernel.arch import Arch
from kdrv.kernel.tree import KernelTree
from kdrv.machine.contract import KernelImage
from kdrv.toolchain.base import Toolchain
from kdrv.toolchain.select import AUTO, select

INSTRUMENTED = ("KCOV_INSTRUMENT=y", "CFLAGS_MODULE=-g", "RUSTFLAGS_MODULE=-Cdebuginfo=2")
"""Coverage of the module alone (scripts/Makefile.lib), and lines for its addresses."""


class Choices(Protocol):
    """What ``kdrv build`` and ``kdrv test`` let a user choose alike."""

    @property
    def kernel(self) -> str | None: ...  # noqa: D102
    @property
    def toolchain(self) -> str: ...  # noqa: D102
    @property
    def arch(self) -> Arch: ...  # noqa: D102
    @property
    def base(self) -> str: ...  # noqa: D102
    @property
    def fragments(self) -> tuple[Path, ...]: ...  # noqa: D102
    @property
    def debug(self) -> bool: ...  # noqa: D102


def spelled(chosen: Choices) -> list[str]:
    """The options of a command line that choose the same; defaults are left out."""
    words = []
    for option, value, default in (
        ("--kernel", chosen.kernel, None),
        ("--toolchain", chosen.toolchain, AUTO),
        ("--arch", chosen.arch.value, Arch.X86_64.value),
        ("--config", chosen.base, TINY),
    ):
        if value is not None and value != default:
            words += [option, value]
    for path in chosen.fragments:
        words += ["--fragment", str(path)]
    if chosen.debug:
        words.append("--debug")
    return words


@dataclass(frozen=True)
class BuildRequest:
    """What to build: lanes of a kernel, and perhaps an external module against each.

    ``kernel`` is a directory, a series, ``latest`` or ``None`` (the proven series). ``config`` are
    single lines on top of the ``fragments`` (files). ``project`` is where they came
    from, ``driver`` what it names. ``instrument`` builds the module to tell by KCOV what of it was
    reached, and with debug information.
    """

    kernel: str | None = None
    toolchain: str = AUTO
    languages: tuple[Language, ...] = (Language.C,)
    arch: Arch = Arch.X86_64
    debug: bool = False
    base: str = TINY
    fragments: tuple[Path, ...] = ()
    config: tuple[str, ...] = ()
    module: Path | None = None
    project: Path | None = None
    driver: DriverSection | None = None
    instrument: bool = False

    def for_directory(self, directory: Path, *, keep_languages: bool) -> BuildRequest:
        """The request for a driver's directory: an external module, or a project's kdrv.toml.

        A project decides the language, unless ``keep_languages``, and the kernel series, unless
        one was asked for; a driver of the tree adds its Kconfig symbol.
        """
        if not (directory / FILENAME).is_file():
            return replace(self, module=require_module(directory))
        return self.for_project(load_project(directory), keep_languages=keep_languages)

    def for_project(self, project: Project, *, keep_languages: bool = False) -> BuildRequest:
        """The request for a project's driver; see :meth:`for_directory`."""
        driver = project.driver
        config = (*self.config, *project.kernel.config)
        if driver.symbol:
            config = (*config, symbol_line(driver.symbol, builtin=driver.builtin))
        return replace(
            self,
            kernel=self.kernel or project.project.kernel or None,
            languages=self.languages if keep_languages else (Language(driver.language),),
            config=config,
            module=project.module_dir,
            project=project.root,
            driver=driver,
        )

    def lanes(self) -> tuple[Lane, ...]:
        """The lanes, in order. Raises :class:`kdrv.core.errors.UsageError` for a bad file."""
        extra = tuple(read_fragment(path) for path in self.fragments)
        if self.config:
            extra = (*extra, Fragment("kdrv.toml", "\n".join(self.config)))
        return tuple(
            make_lane(language, self.arch, debug=self.debug, base=self.base, extra=extra)
            for language in self.languages
        )

    def command(self, language: Language) -> str:
        """The command line that builds one lane of this request again."""
        words = ["kdrv", "build"]
        if place := self.project or self.module:
            words.append(str(place))
        if language is Language.RUST:
            words.append("--rust")
        return shlex.join([*words, *spelled(self)])


@dataclass(frozen=True)
class LaneBuild:
    """A lane's kernel, and the module against it when one was asked for and the kernel is green."""

    kernel: KernelBuild
    module: ModuleBuild | None = None
    checks: tuple[CheckResult, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether all of it is green."""
        built = self.kernel.ok and (self.module is None or self.module.ok)
        return built and all(check.outcome is not Outcome.FAIL for check in self.checks)

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """All that was said: of the kernel, the module, and by the checks."""
        of_module = self.module.diagnostics if self.module else ()
        of_checks = (d for check in self.checks for d in check.diagnostics)
        return (*self.kernel.diagnostics, *of_module, *of_checks)


@dataclass(frozen=True)
class Workbench:
    """A tree and the toolchain chosen for it; ``seed`` as in :func:`build_kernel`."""

    tree: KernelTree
    toolchain: Toolchain
    seed: Path | None = None


def prepare(ctx: Context, request: BuildRequest) -> Workbench:
    """Have the tree and the toolchain, obtaining what is missing."""
    if request.module:
        require_module(request.module)
    tree = source.obtain(ctx, request.kernel)
    rust = Language.RUST in request.languages
    return Workbench(tree, select(ctx, request.toolchain, tree.path, rust=rust))


def build(
    ctx: Context, request: BuildRequest, workbench: Workbench | None = None
) -> tuple[LaneBuild, ...]:
    """Build every lane of the request; a lane that is not green is a result, not an error."""
    lanes = request.lanes()
    bench = workbench or prepare(ctx, request)
    results = []
    for lane in lanes:
        again = request.command(lane.language)
        kernel = build_kernel(
            ctx, bench.tree, lane, bench.toolchain, reproducer=again, seed=bench.seed
        )
        module = None
        if request.instrument and kernel.image and not request.module:
            module = _instrumented(ctx, request, bench, lane, kernel.image)
        if request.module and kernel.image:
            module = build_module(
                ctx,
                request.module,
                bench.tree,
                lane,
                kernel.image,
                bench.toolchain,
                variables=INSTRUMENTED if request.instrument else (),
                reproducer=again,
            )
        results.append(LaneBuild(kernel, module))
    return tuple(results)


def _instrumented(
    ctx: Context, request: BuildRequest, bench: Workbench, lane: Lane, image: KernelImage
) -> ModuleBuild | None:
    """A driver of the tree built once more, by itself, to tell what of it was reached.

    None for one that is built in, or that does not build by itself.
    """
    driver = request.driver
    if not driver or driver.builtin:
        return None
    file = built_module(image.build, driver.module)
    folder = bench.tree.path / file.parent.relative_to(image.build)
    built = build_module(
        ctx,
        folder,
        bench.tree,
        lane,
        image,
        bench.toolchain,
        variables=INSTRUMENTED,
        only=file.name,
        reproducer=request.command(lane.language),
    )
    return built if built.ok else None


def build_and_check(ctx: Context, request: BuildRequest, *, check: bool) -> tuple[LaneBuild, ...]:
    """Build like :func:`build`, then check the driver's code against each green lane."""
    bench = prepare(ctx, request)
    results = build(ctx, request, bench)
    if not check:
        return results
    checked = []
    for lane, result in zip(request.lanes(), results, strict=True):
        if image := result.kernel.image:
            driver = _driver(request, bench, image.build)
            make = Make(bench.tree, lane, bench.toolchain, image.build)
            with tempfile.TemporaryDirectory(prefix="kdrv-") as scratch:
                result = replace(result, checks=run_checks(ctx, driver, make, Path(scratch)))
        checked.append(result)
    return tuple(checked)


def _driver(request: BuildRequest, bench: Workbench, output: Path) -> Driver:
    """The driver's code: an external module's, or that of the tree's module a project names."""
    if request.module:
        return Driver.of_module(bench.tree.path, output, request.module)
    if request.driver and request.driver.symbol and not request.driver.builtin:
        module = built_module(output, request.driver.module)
        return Driver.of_module(bench.tree.path, output, module)
    raise UsageError(
        "the code checks need a driver that is built as a module",
        expected="the directory of an external module, or a kdrv.toml that names a module",
    )
