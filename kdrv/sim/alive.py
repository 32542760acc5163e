"""Which detectors of a checked kernel are really alive, found out while it runs.

A detector that is configured may have died silently: KASAN when the allocator was the wrong one,
lockdep and the DMA checks at their first report or when they ran out of memory. So nothing is
believed here that was not seen: :func:`standing` asks a running kernel without harming it,
:func:`provoke` does the wrong thing and waits for the report, in a machine of its own.

The wrong things are done by two modules, :func:`write_modules`; who calls has them built for the
kernel, the C one with ``KCOV_INSTRUMENT=y``, and puts them into the guest. kmemleak finds next to
nothing unless the kernel's command line has ``slab_debug=F``: pointers in freed objects count for
references otherwise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from pathlib import Path

from kdrv.core.errors import KdrvError
from kdrv.guest.errors import GuestCallDied, GuestGone
from kdrv.guest.session import Guest
from kdrv.machine.console import Console
from kdrv.sim import allocfail
from kdrv.sim.kcov import KCOV, Recorder

C_MODULE, RUST_MODULE = "kdrv_selftest", "kdrv_selftest_rust"
KMEMLEAK = "/sys/kernel/debug/kmemleak"
LEAK_SECONDS = 6.0
"""kmemleak takes nothing younger than five seconds for lost (``mm/kmemleak.c``: MSECS_MIN_AGE)."""


class Detector(StrEnum):
    """What a checked kernel can find."""

    KASAN = "KASAN"
    UBSAN = "UBSAN"
    LOCKDEP = "lockdep"
    ATOMIC_SLEEP = "sleep in atomic context"
    KMEMLEAK = "kmemleak"
    DMA_DEBUG = "DMA debugging"
    DEBUG_OBJECTS = "debug objects"
    FAULT_INJECTION = "fault injection"
    KCOV = "KCOV"
    RUST_ASSERTIONS = "Rust debug assertions"


@dataclass(frozen=True)
class Sign:
    """Whether a detector is alive, and the line that shows it."""

    detector: Detector
    alive: bool
    evidence: str

    def __str__(self) -> str:
        return f"{self.detector}: {'alive' if self.alive else 'DEAD'} ({self.evidence})"


@dataclass(frozen=True)
class Modules:
    """Where the two modules are in the guest."""

    c: str
    rust: str


def write_modules(place: Path) -> None:
    """Write the modules' sources and makefile into the empty directory ``place``."""
    sources = resources.files("kdrv.sim")
    for module, source in ((C_MODULE, "selftest.c"), (RUST_MODULE, "selftest.rs")):
        text = sources.joinpath(source).read_text()
        (place / f"{module}{Path(source).suffix}").write_text(text)
    rust = f"ifdef CONFIG_RUST\nobj-m += {RUST_MODULE}.o\nendif\n"
    (place / "Kbuild").write_text(f"obj-m := {C_MODULE}.o\n{rust}")


# --- without harm


def standing(guest: Guest) -> tuple[Sign, ...]:
    """The detectors that tell of themselves, in any guest at any time.

    To be asked at the end of a run too: lockdep and DMA debugging turn themselves off.
    """
    return (
        _in_file(guest, Detector.LOCKDEP, "/proc/lockdep_stats", "debug_locks:", "1"),
        _in_file(guest, Detector.DMA_DEBUG, "/sys/kernel/debug/dma-api/disabled", "", "N"),
        _kmemleak(guest),
        _in_log(guest, Detector.KASAN, "KernelAddressSanitizer initialized"),
    )


def _in_file(guest: Guest, detector: Detector, path: str, name: str, good: str) -> Sign:
    """The line that begins with ``name`` must end with ``good``."""
    try:
        lines = guest.read_text(path).splitlines()
    except FileNotFoundError:
        return Sign(detector, False, f"there is no {path}")
    line = next((line.strip() for line in lines if line.strip().startswith(name)), "nothing")
    return Sign(detector, line.split()[-1] == good, f"{path} says {' '.join(line.split())}")


def _in_log(guest: Guest, detector: Detector, words: str) -> Sign:
    line = next((line for line in guest.dmesg() if words in line), "")
    return Sign(detector, bool(line), line.strip() or f"the log does not say {words!r}")


def _kmemleak(guest: Guest) -> Sign:
    try:
        guest.write_text(KMEMLEAK, "scan")
    except OSError as error:
        return Sign(Detector.KMEMLEAK, False, f"{KMEMLEAK}: {error.strerror}")
    return Sign(Detector.KMEMLEAK, True, f"{KMEMLEAK} took the word 'scan'")


# --- by doing wrong


@dataclass(frozen=True)
class _Report:
    """The parameter that makes the C module do wrong, and what a report of it says."""

    how: str
    words: str


_REPORTS = {
    Detector.KASAN: _Report("kasan", "BUG: KASAN: slab-out-of-bounds"),
    Detector.UBSAN: _Report("ubsan", "UBSAN: shift-out-of-bounds"),
    Detector.LOCKDEP: _Report("lockdep", "possible circular locking dependency"),
    Detector.ATOMIC_SLEEP: _Report("atomic", "sleeping function called from invalid context"),
    Detector.DMA_DEBUG: _Report("dma", "DMA memory it has not allocated"),
    Detector.DEBUG_OBJECTS: _Report("objects", "ODEBUG: free active"),
}


def provoke(detector: Detector, guest: Guest, console: Console, modules: Modules) -> Sign:
    """Do what ``detector`` must report; ``guest`` is of no further use.

    Raises what the guest's calls raise when the machine does not survive it.
    """
    if detector in _REPORTS:
        return _reported(detector, guest, console, modules)
    return _OTHERS[detector](guest, console, modules)


def _reported(detector: Detector, guest: Guest, console: Console, modules: Modules) -> Sign:
    report = _REPORTS[detector]
    guest.load(modules.c, f"how={report.how}")
    return _said(detector, console, report.words)


def _said(detector: Detector, console: Console, words: str) -> Sign:
    line = next((line for line in console.since() if words in line), "")
    return Sign(detector, bool(line), line.strip() or f"no report with {words!r}")


def _leaked(guest: Guest, console: Console, modules: Modules) -> Sign:
    """Lose some objects, and have them found; what was lost before does not count."""
    if not (scan := _kmemleak(guest)).alive:
        return scan
    guest.write_text(KMEMLEAK, "clear")
    guest.load(modules.c, "how=leak")
    # What had a changed checksum at the first scan is judged at the second.
    for _ in range(2):
        guest.sleep(LEAK_SECONDS)
        guest.write_text(KMEMLEAK, "scan")
    lines = guest.read_text(KMEMLEAK).splitlines()
    found = [line for line in lines if line.startswith("unreferenced object")]
    evidence = f"{len(found)} objects lost, the first: {found[0]}" if found else "nothing was found"
    return Sign(Detector.KMEMLEAK, bool(found), evidence)


def _failed(guest: Guest, console: Console, modules: Modules) -> Sign:
    detector = Detector.FAULT_INJECTION
    try:
        allocfail.prepare(guest)
        allocfail.failing(guest, 1).mkdir("/tmp/kdrv-selftest").result()
    except KdrvError as error:
        return Sign(detector, False, error.message)
    except OSError as error:
        return Sign(detector, True, f"mkdir(2): {error.strerror}")
    return Sign(detector, False, "mkdir(2) went well")


def _covered(guest: Guest, console: Console, modules: Modules) -> Sign:
    """Load the C module, which is instrumented, under KCOV.

    Not by its ``__init`` code alone: clang leaves that without instrumentation.
    """
    recorder = Recorder(guest)
    if not recorder.start():
        return Sign(Detector.KCOV, False, f"there is no {KCOV}")
    guest.load(modules.c, "how=nothing")
    recorder.stop()
    places = recorder.places
    if not places:
        return Sign(Detector.KCOV, False, "loading an instrumented module covered nothing")
    return Sign(Detector.KCOV, True, f"{len(places)} places covered, one at {min(places):#x}")


def _asserted(guest: Guest, console: Console, modules: Modules) -> Sign:
    # User Mode Linux does not survive a BUG() in a system call, which a Rust panic ends in.
    with contextlib.suppress(GuestCallDied, GuestGone):
        guest.load(modules.rust)
    return _said(Detector.RUST_ASSERTIONS, console, "debug assertions are checked")


_OTHERS: dict[Detector, Callable[[Guest, Console, Modules], Sign]] = {
    Detector.KMEMLEAK: _leaked,
    Detector.FAULT_INJECTION: _failed,
    Detector.KCOV: _covered,
    Detector.RUST_ASSERTIONS: _asserted,
}
