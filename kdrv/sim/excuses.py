"""Reports of the kernel that a fault of ours brings about, and that say nothing of the driver."""

from __future__ import annotations

from collections.abc import Iterable

from kdrv.machine.reports import Kind, Report
from kdrv.sim.faults import FaultKind, Fired

STARVED = frozenset({FaultKind.ALLOC_FAIL_NTH, FaultKind.PROBE_FAIL_NTH})
BROUGHT_ABOUT = {
    Kind.ALLOC_FAILURE: STARVED,
    # The kernel gives an interrupt up that nobody handles: a storm of ours, not the driver's doing.
    Kind.IRQ: frozenset({FaultKind.IRQ_STORM, FaultKind.IRQ_SPURIOUS, FaultKind.IRQ_DUPLICATE}),
}


def excused(report: Report, fired: Iterable[Fired]) -> bool:
    """Whether faults that fired are all the reason there is for a report."""
    kinds = {fault.kind for fault in fired}
    if BROUGHT_ABOUT.get(report.kind, frozenset()) & kinds:
        return True
    return bool(kinds & STARVED) and _is_the_kernels_own(report)


def _is_the_kernels_own(report: Report) -> bool:
    """What Linux says by itself where memory fails.

    It takes down a directory in /proc/irq that it had no memory for (kernel/irq/proc.c), and the
    DMA checks give up (kernel/dma/debug.c).
    """
    if report.kind is Kind.DMA:
        return "out of memory" in report.title
    return report.kind is Kind.WARN and "name 'spurious'" in report.title
