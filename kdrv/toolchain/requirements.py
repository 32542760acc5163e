"""What a kernel tree asks of a toolchain, read from the tree itself.

Two sources, both the tree's own: ``scripts/min-tool-version.sh`` (since v5.14; what the build
enforces) and the table of ``Documentation/process/changes.rst`` (what it merely documents).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kdrv.core.process import Runner
from kdrv.toolchain.base import SOURCE, Bind, Toolchain

SCRIPT = "scripts/min-tool-version.sh"
TABLE = "Documentation/process/changes.rst"
RUST_SCRIPT = "scripts/rust_is_available.sh"

SCRIPT_TOOLS = ("binutils", "gcc", "llvm", "rustc", "bindgen")
"""The tools :data:`SCRIPT` has ever known that kdrv uses; an unknown one is an error of its."""

TABLE_TOOLS = {
    "GNU C": "gcc",
    "Clang/LLVM": "llvm",
    "Rust": "rustc",
    "bindgen": "bindgen",
    "binutils": "binutils",
    "GNU make": "make",
    "flex": "flex",
    "bison": "bison",
    "bc": "bc",
    "pahole": "pahole",
    "Python": "python3",
    "openssl & libcrypto": "openssl",
}
"""The programs of :data:`TABLE` that kdrv uses, and kdrv's names for them."""

_DEADLINE = 30.0
_ROW = re.compile(r"^(?P<program>\S.*?)(?: \(optional\))?\s{2,}(?P<version>\d\S*)\s{2,}\S")


@dataclass(frozen=True)
class Requirements:
    """The lowest version of each tool a tree builds with, by the tool's name; what is not named
    has no requirement. ``rust`` says whether the tree can use Rust at all (v6.1 or later).
    """

    versions: Mapping[str, str] = field(default_factory=dict)
    rust: bool = False

    @classmethod
    def of_tree(
        cls, tree: Path, toolchain: Toolchain, runner: Runner, *, srcarch: str = "x86"
    ) -> Requirements:
        """Ask ``tree``, running its script inside ``toolchain``'s sandbox.

        ``srcarch`` is the kernel's ``SRCARCH`` (the directory below ``arch/``). A tree without
        the script or without the table gives what the other has; one without both, nothing.
        """
        versions = _documented(tree / TABLE)
        if (tree / SCRIPT).is_file():
            versions.update(_enforced(tree, toolchain, runner, srcarch))
        return cls(versions, (tree / RUST_SCRIPT).is_file())

    def minimum(self, tool: str) -> str:
        """The lowest version of ``tool``, ``""`` when any will do."""
        return self.versions.get(tool, "")

    def satisfied(self, tool: str, version: str) -> bool:
        """Whether ``version`` of ``tool`` is new enough."""
        return at_least(version, self.minimum(tool))


def numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version, for comparing: ``v1.30`` is (1, 30), ``2.10o`` is (2, 10)."""
    match = re.search(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def at_least(version: str, minimum: str) -> bool:
    """Whether ``version`` is ``minimum`` or later; 14.2 and 14.2.0 are the same."""
    have, need = numbers(version), numbers(minimum)
    length = max(len(have), len(need))
    return _padded(have, length) >= _padded(need, length)


def _padded(version: tuple[int, ...], length: int) -> tuple[int, ...]:
    return version + (0,) * (length - len(version))


def _enforced(tree: Path, toolchain: Toolchain, runner: Runner, srcarch: str) -> dict[str, str]:
    """What the script says, all tools in one sandbox."""
    script = f'for tool; do echo "$tool $(sh {SCRIPT} $tool 2>/dev/null)"; done'
    command = toolchain.command(
        ("sh", "-c", script, "sh", *SCRIPT_TOOLS),
        binds=(Bind(tree, SOURCE),),
        cwd=SOURCE,
        env={"SRCARCH": srcarch, "ARCH": srcarch},
    )
    lines = runner.run(command, deadline=_DEADLINE).output.splitlines()
    answers = (line.split() for line in lines)
    return {answer[0]: answer[1] for answer in answers if len(answer) == 2}


def _documented(table: Path) -> dict[str, str]:
    """What the table of minimal versions says; nothing when there is no such file."""
    try:
        text = table.read_text(errors="replace")
    except OSError:
        return {}
    versions: dict[str, str] = {}
    for line in text.splitlines():
        row = _ROW.match(line)
        if row and (tool := TABLE_TOOLS.get(row["program"])):
            versions.setdefault(tool, row["version"].removesuffix(".x"))
    return versions
