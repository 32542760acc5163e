"""``kdrv.toml``: what a driver's project tells kdrv.

Decoded and validated by msgspec, which names the place of a mistake (``$.machine.memory``).
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from kdrv.core.errors import UsageError

FILENAME = "kdrv.toml"


class ProjectSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[project]``: the name, the kdrv that wrote it, the kernel series it was written for."""

    name: str
    kdrv: str = ""
    kernel: str = ""


class ScaffoldSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[scaffold]``: what ``kdrv new`` was asked for."""

    bus: str
    device: str = ""
    options: dict[str, Any] = {}


class DriverSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[driver]``: which driver the tests are about.

    Either ``path``, the directory of an external module, or ``symbol``, the Kconfig symbol of a
    driver of the kernel tree (``builtin``: built in instead of a module). ``module`` is the name
    in ``/proc/modules``; ``requires`` are modules to load before it; ``params`` its parameters.
    ``twin`` is another module of the same directory, for the same device: never loaded beside it.
    """

    module: str
    twin: str = ""
    path: str = ""
    symbol: str = ""
    builtin: bool = False
    language: Literal["rust", "c"] = "rust"
    params: str = ""
    requires: tuple[str, ...] = ()


class KernelSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[kernel]``: lines added to the lane's configuration, as in a .config."""

    config: tuple[str, ...] = ()


class Device(msgspec.Struct, frozen=True):
    """``[[machine.device]]``: a kind of device; its other keys are the device's options."""

    kind: str
    options: dict[str, str | int | bool] = {}


class MachineSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[machine]``: memory in MiB, processors, additions to the kernel's command line.

    ``slots`` are PCIe ports into which a test can plug devices, in QEMU.
    """

    memory: int = 256
    cpus: int = 2
    slots: Annotated[int, msgspec.Meta(ge=0, le=8)] = 0
    cmdline: tuple[str, ...] = ()
    device: tuple[dict[str, str | int | bool], ...] = ()

    def devices(self) -> tuple[Device, ...]:
        """The devices with their options set apart."""
        return tuple(
            Device(
                kind=str(table["kind"]),
                options={name: value for name, value in table.items() if name != "kind"},
            )
            for table in self.device
        )


class TestSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[test]``: where the tests are, KUnit suites to run, seconds a guest call may take."""

    paths: tuple[str, ...] = ("tests",)
    kunit: tuple[str, ...] = ()
    deadline: float = 30.0


class ExploreSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[explore]``: names of properties that the driver need not keep."""

    without: tuple[str, ...] = ()


class Project(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole ``kdrv.toml``. ``root`` is the directory it lies in."""

    project: ProjectSection
    driver: DriverSection
    scaffold: ScaffoldSection | None = None
    kernel: KernelSection = KernelSection()
    machine: MachineSection = MachineSection()
    test: TestSection = TestSection()
    explore: ExploreSection = ExploreSection()
    policy: dict[str, Any] = {}
    faults: dict[str, Any] = {}
    root: Path = Path()

    @property
    def module_dir(self) -> Path | None:
        """The directory of the external module, or ``None`` for a driver of the tree."""
        return (self.root / self.driver.path).resolve() if self.driver.path else None


def find_project(start: Path) -> Path | None:
    """The nearest driver's project from ``start`` upwards, by its ``kdrv.toml``.

    One with nothing but ``[policy]`` belongs to a kernel tree, and is passed by.
    """
    start = start.absolute()
    for folder in (start, *start.parents):
        if (folder / FILENAME).is_file() and not _only_policy(folder / FILENAME):
            return folder
    return None


def _only_policy(path: Path) -> bool:
    try:
        return set(tomllib.loads(path.read_text())) == {"policy"}
    except (OSError, ValueError, RecursionError):
        return False  # whoever loads it will say what is wrong


def load_project(root: Path) -> Project:
    """Read ``root/kdrv.toml``. Raises :class:`UsageError` naming the line or key that is wrong."""
    path = root / FILENAME
    try:
        table = tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror}",
            expected="the kdrv.toml of a driver project",
            remedy="kdrv new NAME",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is no valid TOML: {error}", expected="TOML 1.0") from error
    try:
        project = msgspec.convert(table, Project)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"{path}: {error}", expected="the keys of kdrv.toml as docs/kdrv.toml.md has them"
        ) from error
    if bool(project.driver.path) == bool(project.driver.symbol):
        raise UsageError(
            f"{path}: [driver] needs either path or symbol",
            expected='path = "." for an external module, or symbol = "SAMPLE_RUST_DRIVER_PCI"',
        )
    for device in project.machine.device:
        if not isinstance(device.get("kind"), str):
            raise UsageError(
                f"{path}: a [[machine.device]] has no kind", expected='kind = "edu", for example'
            )
    return msgspec.structs.replace(project, root=root.absolute())
