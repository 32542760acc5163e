"""What every driver must keep, checked in every run without a word from the user.

Each property is a function of one run's :class:`~kdrv.explore.history.History` that gives the
violations; none needs the machine any more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass

from kdrv.core.errors import UsageError, WorkFailed
from kdrv.explore.history import EDGE, PROBING, Entry, History, Moment, Outcome, Violation
from kdrv.machine.verdict import describe, severity
from kdrv.sim.excuses import excused
from kdrv.sim.faults import FACTS, MILLISECOND, FaultKind
from kdrv.sim.trace import Access, DmaAccess, Interrupt, Note, Record

QUIETABLE = frozenset(
    {
        FaultKind.IRQ_LOST,
        FaultKind.IRQ_LATE,
        FaultKind.IRQ_DUPLICATE,
        FaultKind.IRQ_SPURIOUS,
        FaultKind.IRQ_STORM,
        FaultKind.COMPLETION_REORDER,
        FaultKind.ALLOC_FAIL_NTH,
        FaultKind.SIGNAL,
    }
)
"""Faults that do not keep a driver from telling its device to stop. With others the device is deaf,
or the driver believes it gone, and nobody could quiet it."""
FOREVER = 1 << 63
SPACE_OFF = "memory space is off"
"""What a PCI model notes at an access that it does not answer."""
IDLE = 50 * MILLISECOND
"""A wait of which nobody would say that it was meant, where a device has answered already."""
BY_DEVICE = (DmaAccess, Interrupt)
PARTINGS = PROBING | {"unbind"}
NOT_NOW = frozenset({"EAGAIN", "EBUSY", "EINTR", "ENOMEM", "ENOSPC"})
"""Errors that say nothing against what was asked for."""
LATE_DMA = frozenset({FaultKind.DMA_AFTER_FREE, FaultKind.DMA_LATE})


@dataclass(frozen=True)
class Property:
    """A property by name, in words, and its check."""

    name: str
    words: str
    check: Callable[[History], Iterable[Violation]]


def violations(
    history: History,
    own: Mapping[str, Callable[[History], None]] | None = None,
    without: Container[str] = (),
) -> list[Violation]:
    """All that did not hold, the gravest first; ``own`` are the user's properties."""
    asked = (one for one in PROPERTIES if one.name not in without)
    found = [violation for one in asked for violation in one.check(history)]
    for name, check in (own or {}).items():
        try:
            check(history)
        except AssertionError as error:
            found.append(Violation(name, str(error) or "does not hold", name))
        except Exception as error:
            raise WorkFailed(
                f"the property {name} cannot judge a run: {type(error).__name__}: {error}",
                expected="AssertionError where it does not hold, and no other exception",
            ) from error
    return found


def known(names: Iterable[str]) -> frozenset[str]:
    """These names of properties. Raises :class:`UsageError` for one that is none."""
    wanted, all_names = frozenset(names), sorted({one.name for one in PROPERTIES})
    for name in sorted(wanted.difference(all_names)):
        raise UsageError(
            f"[explore] of kdrv.toml has without = [{name!r}], which is no property",
            expected="one of " + ", ".join(all_names),
        )
    return wanted


def _no_reports(history: History) -> Iterable[Violation]:
    told = [report for report in history.reports if not excused(report, history.fired)]
    if not told:
        return
    # What comes first explains the rest, unless something graver does.
    first = max(told, key=lambda report: (severity(report.kind), -told.index(report)))
    yield Violation(
        "no-report", describe(first), f"{first.kind}:{first.fingerprint}", tuple(first.lines[:30])
    )


def _legal_access(history: History) -> Iterable[Violation]:
    if history.fault:
        message, blame, detail = history.fault
        yield Violation("legal-access", message, f"{blame}:{_without_numbers(message)}", detail)


def _lives(history: History) -> Iterable[Violation]:
    if history.ended and not history.fault and not history.reports:
        died = [moment for moment in history.moments if moment.outcome is Outcome.DIED]
        doing = died[-1].does if died else ""
        how = "livelock" if "stalled" in history.ended else "death"
        yield Violation("lives", history.ended, f"{how}:{doing}")


def _returns(history: History) -> Iterable[Violation]:
    for moment in history.moments:
        if moment.outcome in (Outcome.HUNG, Outcome.BLOCKED):
            how = "hangs for ever" if moment.outcome is Outcome.HUNG else "waits for ever"
            words = f"{moment.does} {how}" + (f" {moment.words}" if moment.words else "")
            yield Violation("returns", words, _stuck_at(history, moment), at=moment.began)
            return


def _right(history: History) -> Iterable[Violation]:
    for moment in _wrong(history):
        if moment.phase != EDGE:
            words = f"{moment.does}: {moment.words}"
            yield Violation("right-answer", words, moment.does, at=moment.began)
            return


def _agreed(history: History) -> Iterable[Violation]:
    for moment in _wrong(history):
        if moment.phase == EDGE:
            place = f"{moment.does}:{moment.arguments.get('request', '')}"
            yield Violation("callers-memory", moment.words, place, at=moment.began)
            return


def _wrong(history: History) -> Iterator[Moment]:
    """Operations whose assertion failed, as far as the driver can answer for it."""
    # No driver can know that a bit it was given is wrong.
    deceits = (
        fault.at
        for fault in history.fired
        if not FACTS[fault.kind].detectable and fault.kind not in history.telling
    )
    deceived = min(deceits, default=FOREVER)
    for moment in history.moments:
        if moment.outcome is Outcome.WRONG and moment.ended < deceived:
            yield moment


def _survives(history: History) -> Iterable[Violation]:
    if history.reports or history.ended:
        return
    for moment in history.moments:
        if moment.outcome is Outcome.DIED:
            words = f"{moment.does}: {moment.words}"
            yield Violation("lives", words, f"call:{moment.does}", at=moment.began)
            return


def _no_traces(history: History) -> Iterable[Violation]:
    if history.left:
        kind = _without_numbers(history.left[0].split("left behind: ")[-1])
        yield Violation("no-trace", history.left[0], kind, history.left[1:])


def _unloads(history: History) -> Iterable[Violation]:
    for moment in history.moments:
        if moment.phase == "unload" and moment.outcome is Outcome.ERROR:
            words = f"the driver cannot be unloaded although nobody uses it: {moment.errno}"
            yield Violation("no-trace", words, f"unload:{moment.errno}", at=moment.began)


def _serves(history: History) -> Iterable[Violation]:
    if _stays_off(history):
        return
    last = {m.does: m for m in history.moments if m.phase == "serve"}
    last.update((m.does, m) for m in history.moments if (m.phase, m.does) == ("part", "bind"))
    for moment in last.values():
        if moment.outcome is Outcome.ERROR and (moment.does == "bind" or history.serves is False):
            words = f"{moment.does} still fails once faults have stopped: {moment.errno}"
            place = f"{moment.does}:{moment.errno}"
            yield Violation("serves-again", words, place, at=moment.began)
            return


def _stays_off(history: History) -> bool:
    """Whether Linux takes a device for enabled that was not there when it enabled it.

    It then reads all ones, in which memory space is on (drivers/pci/pci.c: do_pci_enable_device),
    and enables it no more until a driver disables it, for which Rust has no function.
    """
    lost = any(fault.kind is FaultKind.PM_FAIL for fault in history.fired)
    return lost and any(isinstance(r, Note) and r.event == SPACE_OFF for r in history.trace)


def _quiet_when_gone(history: History) -> Iterable[Violation]:
    fired = {fault.kind for fault in history.fired}
    quietable = fired <= QUIETABLE
    absent = _absences(history.moments)
    probing = [(m.began, m.ended) for m in history.moments if m.does in PROBING]
    for record in history.trace if absent else ():
        if not _within(record.at, absent) or _within(record.at, probing):
            continue
        if isinstance(record, Access):
            words = f"the driver touches the device after it was unbound: {record.words()}"
            place = f"mmio:{record.bar}+{record.offset:#x}"
            yield Violation("quiet-when-gone", words, place, at=record.at)
            return
        # It may try, where its driver could not quiet it; to be blocked is all that can be asked.
        blocked = isinstance(record, Note) and record.event == "dma blocked" and quietable
        if (blocked or isinstance(record, DmaAccess)) and not fired & LATE_DMA:
            words = f"the device still uses memory after it was unbound: {record.words()}"
            yield Violation("quiet-when-gone", words, "dma", at=record.at)
            return


def _own_memory(history: History) -> Iterable[Violation]:
    fired = {fault.kind for fault in history.fired}
    if history.stray and not fired & LATE_DMA:
        words = f"a device used {history.stray[0]}"
        yield Violation("own-memory", words, _without_numbers(history.stray[0]), history.stray[1:])


def _quiesced(history: History) -> Iterable[Violation]:
    if {fault.kind for fault in history.fired} - QUIETABLE:
        return
    probing = [(m.began, m.ended) for m in history.moments if m.does in PROBING]
    for one in history.unrest:
        if not _within(one.at, probing):
            words = f"{one.device}, after its driver let go of it: {one.words}"
            yield Violation("quiesced", words, one.words, at=one.at)
            return


def _acknowledges(history: History) -> Iterable[Violation]:
    if history.unanswered and not history.fired:
        words = f"an interrupt was never acknowledged: {history.unanswered[0]}"
        yield Violation("acknowledges", words, _without_numbers(history.unanswered[0]))


def _works_when_calm(history: History) -> Iterable[Violation]:
    """Where no fault fired, devices are as quick as ever and the driver stayed with them."""
    away = any(m.does in PARTINGS for m in history.moments if m.phase == "plan")
    if history.fired or away or not history.prompt:
        return
    for moment in history.moments:
        if moment.phase not in ("plan", "serve") or moment.outcome is not Outcome.ERROR:
            continue
        expected = moment.does in history.serving and moment.errno not in NOT_NOW
        if expected or moment.errno in ("EIO", "ETIMEDOUT"):
            words = f"{moment.does} fails although nothing is wrong: {moment.errno}"
            place = f"{moment.does}:{moment.errno}"
            yield Violation("works-when-calm", words, place, at=moment.began)
            return


def _prompt(history: History) -> Iterable[Violation]:
    """Where no fault fired and devices are quick, no call goes on only when a timer has ended."""
    if history.fired or not history.prompt:
        return
    for moment in history.moments:
        if moment.phase not in ("plan", "serve") or moment.does in PARTINGS:
            continue
        for entry in moment.entries:
            if entry.ended - entry.began < IDLE or _accompanied(moment, history.moments):
                continue
            if waited := _idly(history.trace, entry):
                words = (
                    f"{moment.does}: {entry.what} waits for {waited // MILLISECOND} ms although "
                    "the device has answered: a timer ends its wait, and nothing else does"
                )
                yield Violation("prompt", words, moment.does, at=entry.ended)
                return


def _idly(trace: Iterable[Record], entry: Entry) -> int:
    """How long a call waited, at the last, for nothing that came from a device; 0 if it did not.

    Until its device has done anything for it a call has reason to wait.
    """
    during = [record for record in trace if entry.began <= record.at <= entry.ended]
    times = [*(record.at for record in during), entry.ended]
    waits = [place for place in range(len(during)) if times[place + 1] - times[place] >= IDLE]
    if not waits:
        return 0
    last = waits[-1]
    answered = any(isinstance(record, BY_DEVICE) for record in during[: last + 1])
    woken = last + 1 < len(during) and isinstance(during[last + 1], BY_DEVICE)
    return times[last + 1] - times[last] if answered and not woken else 0


def _accompanied(moment: Moment, moments: Iterable[Moment]) -> bool:
    """Whether anything else was under way, which may have been what it waited for."""
    return any(
        one is not moment and one.began < moment.ended and moment.began < one.ended
        for one in moments
    )


def _within(at: int, spans: Iterable[tuple[int, int]]) -> bool:
    return any(begin <= at <= end for begin, end in spans)


def _absences(moments: Iterable[Moment]) -> list[tuple[int, int]]:
    """When the driver had no business with its device: between an unbinding and the next probe."""
    spans: list[tuple[int, int]] = []
    gone: int | None = None
    for moment in sorted(moments, key=lambda each: each.ended):
        if moment.does == "unbind" and moment.value is not None:
            gone = moment.ended
        elif moment.does in PROBING and gone is not None:
            # A probe that failed has touched the device, too; what comes after it must not.
            spans.append((gone, moment.began))
            gone = moment.ended if moment.outcome is Outcome.ERROR else None
    return [*spans, (gone, FOREVER)] if gone is not None else spans


def _stuck_at(history: History, moment: Moment) -> str:
    """Where a call waits: the function that waits, whoever called it, or the register the driver
    touched last, or the call.
    """
    if moment.words.startswith("in "):
        return moment.words.partition(", from ")[0]
    touched = [
        f"{record.device}:{record.register or record.offset}"
        for record in history.trace
        if isinstance(record, Access) and moment.began <= record.at <= moment.ended
    ]
    return touched[-1] if touched else moment.does


def _without_numbers(text: str) -> str:
    """A text as the same bug gives it again: without numbers, which change."""
    return re.sub(r"0x[0-9a-f]+|\d+(\.\d+)?", "#", text)


PROPERTIES = (
    Property("no-report", "the kernel reports nothing: no WARN, oops, KASAN, lockdep", _no_reports),
    Property(
        "legal-access", "every access to the device is one its document allows", _legal_access
    ),
    Property("lives", "the machine and its processes live to the end", _lives),
    Property("lives", "no call is ended by the kernel", _survives),
    Property("returns", "every call returns within a bound of virtual time", _returns),
    Property("right-answer", "an answer is right, or an error, unless a fault deceived", _right),
    Property("callers-memory", "of a caller's memory what was agreed on is used", _agreed),
    Property("quiet-when-gone", "no access and no DMA while unbound", _quiet_when_gone),
    Property("quiesced", "a driver quiets its device before it lets go of it", _quiesced),
    Property("acknowledges", "interrupts are acknowledged", _acknowledges),
    Property("own-memory", "devices use only memory that is mapped for them", _own_memory),
    Property(
        "works-when-calm",
        "no error of the device, or of what must succeed, while nothing is wrong",
        _works_when_calm,
    ),
    Property("prompt", "a call goes on when its device has answered", _prompt),
    Property("serves-again", "once faults stop, the device binds and serves", _serves),
    Property("no-trace", "unloading leaves nothing behind", _no_traces),
    Property("no-trace", "an unused driver can be unloaded", _unloads),
)
