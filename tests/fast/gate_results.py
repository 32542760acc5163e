"""Judged series made by hand, for the tests of the gate's views."""

from __future__ import annotations

from dataclasses import replace

from kdrv.build.diagnostics import Diagnostic, Level
from kdrv.build.result import ToolchainRecord
from kdrv.gate.result import (
    Blast,
    Break,
    Changed,
    Check,
    GateResult,
    Outcome,
    PatchResult,
    SymbolChange,
    Use,
)
from kdrv.gate.series import Change, Patch, Series, Status

BASE = "b" * 40
NAMES = (
    "applies",
    "build c",
    "build rust",
    "warnings",
    "config",
    "rustfmt",
    "clippy",
    "rustdoc",
    "SAFETY",
    "kernel-doc",
    "sparse",
    "checkpatch",
    "trailers",
    "scope",
)
AGAIN = "kdrv gate b..t --patch {} --only '{}'"
EVIL = "<b>\x1b[31m\x1b]0;owned\x07\u202e::error::x ##[error]x %0A & \"'\x00\x9b1m\ud800</b>"

E0308 = Diagnostic(
    "rustc",
    Level.ERROR,
    "mismatched types",
    "rust/kernel/pci.rs",
    112,
    31,
    "E0308",
    "rust",
    "112 |     pci_enable(dev)\n    |     ^^^ expected `u32`, found `i32`",
)
UNUSED = Diagnostic(
    "gcc",
    Level.WARNING,
    "unused variable 'i'",
    "drivers/pci/pci.c",
    40,
    6,
    "-Wunused-variable",
    "c",
)
LONG_LINE = Diagnostic(
    "checkpatch", Level.WARNING, "line length of 112 exceeds 100 columns", "drivers/pci/pci.c", 44
)
MODPOST = Diagnostic(
    "modpost", Level.ERROR, "pci_set_power_state undefined", "", 0, 0, "", "rust", ""
)


def patch(number: int, subject: str = "", message_id: str = "") -> Patch:
    digit = f"{number:x}"[-1]
    return Patch(
        number,
        digit * 40,
        BASE,
        "e" * 40,
        subject or f"PCI: patch number {number}",
        "A Writer <writer@example.org>",
        f"{subject}\n\nIt is better so.\n",
        (Change("drivers/pci/pci.c", Status.MODIFIED, 3, 1),),
        message_id,
    )


def checks(number: int, *bad: Check, names: tuple[str, ...] = NAMES) -> tuple[Check, ...]:
    """All checks green, but for some."""
    instead = {check.name: check for check in bad}
    return tuple(
        instead.get(name)
        or Check(name, Outcome.PASS, reproducer=AGAIN.format(number, name), seconds=1.5)
        for name in names
    )


def bad(
    number: int, name: str, outcome: Outcome, summary: str, *diagnostics: Diagnostic, **more: str
) -> Check:
    return Check(name, outcome, summary, diagnostics, reproducer=AGAIN.format(number, name), **more)


def judged(
    *patches: PatchResult, series: tuple[Check, ...] = (), breaks: tuple[Break, ...] = ()
) -> GateResult:
    return GateResult(
        Series("main..topic", BASE, "f" * 40, tuple(p.patch for p in patches)),
        patches,
        series,
        breaks,
        "default",
        "7.3.4",
        ToolchainRecord("debian", "id", {"clang": "19.1.7", "rustc": "1.85.1"}),
        200.4,
        "kdrv gate main..topic --base-config tiny",
    )


USES = (
    Use("rust/kernel/pci.rs", 112, "bindings::pci_enable(dev)"),
    Use("rust/kernel/pci.rs", 140, "bindings::pci_enable(dev)"),
    Use("rust/kernel/pci/id.rs", 9, "pci_enable"),
    Use("drivers/gpu/nova-core/driver.rs", 77, "pci_enable"),
)
PCI_ENABLE = SymbolChange(
    "pci_enable",
    "fn",
    Changed.CHANGED,
    "pub fn pci_enable(dev: *mut pci_dev) -> ffi::c_int;",
    "pub fn pci_enable(dev: *mut pci_dev, flags: ffi::c_uint) -> ffi::c_int;",
    USES,
)
PCI_DEV = SymbolChange(
    "pci_dev",
    "struct",
    Changed.CHANGED,
    "pub struct pci_dev {\n    pub bus: *mut pci_bus,\n    pub vendor: u16,\n}",
    "pub struct pci_dev {\n    pub bus: *mut pci_bus,\n    pub vendor: u32,\n    pub more: u8,\n}",
)
HELPER = SymbolChange("rust_helper_pci_name", "helper", Changed.GONE, "const char *f(void);")


def bisect_hole() -> GateResult:
    """Patch 2 breaks the Rust lane, patch 3 mends it."""
    broken = bad(2, "build rust", Outcome.FAIL, "1 new error", E0308)
    style = bad(2, "checkpatch", Outcome.WARN, "1 new warning", LONG_LINE)
    churn = bad(
        0,
        "churn",
        Outcome.WARN,
        "90 lines of C core changed, 80 are the budget",
        policy="churn.core = 80 (kdrv.toml:12)",
    )
    return judged(
        PatchResult(patch(1, "PCI: tidy up pci_enable()", "<p1@example.org>"), checks(1)),
        PatchResult(
            patch(2, "PCI: give pci_enable() flags", "p2@example.org"),
            checks(2, broken, style),
            Blast((PCI_ENABLE, PCI_DEV, HELPER)),
        ),
        PatchResult(patch(3, "rust: pci: pass flags", "p3@example.org"), checks(3)),
        series=(Check("boot rust", Outcome.PASS, "31 tests pass"), churn),
        breaks=(
            Break(
                "rust", 2, 3, (PCI_ENABLE,), ("Danilo K <dk@example.org>", "R L <l@example.org>")
            ),
        ),
    )


def green(number: int = 2) -> GateResult:
    result = judged(
        *(PatchResult(patch(n), checks(n)) for n in range(1, number + 1)),
        series=(Check("boot c", Outcome.PASS), Check("boot rust", Outcome.PASS)),
    )
    first = result.patches[0]
    again = replace(first, checks=tuple(replace(c, reused=True) for c in first.checks))
    return replace(result, patches=(again, *result.patches[1:]))


def conflict() -> GateResult:
    hunk = "drivers/pci/pci.c: hunk 2 at line 40\n-\tint i;\n+\tunsigned int i;"
    failed = bad(2, "applies", Outcome.FAIL, "does not apply to drivers/pci/pci.c")
    return judged(
        PatchResult(patch(1), checks(1)),
        PatchResult(patch(2), (replace(failed, detail=(hunk,)),)),
    )


def unknown() -> GateResult:
    lost = bad(1, "build rust", Outcome.UNKNOWN, "the sandbox ran out of disk")
    return judged(PatchResult(patch(1), checks(1, lost)))


def empty() -> GateResult:
    return judged()


def forty() -> GateResult:
    """Two of forty fail, and every subject is longer than a line."""
    subject = "drm/nova: take the lock of the channel before its ring is looked at, not after " * 2
    worse = {
        17: bad(17, "build c", Outcome.FAIL, "12 new errors", *many(12, "c")),
        31: bad(31, "clippy", Outcome.FAIL, "90 new warnings", *many(90, "rust")),
    }
    return judged(
        *(
            PatchResult(patch(n, f"{n} {subject}"), checks(n, *filter(None, [worse.get(n)])))
            for n in range(1, 41)
        )
    )


def many(number: int, lane: str) -> tuple[Diagnostic, ...]:
    return tuple(
        Diagnostic("tool", Level.ERROR, f"error {n}", f"drivers/d{n % 3}.c", n, lane=lane)
        for n in range(1, number + 1)
    )


def hostile() -> GateResult:
    """Everything that a patch can decide is evil, with ends of lines where a line is expected."""
    evil = f"{EVIL}\n::error::injected"
    diagnostic = Diagnostic(evil, Level.ERROR, evil, evil, 1, 1, evil, evil, evil)
    symbol = SymbolChange(evil, evil, Changed.CHANGED, evil, evil, (Use(evil, 1, evil),))
    check = Check("build rust", Outcome.FAIL, evil, (diagnostic,), (evil,), evil, evil)
    result = judged(
        PatchResult(
            replace(
                patch(1, evil, f"<{evil}>"),
                author=evil,
                message=evil,
                changes=(Change(evil, Status.ADDED),),
            ),
            (check,),
            Blast((symbol,)),
        ),
        series=(replace(check, name=evil),),
        breaks=(Break("rust", 1, None, (symbol,), (evil,)),),
    )
    return replace(result, policy=evil, reproducer=evil)
