"""Two drivers for one device: the same plan on both, and the first difference that counts.

Results and errors are compared by class; the bus by what the drivers tell the device, for how often
one asks for its status is its own affair.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import zip_longest

from kdrv.explore.history import History, Moment, Outcome, Violation
from kdrv.sim.trace import Access, DmaAccess, Record

NAME = "agrees"
CLASSES = (
    frozenset({"EIO", "ETIMEDOUT", "ENODEV", "ENXIO", "EREMOTEIO", "EPROTO", "EBADMSG", "EILSEQ"}),
    frozenset({"EINVAL", "ENOTTY", "EOPNOTSUPP", "ENOSYS", "ERANGE", "EDOM", "EOVERFLOW"}),
    frozenset({"EINTR", "ERESTART"}),
    frozenset({"EAGAIN", "EBUSY"}),
    frozenset({"ENOSPC", "EFBIG", "EMSGSIZE", "E2BIG"}),
)
"""Errors that mean the same to a program."""
PAGE_SHIFT = 12


def differences(one: History, other: History, names: tuple[str, str]) -> list[Violation]:
    """The first difference between two runs of one plan; none where they cannot be compared.

    ``names`` are the drivers'. Where actors act at the same time their order is the driver's
    affair, and where faults struck at different accesses the hardware was not the same.
    """
    if not one.loaded or not other.loaded:
        return []
    actors = {moment.actor for moment in one.moments if moment.phase == "plan"}
    if len(actors) > 1 or _struck(one) != _struck(other):
        return []
    found = _results(one, other, names)
    if found is None and not one.fired:
        found = _bus(one, other, names)
    return [found] if found else []


def _struck(history: History) -> list[tuple[str, str, int]]:
    return [(fault.kind, fault.device, fault.number) for fault in history.fired]


def _results(one: History, other: History, names: tuple[str, str]) -> Violation | None:
    ours = [moment for moment in one.moments if moment.phase == "plan"]
    theirs = [moment for moment in other.moments if moment.phase == "plan"]
    for mine, its in zip(ours, theirs, strict=False):
        if _meaning(mine) != _meaning(its):
            words = f"{mine.story()} in {names[0]}, but {its.story()} in {names[1]}"
            return Violation(NAME, words, f"result:{mine.does}", at=mine.began)
    return None


def _meaning(moment: Moment) -> object:
    if moment.outcome is Outcome.OK:
        # A name of the driver's own may be in it, as the device it was unbound from.
        return (Outcome.OK, repr(moment.value))
    if moment.outcome is Outcome.ERROR:
        for number, members in enumerate(CLASSES):
            if moment.errno in members:
                return (Outcome.ERROR, number)
        return (Outcome.ERROR, moment.errno)
    return moment.outcome


def _bus(one: History, other: History, names: tuple[str, str]) -> Violation | None:
    for mine, its in zip_longest(normalised(one), normalised(other)):
        if mine != its:
            told = [
                f"{name}: {said or 'nothing more'}"
                for name, said in zip(names, (mine, its), strict=False)
            ]
            words = "the drivers tell the device different things: " + "; ".join(told)
            place = "bus:" + re.sub(r"0x[0-9a-f]+|\d+", "#", mine or its or "")
            return Violation(NAME, words, place)
    return None


def normalised(history: History) -> Iterator[str]:
    """What a driver told its devices: writes, with addresses by their order of appearance.

    The same write twice in a row is one. Only what happened while the plan's steps ran counts:
    how a driver sets its device up is not for comparing.
    """
    plan = [moment for moment in history.moments if moment.phase == "plan"]
    if not plan:
        return
    begin, end = min(m.began for m in plan), max(m.ended for m in plan)
    names = _buffers(history)
    last = ""
    for record in history.trace:
        if begin <= record.at <= end and (text := _told(record, names)) and text != last:
            last = text
            yield text


def _buffers(history: History) -> dict[int, str]:
    """Names for the pages that devices used, by the order of their first use."""
    names: dict[int, str] = {}
    for record in history.trace:
        if isinstance(record, DmaAccess):
            names.setdefault(record.address >> PAGE_SHIFT, f"buffer {len(names)}")
    return names


def _told(record: Record, names: dict[int, str]) -> str:
    if isinstance(record, DmaAccess):
        way = "to" if record.write else "from"
        place = _place(record.address, names)
        return f"{record.device}: {len(record.data)} bytes {way} {place}"
    if isinstance(record, Access) and record.write:
        register = record.register or hex(record.offset)
        return f"{record.device}: {register} <- {_place(record.value, names)}"
    return ""


def _place(number: int, names: dict[int, str]) -> str:
    """A number, in words if it lies in a buffer."""
    name = names.get(number >> PAGE_SHIFT)
    return f"{name}+{number & ((1 << PAGE_SHIFT) - 1):#x}" if name else f"{number:#x}"
