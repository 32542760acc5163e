"""The exact command that provides a tool, in a version the tree accepts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass, field

from kdrv.core.errors import KdrvError
from kdrv.core.process import Command, Runner
from kdrv.toolchain.doctor_tools import TOOLS, Tool
from kdrv.toolchain.requirements import Requirements, at_least

_DEADLINE = 30.0
RUSTUP_COMPONENTS = {"rust-src": "rust-src", "rustfmt": "rustfmt", "clippy": "clippy"}
OTHER_PROVIDER = "kdrv setup --toolchain debian"


def install(*packages: str) -> str:
    """The command that installs Debian packages, for whoever is asking."""
    if not shutil.which("apt-get"):
        return f"install {' and '.join(packages)} with this machine's package manager"
    sudo = "" if os.geteuid() == 0 else "sudo "
    return f"{sudo}apt-get install -y --no-install-recommends {' '.join(packages)}"


@dataclass(frozen=True)
class HostRemedies:
    """Remedies for the machine's own tools: apt where its candidate is new enough, else Rust's own
    installers where those are, else the Debian root, which has everything.

    ``candidates`` are the versions apt would install, by package.
    """

    wanted: Requirements
    candidates: dict[str, str] = field(default_factory=dict)
    programs: Collection[str] = ()

    @classmethod
    def of_machine(cls, wanted: Requirements, runner: Runner) -> HostRemedies:
        """Ask this machine's apt, and look for rustup and cargo."""
        programs = {name for name in ("rustup", "cargo") if shutil.which(name)}
        return cls(wanted, _candidates(runner), programs)

    def __call__(self, tool: Tool) -> str:
        """See :data:`kdrv.toolchain.doctor_tools.Mend`."""
        if tool.rust and "rustup" in self.programs:
            if component := RUSTUP_COMPONENTS.get(tool.name):
                return f"rustup component add {component}"
            if tool.name == "rustc":
                return "rustup update stable && rustup default stable"
        candidate = self.candidates.get(tool.package, "").partition(":")
        version = candidate[2] or candidate[0]
        if version and at_least(version, self.wanted.minimum(tool.minimum)):
            return install(tool.package)
        if tool.name == "bindgen" and "cargo" in self.programs:
            return "cargo install --locked bindgen-cli"
        return OTHER_PROVIDER


def debian_remedy(tool: Tool) -> str:
    """The Debian root is the same everywhere: what it lacks, only the machine's tools can have."""
    return f"provide {tool.package} on this machine, then: kdrv doctor --toolchain host"


def _candidates(runner: Runner) -> dict[str, str]:
    """The version apt would install of each tool's package; empty on a machine without apt."""
    command = Command(("apt-cache", "policy", *(tool.package for tool in TOOLS)))
    try:
        output = runner.run(command, deadline=_DEADLINE).output
    except KdrvError:
        return {}
    candidates = {}
    package = ""
    for line in output.splitlines():
        if line and not line[0].isspace():
            package = line.rstrip(":")
        elif line.strip().startswith("Candidate:") and "(none)" not in line:
            candidates[package] = line.partition(":")[2].strip()
    return candidates
