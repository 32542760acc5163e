"""What the doctor says: findings, in sections, and whether one can work with that."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How bad a finding is; only ``missing`` keeps one from working."""

    OK = "ok"
    WARNING = "warning"
    MISSING = "missing"


@dataclass(frozen=True)
class Finding:
    """One thing the doctor looked at.

    ``found`` is what is there, ``""`` for nothing; ``needed`` what this kernel tree or kdrv asks
    for, in words; ``remedy`` the command that mends it, empty when nothing is to be mended.
    """

    subject: str
    found: str
    needed: str
    state: State
    remedy: str = ""


@dataclass(frozen=True)
class Section:
    """Findings about one thing. ``needed`` is false for a provider that is not to be used."""

    title: str
    findings: tuple[Finding, ...]
    needed: bool = True

    @property
    def complete(self) -> bool:
        """Whether nothing is missing here."""
        return all(finding.state is not State.MISSING for finding in self.findings)


@dataclass(frozen=True)
class Diagnosis:
    """All sections. ``provider`` is the one kdrv would use, ``""`` when none can be used."""

    sections: tuple[Section, ...]
    provider: str
    ok: bool
