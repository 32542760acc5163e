"""Which of a driver's instructions a run reached, as places that are the same in every run."""

from __future__ import annotations

from kdrv.testing.traces import Code

SECTION_SHIFT = 32
CHECKED = 1 << 62
"""Marks places of the driver as it was built for the checked kernel: it is other code."""


def offsets(places: set[int], code: Code) -> frozenset[int]:
    """Addresses in the guest as places in the driver: section and offset, the same in every run."""
    found = set()
    for address in places:
        for number, (start, section) in enumerate(code.sections):
            if start <= address < start + section.size:
                found.add(number << SECTION_SHIFT | address - start)
    return frozenset(found)


def marked(places: frozenset[int], checked: bool) -> frozenset[int]:
    """Places told apart by the kernel that the driver was built for."""
    return frozenset(place | CHECKED for place in places) if checked else places


def of_kernel(places: frozenset[int], checked: bool) -> frozenset[int]:
    """The places of one kernel, as they were before :func:`marked`."""
    return frozenset(place & ~CHECKED for place in places if bool(place & CHECKED) == checked)
