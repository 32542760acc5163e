"""What a build came to: data for every view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kdrv.build.diagnostics import Diagnostic
from kdrv.build.explain import Explanation
from kdrv.kernel.arch import Arch
from kdrv.machine.contract import KernelImage


@dataclass(frozen=True)
class ToolchainRecord:
    """Which toolchain made a result: provider and exact versions."""

    name: str
    identity: str
    versions: Mapping[str, str]


@dataclass(frozen=True)
class KernelBuild:
    """One lane of one tree, built or not.

    ``missing`` explains each requested symbol that is not in the final configuration: any makes
    the lane fail, and then nothing is compiled. ``image`` is set when the lane is green.
    ``cached`` says that the kernel was there already. ``objects`` counts the targets made.
    ``reproducer`` is the kdrv command; ``log`` starts with the raw one.
    """

    lane: str
    arch: Arch
    tree: str
    version: str
    toolchain: ToolchainRecord
    ok: bool
    cached: bool
    missing: tuple[Explanation, ...]
    diagnostics: tuple[Diagnostic, ...]
    image: KernelImage | None
    objects: int
    seconds: float
    log: Path
    reproducer: str


@dataclass(frozen=True)
class ModuleBuild:
    """An external module built against one lane. ``modules`` are the .ko files."""

    directory: Path
    lane: str
    ok: bool
    modules: tuple[Path, ...]
    diagnostics: tuple[Diagnostic, ...]
    seconds: float
    log: Path
    reproducer: str
