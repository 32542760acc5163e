"""From a project to everything its tests need: kernel, module, initramfs, machine."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kdrv.build.api import BuildRequest, LaneBuild, Workbench, build, spelled
from kdrv.build.api import prepare as prepare_build
from kdrv.build.intree import built_module
from kdrv.build.lane import TINY, Language
from kdrv.core.context import Context
from kdrv.core.errors import UsageError, WorkFailed
from kdrv.core.project import Project
from kdrv.guest.base import base_initramfs
from kdrv.guest.cpio import Archive
from kdrv.kernel.arch import Arch
from kdrv.kernel.modinfo import code_sections, read_module
from kdrv.machine.contract import BootSpec, DeviceSpec, KernelImage
from kdrv.testing.driver import DriverFile
from kdrv.toolchain.select import AUTO

SIM = "sim"
CALM = "calm"
MODULES = "/kdrv/modules"
TESTS = "/kdrv/tests"
WATCH = (
    # A lockup is a verdict of seconds, not of minutes (kernel/hung_task.c).
    "sysctl.kernel.hung_task_timeout_secs=10",
    "sysctl.kernel.hung_task_check_interval_secs=1",
)
# What ARCH=um does not know, for it has one processor and no clock of its own.
WATCH_HARDWARE = (
    # The same (kernel/watchdog.c). A processor that is locked up prints nothing by itself where
    # there is only one.
    "watchdog_thresh=4",
    "softlockup_panic=1",
    # Crash addresses differ between boots for no use of ours.
    "nokaslr",
)
# Who allocated each slab object: what is left after unload has a name (mm/slub.c).
WATCH_PLAIN = ("slab_debug=U,kmalloc-*",)
# There KASAN keeps what is freed for a while, so that counts of objects say nothing, and kmemleak
# tells of leaks; without consistency checks ("F") it misses most of them, for freed objects keep
# pointers to them.
WATCH_DEBUG = ("slab_debug=F", "kmemleak=on")


@dataclass(frozen=True)
class TestRequest:
    """What to test: a project's driver (or, without one, the kernels themselves) and where.

    ``kernel``, ``base`` and ``fragments`` as in :class:`kdrv.build.api.BuildRequest`. ``seed`` and
    ``profile`` decide what goes wrong in the simulator. ``instrument`` builds the driver for KCOV;
    ``against`` names its twin, if it is not the one that kdrv.toml names.
    """

    __test__ = False  # a name of ours, not of pytest's
    project: Project | None
    world: str
    kernel: str | None = None
    toolchain: str = AUTO
    arch: Arch = Arch.X86_64
    debug: bool = False
    base: str = TINY
    fragments: tuple[Path, ...] = ()
    seed: int = 0
    profile: str = CALM
    instrument: bool = False
    against: str = ""

    @property
    def simulated(self) -> bool:
        """Whether the world is the simulator."""
        return self.world == SIM

    def to_build(self, *languages: Language) -> BuildRequest:
        """The build of the same choices, in these languages."""
        return BuildRequest(
            kernel=self.kernel,
            toolchain=self.toolchain,
            languages=languages,
            arch=self.arch,
            debug=self.debug,
            base=self.base,
            fragments=self.fragments,
            instrument=self.instrument,
        )

    def command(self, *arguments: str) -> str:
        """The command line that runs this again, with further arguments."""
        words = ["kdrv", "test", f"--{self.world}"]
        if self.project:
            words.append(str(self.project.root))
        if self.simulated:
            words += ["--seed", str(self.seed)]
            words += ["--profile", self.profile] if self.profile != CALM else []
        # The simulator has one architecture: nobody needs to say so.
        chosen = replace(self, arch=Arch.X86_64) if self.simulated else self
        return shlex.join([*words, *spelled(chosen), *arguments])


def make_request(
    project: Project | None,
    world: str,
    *,
    kernel: str | None = None,
    toolchain: str = AUTO,
    arch: Arch | None = None,
    debug: bool = False,
    base: str = TINY,
    fragments: Sequence[str] = (),
    seed: int = 0,
    profile: str = CALM,
    against: str = "",
) -> TestRequest:
    """A request from what a user types; the world decides what the architecture can be.

    Raises :class:`UsageError` where it cannot be.
    """
    simulated = world == SIM
    if simulated and arch not in (None, Arch.UM):
        raise UsageError(
            f"the simulator cannot run a kernel for {arch}",
            expected="um (User Mode Linux), which is its default",
            remedy=f"kdrv test --qemu --arch {arch}",
        )
    if not simulated and arch is Arch.UM:
        raise UsageError(
            "QEMU cannot run a kernel for um (User Mode Linux)", remedy="kdrv test --sim"
        )
    return TestRequest(
        project,
        world,
        kernel=kernel,
        toolchain=toolchain,
        arch=arch or (Arch.UM if simulated else Arch.X86_64),
        debug=debug,
        base=base,
        fragments=tuple(Path(path) for path in fragments),
        seed=seed,
        profile=profile,
        against=against,
    )


@dataclass(frozen=True)
class Prepared:
    """All that is needed to boot: built, staged, and where things are in the guest."""

    request: TestRequest
    bench: Workbench
    build: LaneBuild
    spec: BootSpec
    driver: DriverFile | None
    twin: DriverFile | None = None
    """Another driver for the same device, to be loaded in place of the first."""
    module: Path | None = None
    """The driver's .ko, if it is not built in."""


Preparation = Callable[[Context, TestRequest, Path], Prepared]
"""Makes a project ready: :func:`prepare_project`, or what has it built already."""


def prepare_project(ctx: Context, request: TestRequest, scratch: Path) -> Prepared:
    """Build and stage a project's driver.

    ``scratch`` holds the initramfs. Raises :class:`WorkFailed` when the kernel or the driver does
    not build, with the first diagnostics.
    """
    assert request.project is not None
    build_request = request.to_build().for_project(request.project)
    bench = prepare_build(ctx, build_request)
    (result,) = build(ctx, build_request, bench)
    return prepare_built(ctx, request, bench, result, scratch)


def prepare_built(
    ctx: Context, request: TestRequest, bench: Workbench, result: LaneBuild, scratch: Path
) -> Prepared:
    """Stage a driver that is built; see :func:`prepare_project`."""
    project = request.project
    assert project is not None
    require_green(result)
    image = result.kernel.image
    assert image is not None
    twin = request.against or project.driver.twin
    files, rival = _driver_modules(project, result, image, twin)
    staged = [*files, rival] if rival else files
    check_modules(staged, image)
    driver = DriverFile(
        module=project.driver.module,
        path=f"{MODULES}/{files[-1].name}" if files else "",
        params=project.driver.params,
        requires=tuple(f"{MODULES}/{file.name}" for file in files[:-1]),
        code=code_sections(files[-1]) if files else (),
    )
    base = base_initramfs(ctx, bench.toolchain, bench.tree, image.arch)
    initramfs = stage(base, scratch / "initramfs.cpio", staged, _scripts(project))
    spec = boot_spec(request, image, initramfs, project, loads=bool(files))
    other = (
        replace(driver, module=twin, path=f"{MODULES}/{rival.name}", code=code_sections(rival))
        if rival
        else None
    )
    return Prepared(request, bench, result, spec, driver, other, files[-1] if files else None)


def require_green(result: LaneBuild) -> None:
    """Raise :class:`WorkFailed` with the first errors when a build is not green."""
    if result.ok:
        return
    kernel, module = result.kernel, result.module
    part = module if kernel.ok and module else kernel
    errors = [d for d in part.diagnostics if d.level == "error"]
    detail = [f"{d.place}: {d.message}" for d in errors[:5]] or [e.summary for e in kernel.missing]
    what = f"module {module.directory}" if kernel.ok and module else f"Linux {kernel.version}"
    raise WorkFailed(
        f"{what} does not build in lane {kernel.lane}",
        detail=detail,
        expected="a green build before anything is booted",
        remedy=f"the whole output: {part.log}",
        reproducer=part.reproducer,
    )


def check_modules(files: Sequence[Path], image: KernelImage) -> None:
    """Refuse what the kernel would refuse, in better words: no ELF, or another kernel's module."""
    for file in files:
        info = read_module(file)
        if info.release != image.release:
            raise WorkFailed(
                f"{file.name} was built for Linux {info.release}, the kernel is {image.release}",
                expected=f"vermagic {image.release}",
                remedy="build it against this kernel: kdrv build PROJECT --kernel …",
            )


def stage(base: Path, target: Path, modules: Sequence[Path], scripts: Sequence[Path]) -> Path:
    """Write the initramfs: the base archive with modules and shell tests behind it."""
    archive = Archive().directory(MODULES).directory(TESTS)
    for module in modules:
        archive.file(f"{MODULES}/{module.name}", module.read_bytes())
    for script in scripts:
        archive.file(f"{TESTS}/{script.name}", script.read_bytes(), 0o755)
    target.write_bytes(base.read_bytes() + archive.pack())
    return target


def boot_spec(
    request: TestRequest,
    image: KernelImage,
    initramfs: Path,
    project: Project | None = None,
    devices: tuple[DeviceSpec, ...] = (),
    *,
    loads: bool = True,
) -> BootSpec:
    """How to boot a kernel: a project's machine, or one with the given ``devices``.

    ``loads`` says that modules will come and go. What they leave behind has a name then, which
    makes a boot half as slow again.
    """
    watch: tuple[str, ...] = WATCH
    if request.debug:
        watch += WATCH_DEBUG
    elif loads:
        watch += WATCH_PLAIN
    if not request.simulated:
        watch += WATCH_HARDWARE
    if project is None:
        cpus = 1 if request.simulated else 2
        return BootSpec(image, initramfs, devices, cpus=cpus, cmdline=watch)
    machine = project.machine
    return BootSpec(
        image,
        initramfs,
        devices=tuple(DeviceSpec(d.kind, d.options) for d in machine.devices()),
        # KASAN wants memory; in the simulator its shadow lies apart from it.
        memory_mib=machine.memory * (2 if request.debug and not request.simulated else 1),
        cpus=1 if request.simulated else machine.cpus,
        cmdline=(*watch, *machine.cmdline),
    )


def _driver_modules(
    project: Project, result: LaneBuild, image: KernelImage, twin: str
) -> tuple[list[Path], Path | None]:
    """The .ko files to stage, the driver's own last, and its twin's.

    None for a driver that is built in.
    """
    driver = project.driver
    if driver.builtin:
        return [], None
    required = [built_module(image.build, name) for name in driver.requires]
    if not project.module_dir:
        rival = built_module(image.build, twin) if twin else None
        alone = result.module.modules if result.module else ()
        return [*required, *(alone or (built_module(image.build, driver.module),))], rival
    assert result.module
    names = {name: path for path in result.module.modules if (name := module_name(path))}
    for name in filter(None, (driver.module, twin)):
        if name not in names:
            raise UsageError(
                f"{project.module_dir} builds no module named {name}",
                expected=f"one of: {', '.join(names) or 'none'}",
                remedy=f"name one of them in {project.root}/kdrv.toml or on the command line",
            )
    own = names.pop(driver.module)
    rival = names.pop(twin) if twin else None
    return [*required, *names.values(), own], rival


def module_name(path: Path) -> str:
    """The name in /proc/modules of a .ko file."""
    return path.stem.replace("-", "_")


def _scripts(project: Project) -> list[Path]:
    """The shell tests, which all lie in one folder of the guest."""
    folders = (project.root / folder for folder in project.test.paths)
    found = [script for folder in folders for script in sorted(folder.rglob("*.sh"))]
    names: dict[str, Path] = {}
    for script in dict.fromkeys(path.resolve() for path in found):
        other = names.setdefault(script.name, script)
        if other != script:
            raise UsageError(
                f"two shell tests have the name {script.name}: {other} and {script}",
                expected="names of their own: they lie in one folder of the guest",
                remedy=f"rename one of them: mv {script} {script.with_name('another-name.sh')}",
            )
    return list(names.values())
