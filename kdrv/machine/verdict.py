"""Verdicts: how a test or a boot ended, in one word, one sentence and a fingerprint.

Pure data: it judges what a world and a test saw, and knows neither. The cause is what came first
and can explain the rest: a KASAN report before the oops it foretold, an oops before the silence.
"""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from kdrv.machine.contract import MachineEnded
from kdrv.machine.reports import Backtrace, Kind, Report


class End(StrEnum):
    """Endings that no report explains, the gravest first."""

    EMULATOR_DEATH = "emulator-death"
    POWER_OFF = "guest-power-off"
    EARLY_HANG = "silent-early-hang"
    BOOT_HANG = "boot-hang"
    AGENT_SILENCE = "agent-silence"
    FAILED = "failed"
    PASSED = "passed"


Outcome = Kind | End

_MINOR = frozenset({Kind.WARN, Kind.ALLOC_FAILURE, Kind.LEAK, Kind.UBSAN, Kind.KCSAN, Kind.DMA})
"""Kinds a kernel survives and that rarely explain what kills it afterwards."""

ORDER: tuple[Outcome, ...] = (
    *(kind for kind in Kind if kind not in _MINOR),
    *(End.EMULATOR_DEATH, End.POWER_OFF, End.EARLY_HANG, End.BOOT_HANG, End.AGENT_SILENCE),
    *(kind for kind in Kind if kind in _MINOR),
    *(End.FAILED, End.PASSED),
)
"""All outcomes, the gravest first."""


def severity(outcome: Outcome) -> int:
    """Greater is graver; 0 is passed."""
    return len(ORDER) - 1 - ORDER.index(outcome)


@dataclass(frozen=True)
class Observed:
    """What the host saw, besides the console's reports, when a test or a boot ended.

    ``ended`` is how the machine stopped, None while it runs; ``expected_end`` says that it was
    meant to (the test powers off). ``printed`` is whether the kernel said anything at all,
    ``agent_ready`` whether the agent ever answered. ``silent_for`` is how many seconds nothing
    was heard where an answer was due, 0 when there was none outstanding. ``doing`` names what was
    under way, such as "insmod edu.ko". ``stuck`` is where the silent guest is, if it could be asked
    (:func:`kdrv.machine.reports.stuck`). ``last_line`` is the last thing the console said.
    ``failure`` is the test's failed assertion in a line, empty when it held.
    """

    ended: MachineEnded | None = None
    expected_end: bool = False
    printed: bool = True
    agent_ready: bool = True
    silent_for: float = 0.0
    doing: str = ""
    stuck: Backtrace | None = None
    last_line: str = ""
    failure: str = ""


@dataclass(frozen=True)
class Verdict:
    """How it ended: ``sentence`` for a person, ``outcome`` and ``fingerprint`` for a program.

    ``cause`` is the report that the verdict rests on, if it rests on one; ``others`` are all
    further reports, in the order they came.
    """

    outcome: Outcome
    sentence: str
    fingerprint: str = ""
    cause: Report | None = None
    others: tuple[Report, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return self.outcome is End.PASSED

    @property
    def severity(self) -> int:
        """Greater is graver; 0 is passed."""
        return severity(self.outcome)


def verdict_of(reports: Sequence[Report], observed: Observed = Observed()) -> Verdict:
    """The verdict on a test or a boot.

    ``reports`` come from :func:`kdrv.machine.reports.judge`, in order. The first grave one is the
    cause; a minor one (a warning, a leak) only when the machine did not come to grief by itself.
    """
    grave = [report for report in reports if report.kind not in _MINOR]
    end, sentence = _ending(observed)
    if grave or (reports and severity(end) < severity(reports[0].kind)):
        cause = (grave or list(reports))[0]
        return Verdict(
            cause.kind,
            _with_aftermath(describe(cause), cause, reports, end, sentence),
            cause.fingerprint,
            cause,
            tuple(report for report in reports if report is not cause),
        )
    return Verdict(end, sentence, _fingerprint(end, observed), None, tuple(reports))


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """The gravest of some verdicts, the first among equals; passed when there are none."""
    return max(verdicts, key=lambda each: each.severity, default=verdict_of(()))


_WORDS: dict[Kind, str] = {
    Kind.RUST_PANIC: "panicked in Rust: '{title}'",
    Kind.KASAN: "accessed memory it must not: {title}",
    Kind.KFENCE: "accessed memory it must not: {title}",
    Kind.KMSAN: "used memory it never wrote: {title}",
    Kind.STACK: "overwrote its stack: {title}",
    Kind.OOPS: "crashed: {title}",
    Kind.BUG: "hit a BUG: {title}",
    Kind.PANIC: "stopped the machine with a panic: {title}",
    Kind.SLAB: "corrupted the memory of others: {title}",
    Kind.LIST: "corrupted a linked list: {title}",
    Kind.REFCOUNT: "got a reference count wrong: {title}",
    Kind.OBJECTS: "freed or started an object in the wrong state: {title}",
    Kind.HARD_LOCKUP: "kept a processor with interrupts off: {title}",
    Kind.SOFT_LOCKUP: "kept a processor to itself: {title}",
    Kind.RCU_STALL: "kept a processor from RCU for too long: {title}",
    Kind.WORKQUEUE_LOCKUP: "kept a work queue from going on: {title}",
    Kind.HUNG_TASK: "waits for something that does not come: {title}",
    Kind.LOCKDEP: "takes locks in a way that can deadlock or corrupt: {title}",
    Kind.ATOMIC_SLEEP: "sleeps where it must not: {title}",
    Kind.KCSAN: "races on data: {title}",
    Kind.UBSAN: "does what C leaves undefined: {title}",
    Kind.DMA: "misuses the DMA interface: {title}",
    Kind.IRQ: "left an interrupt unhandled: {title}",
    Kind.OUT_OF_MEMORY: "used up all memory: {title}",
    Kind.LEAK: "lost memory: {title}",
    Kind.WARN: "made the kernel warn: {title}",
    Kind.ALLOC_FAILURE: "asked for memory that there was not: {title}",
}
_IMPERSONAL: dict[Kind, str] = {
    Kind.INIT_DIED: "the first process in the guest died, which stops any kernel: {title}",
    Kind.NO_INIT: "the kernel found nothing to run in its initramfs: {title}",
    Kind.MODULE: "the kernel refused the module: {title}",
    Kind.LEAK: "memory was lost: {title}",
}

_AT_THE_FAULT = frozenset({Kind.RUST_PANIC, Kind.BUG, Kind.WARN, Kind.UBSAN})
"""Kinds whose file and line is where the fault is, not where a detector found it."""


def describe(report: Report) -> str:
    """One sentence for a person: who did what, and where."""
    culprit = report.culprit
    if report.kind in _IMPERSONAL and not (culprit and culprit.own):
        return _IMPERSONAL[report.kind].format(title=report.title)
    who = f"the driver {culprit.module}" if culprit and culprit.own else "the kernel"
    what = _WORDS.get(report.kind, "{title}").replace("{title}", report.title)
    if report.kind in _IMPERSONAL and report.kind not in _WORDS:
        return _IMPERSONAL[report.kind].format(title=report.title)
    told = report.where and report.kind in _AT_THE_FAULT and report.where not in report.title
    place = [f"at {report.where}"] if told else []
    if culprit and culprit.name not in report.title:
        place.append(f"({culprit.name})" if place else f"in {culprit.name}")
    return " ".join((f"{who} {what}", *place))


def _with_aftermath(
    text: str, cause: Report, reports: Sequence[Report], end: End, sentence: str
) -> str:
    """What the cause led to, so far as it changes what a person does next."""
    later = [each for each in reports if each is not cause]
    if any(each.kind is Kind.PANIC for each in later):
        text += "; the kernel panicked after it"
    if end in (End.BOOT_HANG, End.AGENT_SILENCE, End.EMULATOR_DEATH, End.FAILED):
        text += f"; then {sentence}"
    return text


def _ending(seen: Observed) -> tuple[End, str]:
    """How it ended as far as the host can tell without the console's reports."""
    during = f" during {seen.doing}" if seen.doing else ""
    last = f"; the last line was '{seen.last_line}'" if seen.last_line else ""
    if seen.stuck:
        last = f"; {seen.stuck}"
    if seen.ended and seen.ended.status != 0:
        return End.EMULATOR_DEATH, f"the emulator {_death(seen.ended)}{during}"
    if seen.ended and not seen.expected_end:
        return End.POWER_OFF, f"the guest switched itself off{during}: {seen.ended.reason}"
    if seen.silent_for > 0:
        waited = f"for {seen.silent_for:.0f} s"
        if not seen.printed:
            return (
                End.EARLY_HANG,
                f"the kernel printed nothing {waited}: it died or hangs before its console",
            )
        if not seen.agent_ready:
            return (
                End.BOOT_HANG,
                f"the kernel began to boot but did not reach the guest agent {waited}{last}",
            )
        return End.AGENT_SILENCE, f"the guest did not answer {waited}{during}{last}"
    if seen.failure:
        return End.FAILED, f"the test failed: {seen.failure}"
    return End.PASSED, "passed"


def _death(ended: MachineEnded) -> str:
    if ended.status >= 0:
        return f"ended with status {ended.status} ({ended.reason})"
    try:
        name = signal.Signals(-ended.status).name
    except ValueError:
        name = f"signal {-ended.status}"
    return f"was killed by {name} ({ended.reason})"


def _fingerprint(end: End, seen: Observed) -> str:
    if end is End.PASSED:
        return ""
    status = str(seen.ended.status) if end is End.EMULATOR_DEATH and seen.ended else ""
    place = seen.stuck.fingerprint if seen.stuck else ""
    digest = hashlib.sha256(f"{status}|{seen.doing}|{place}".encode()).hexdigest()
    return f"{end}-{digest[:10]}"
