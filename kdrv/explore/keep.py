"""Keeps what a campaign finds: every new bug goes into the base at once."""

from __future__ import annotations

from pathlib import Path

from kdrv.explore.bugbase import Bug, save
from kdrv.explore.campaign import CampaignResult, Watcher
from kdrv.explore.hunt import Found
from kdrv.explore.subject import Subject
from kdrv.sim.host import this_host


class Keeper:
    """A :class:`~kdrv.explore.campaign.Watcher` that saves bugs and tells the next one."""

    def __init__(self, base: Path, subject: Subject, next_one: Watcher) -> None:
        self.bugs: list[Bug] = []
        self._base = base
        self._subject = subject
        self._next = next_one

    def progress(self, result: CampaignResult) -> None:
        """See :class:`~kdrv.explore.campaign.Watcher`."""
        self._next.progress(result)

    def found(self, bug: Found) -> None:
        """See :class:`~kdrv.explore.campaign.Watcher`."""
        host = this_host()
        processor = f"{host.name} ({host.flags})"
        self.bugs.append(save(self._base, bug, self._subject, processor))
        self._next.found(bug)
