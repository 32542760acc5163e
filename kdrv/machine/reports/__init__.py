"""Reports: what a kernel's console says went wrong, as typed records.

:func:`parse` reads console lines, :func:`judge` leaves out what was there before the driver.
Time stamps and caller ids are optional. Where the console has time stamps, lines without one come
from user space and are no evidence; where it has caller ids (CONFIG_PRINTK_CALLER), reports that
two processors printed at once are told apart. No library reads these: syzkaller's is Go.
"""

from __future__ import annotations

from collections.abc import Iterable

from kdrv.machine.reports.frames import Frame
from kdrv.machine.reports.kinds import Kind
from kdrv.machine.reports.kmemleak import parse_kmemleak
from kdrv.machine.reports.reader import read
from kdrv.machine.reports.record import Report, fingerprint_of
from kdrv.machine.reports.stuck import Backtrace, backtraces, stuck

__all__ = [
    "Backtrace",
    "Frame",
    "Kind",
    "Report",
    "backtraces",
    "fingerprint_of",
    "judge",
    "parse",
    "parse_kmemleak",
    "stuck",
]


def parse(lines: Iterable[str]) -> tuple[Report, ...]:
    """All reports in a console's lines, in the order they began. Never raises."""
    return tuple(read(lines))


def judge(lines: Iterable[str], baseline: Iterable[str] = ()) -> tuple[Report, ...]:
    """The reports in ``lines``, each fault once, without those that ``baseline`` has too.

    ``baseline`` is what the console said before the driver was loaded: a warning that was there
    already, or comes again, is not the driver's.
    """
    seen = {report.fingerprint for report in parse(baseline)}
    fresh: list[Report] = []
    for report in parse(lines):
        if report.fingerprint not in seen:
            seen.add(report.fingerprint)
            fresh.append(report)
    return tuple(fresh)
