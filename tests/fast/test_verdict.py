"""Verdicts: which of several troubles is the cause, and how it is said."""

import json
from pathlib import Path

import pytest

from kdrv.machine.contract import MachineEnded
from kdrv.machine.reports import Kind, Report, backtraces, judge, parse, stuck
from kdrv.machine.reports.frames import culprits, frame, stable_name, stack_entry
from kdrv.machine.reports.kmemleak import parse_kmemleak
from kdrv.machine.verdict import ORDER, End, Observed, describe, severity, verdict_of, worst

CONSOLES = Path(__file__).parent / "recordings" / "console"
OFF = MachineEnded("power-off", 0)


def reports(name):
    return judge((CONSOLES / f"{name}.log").read_text().splitlines())


def made(kind, title="it broke", *frames):
    return Report(kind, title, frames, fingerprint=f"{kind}-{title}")


def test_nothing_wrong_is_passed():
    verdict = verdict_of(())
    assert verdict.passed
    assert verdict.outcome is End.PASSED
    assert verdict.severity == 0


@pytest.mark.parametrize(
    ("observed", "outcome", "sentence"),
    [
        (Observed(failure="1 == 2"), End.FAILED, "the test failed: 1 == 2"),
        (
            Observed(silent_for=20, printed=False, agent_ready=False),
            End.EARLY_HANG,
            "the kernel printed nothing for 20 s: it died or hangs before its console",
        ),
        (
            Observed(silent_for=20, agent_ready=False, last_line="PCI: CLS 0 bytes"),
            End.BOOT_HANG,
            "the kernel began to boot but did not reach the guest agent for 20 s; "
            "the last line was 'PCI: CLS 0 bytes'",
        ),
        (
            Observed(silent_for=9.6, doing="insmod edu.ko"),
            End.AGENT_SILENCE,
            "the guest did not answer for 10 s during insmod edu.ko",
        ),
        (
            Observed(ended=MachineEnded("killed", -11), doing="read of /dev/edu0"),
            End.EMULATOR_DEATH,
            "the emulator was killed by SIGSEGV (killed) during read of /dev/edu0",
        ),
        (
            Observed(ended=MachineEnded("bad device", 1)),
            End.EMULATOR_DEATH,
            "the emulator ended with status 1 (bad device)",
        ),
        (
            Observed(ended=OFF, doing="rmmod edu"),
            End.POWER_OFF,
            "the guest switched itself off during rmmod edu: power-off",
        ),
    ],
)
def test_endings_without_a_report(observed, outcome, sentence):
    verdict = verdict_of((), observed)
    assert verdict.outcome is outcome
    assert verdict.sentence == sentence
    assert verdict.fingerprint.startswith(f"{outcome}-")
    assert not verdict.passed


def test_an_unknown_signal_is_named_by_its_number():
    verdict = verdict_of((), Observed(ended=MachineEnded("killed", -250)))
    assert "signal 250" in verdict.sentence


def test_a_power_off_that_the_test_wanted_is_no_fault():
    assert verdict_of((), Observed(ended=OFF, expected_end=True)).passed


def test_silences_differ_by_what_was_under_way():
    names = {
        verdict_of((), Observed(silent_for=5, doing=doing)).fingerprint for doing in ("a", "b", "")
    }
    assert len(names) == 3


def test_the_first_grave_report_is_the_cause_and_the_rest_stays_listed():
    kasan, oops, panic = made(Kind.KASAN), made(Kind.OOPS), made(Kind.PANIC)
    verdict = verdict_of((kasan, oops, panic))
    assert verdict.cause is kasan
    assert verdict.others == (oops, panic)
    assert verdict.sentence.endswith("; the kernel panicked after it")


def test_a_warning_does_not_hide_the_crash_after_it():
    warn, oops = made(Kind.WARN), made(Kind.RUST_PANIC)
    assert verdict_of((warn, oops)).cause is oops
    assert verdict_of((warn,)).outcome is Kind.WARN


def test_lockdep_explains_the_hang_after_it():
    assert verdict_of((made(Kind.LOCKDEP), made(Kind.HUNG_TASK))).outcome is Kind.LOCKDEP


def test_a_grave_report_explains_the_silence_and_the_power_off():
    silent = verdict_of((made(Kind.OOPS),), Observed(silent_for=5, doing="insmod"))
    assert silent.outcome is Kind.OOPS
    assert "then the guest did not answer" in silent.sentence
    assert verdict_of((made(Kind.PANIC),), Observed(ended=OFF)).outcome is Kind.PANIC


def test_a_warning_does_not_explain_the_silence():
    verdict = verdict_of((made(Kind.WARN),), Observed(silent_for=5))
    assert verdict.outcome is End.AGENT_SILENCE
    assert len(verdict.others) == 1


def test_a_warning_outranks_a_failed_assertion_and_tells_of_it():
    verdict = verdict_of((made(Kind.WARN),), Observed(failure="1 == 2"))
    assert verdict.outcome is Kind.WARN
    assert verdict.sentence.endswith("; then the test failed: 1 == 2")


def test_the_order_of_outcomes_is_whole():
    assert set(ORDER) == {*Kind, *End}
    assert len(ORDER) == len(Kind) + len(End)
    assert severity(End.PASSED) == 0
    assert severity(Kind.KASAN) > severity(End.AGENT_SILENCE) > severity(Kind.WARN)
    assert severity(Kind.WARN) > severity(End.FAILED)


def test_the_worst_of_some():
    passed, failed = verdict_of(()), verdict_of((), Observed(failure="x"))
    assert worst([passed, failed, passed]) is failed
    assert worst([]).passed


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "x86_64-plain-rust1",
            "the driver rboom panicked in Rust: 'index out of bounds: the len is 1 but the index"
            " is 5' at rboom.rs:25 (<rboom::Ring<u32>>::at)",
        ),
        (
            "x86_64-plain-null",
            "the driver boom crashed: kernel NULL pointer dereference, address: "
            "0000000000000008 in boom_null",
        ),
        (
            "x86_64-plain-warn",
            "the driver boom made the kernel warn: boom: state 42 is wrong at boom.c:37"
            " (boom_warn)",
        ),
        (
            "x86_64-debug-rust6",
            "the driver rboom sleeps where it must not: sleeping function called from invalid"
            " context in rboom::nested",
        ),
        (
            "x86_64-plain-initdies",
            "the first process in the guest died, which stops any kernel: "
            "Attempted to kill init! exitcode=0x00000300",
        ),
    ],
)
def test_a_person_is_told_who_did_what_and_where(name, sentence):
    assert verdict_of(reports(name)).sentence == sentence


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_has_words(kind):
    text = describe(made(kind, "the title", frame("edu_probe", 4, "edu")))
    assert "the title" in text
    assert text.startswith(("the driver edu ", "the kernel ", "the first process"))


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("edu_read", "edu_read"),
        ("edu_read.isra.0", "edu_read"),
        ("edu_read.constprop.12.cold", "edu_read"),
        ("edu_read.part.0.constprop.1", "edu_read"),
        ("__pfx_edu_read", "edu_read"),
        ("_RNvCs4kVHtrlNpgN_5rboom6nested", "rboom::nested"),
        ("_RNCNvCs4kVHtrlNpgN_5rboom6nested0B3_", "rboom::nested::{closure}"),
        ("_ZN4core9panicking5panic17h0123456789abcdefE", "core::panicking::panic"),
        ("_Rno_such_name", "_Rno_such_name"),
    ],
)
def test_names_are_stable_over_builds(symbol, name):
    assert stable_name(symbol) == name


@pytest.mark.parametrize(
    ("text", "name", "module", "sure"),
    [
        (" edu_read+0x1f/0x90 [edu]", "edu_read", "edu", True),
        (" ? vfs_read+0x1f/0x90", "vfs_read", "", False),
        ("  [<6002622f>] ? do_one_initcall+0x99/0x1db", "do_one_initcall", "", False),
        (" edu_read+0x1f/0x90 [edu] (P)", "edu_read", "edu", True),
        (" edu_read+0x1f/0x90 [edu 0123456789abcdef]", "edu_read", "edu", True),
    ],
)
def test_lines_of_a_stack(text, name, module, sure):
    found = stack_entry(text)
    assert found is not None
    assert (found[0].name, found[0].module, found[1]) == (name, module, sure)
    assert found[0].offset > 0


def test_machinery_and_roots_do_not_name_a_crash():
    stack = [
        frame("dump_stack_lvl", 1),
        frame("__kasan_report", 1),
        frame("edu_read", 1, "edu"),
        frame("vfs_read", 1),
        frame("do_syscall_64", 1),
    ]
    assert [each.name for each in culprits(stack)] == ["edu_read"]
    assert culprits(stack[:2]) == tuple(stack[:2])


def test_the_culprit_is_the_modules_own_code_not_a_generic_made_in_it():
    generic = frame("_RNvMs0_NtNtCsb5MLIFMWygY_6kernel5alloc4kvecINtB5_3VecmE7reserve", 4, "edu")
    assert not generic.own
    report = Report(Kind.OOPS, "x", (generic, frame("edu_probe", 4, "edu")))
    assert report.culprit is not None
    assert report.culprit.name == "edu_probe"


def test_two_processors_that_report_at_once_are_told_apart():
    one = [
        "[    1.000000][   T11] BUG: kernel NULL pointer dereference, address: 0",
        "[    1.000001][   T11] CPU: 0 UID: 0 PID: 11 Comm: reader Not tainted 7.3.4 #1",
        "[    1.000002][   T11] Call Trace:",
        "[    1.000003][   T11]  edu_read+0x10/0x20 [edu]",
        "[    1.000004][   T11]  </TASK>",
        "[    1.000005][   T11] ---[ end trace 0000000000000000 ]---",
    ]
    two = [
        "[    1.000000][   T12] ------------[ cut here ]------------",
        "[    1.000001][   T12] WARNING: edu.c:7 at edu_write+0x1/0x9 [edu], CPU#1: writer/12",
        "[    1.000002][   T12] CPU: 1 UID: 0 PID: 12 Comm: writer Not tainted 7.3.4 #1",
        "[    1.000003][   T12] Call Trace:",
        "[    1.000004][   T12]  edu_write+0x10/0x20 [edu]",
        "[    1.000005][   T12] ---[ end trace 0000000000000000 ]---",
    ]
    mixed = [line for pair in zip(one, two, strict=True) for line in pair]
    oops, warn = parse(mixed)
    assert (oops.kind, oops.task, [str(each) for each in oops.frames]) == (
        Kind.OOPS,
        "reader",
        ["edu_read [edu]"],
    )
    assert (warn.kind, warn.task, [str(each) for each in warn.frames]) == (
        Kind.WARN,
        "writer",
        ["edu_write [edu]"],
    )
    assert oops.lines == tuple(one)


def test_a_report_that_the_console_cuts_off_is_still_a_report():
    lines = (CONSOLES / "x86_64-plain-null.log").read_text().splitlines()
    end = next(n for n, line in enumerate(lines) if "RIP: 0010" in line)
    (report,) = judge(lines[: end + 1])
    assert report.kind is Kind.OOPS
    assert report.culprit is not None
    assert report.culprit.name == "boom_null"


ARM64 = """\
[    3.063416] Unable to handle kernel NULL pointer dereference at virtual address 0000000000000008
[    3.063420] Mem abort info:
[    3.063421]   ESR = 0x0000000096000044
[    3.063422]   EC = 0x25: DABT (current EL), IL = 32 bits
[    3.063423] [0000000000000008] user pgtable: 4k pages, 48-bit VAs, pgdp=0000000041f5a000
[    3.063424] Internal error: Oops: 0000000096000044 [#1]  SMP
[    3.063425] Modules linked in: edu(O+)
[    3.063426] CPU: 0 UID: 0 PID: 33 Comm: insmod Tainted: G           O        7.3.4 #1 PREEMPT
[    3.063427] Tainted: [O]=OOT_MODULE
[    3.063428] Hardware name: linux,dummy-virt (DT)
[    3.063429] pstate: 60400005 (nZCv daif +PAN -UAO -TCO -DIT -SSBS BTYPE=--)
[    3.063430] pc : edu_probe+0x10/0x20 [edu]
[    3.063431] lr : edu_init+0x44/0x1000 [edu]
[    3.063432] sp : ffff80008009bb50
[    3.063433] Call trace:
[    3.063434]  edu_probe+0x10/0x20 [edu] (P)
[    3.063435]  edu_init+0x44/0x1000 [edu]
[    3.063436]  do_one_initcall+0x58/0x1c0
[    3.063437]  el0_svc+0x30/0xd0
[    3.063438] Code: d503201f d2800100 52800021 (b9000001)
[    3.063439] ---[ end trace 0000000000000000 ]---
[    3.063440] Kernel panic - not syncing: Oops: Fatal exception
[    3.063441] SMP: stopping secondary CPUs
[    3.063442] Kernel Offset: disabled
[    3.063443] ---[ end Kernel panic - not syncing: Oops: Fatal exception ]---
"""


def test_an_oops_in_the_words_of_arm64():
    # arch/arm64/mm/fault.c die_kernel_fault(), arch/arm64/kernel/{traps,process,stacktrace}.c
    oops, panic = parse(ARM64.splitlines())
    assert oops.kind is Kind.OOPS
    assert oops.title.startswith("Unable to handle kernel NULL pointer dereference")
    assert [str(each) for each in culprits(oops.frames)] == ["edu_probe [edu]", "edu_init [edu]"]
    assert len(oops.frames) == 4
    assert oops.complete
    assert (panic.kind, panic.title) == (Kind.PANIC, "Oops: Fatal exception")


def test_boot_messages_that_only_sound_bad_are_no_reports():
    lines = [
        "[    0.100000] mitigations: Vulnerable: BUG in the microcode",
        "[    0.200000] edu: loading out-of-tree module taints kernel.",
        "[    0.300000] WARNING: Flushing system-wide workqueues will be prohibited.",
        "[    0.400000] DMA-API: preallocated 65536 debug entries",
        "[    0.500000] kmemleak: Kernel memory leak detector initialized (mem pool available: 99)",
        "[    0.600000] rcu: INFO: nothing to see",
        "[    0.700000] refcount_t: a driver says the word",
    ]
    assert parse(lines) == ()


def test_a_dma_leak_is_laid_to_who_mapped_not_to_who_released():
    lines = (CONSOLES / "x86_64-debug-pcisingle.log").read_text().splitlines()
    (report,) = parse([*lines, "[  200.000000][   T37] something else"])
    assert report.kind is Kind.DMA
    assert str(report.culprit) == "ppciprobe [boom]"
    assert report.lines[-1].endswith("really_probe+0x20e/0x4e0")


def test_an_unfinished_report_says_that_more_may_come():
    lines = (CONSOLES / "x86_64-plain-warn.log").read_text().splitlines()
    end = next(n for n, line in enumerate(lines) if "Call Trace" in line)
    (part,) = parse(lines[: end + 2])
    (whole,) = parse(lines)
    assert not part.complete
    assert whole.complete
    assert part.fingerprint != "" != whole.fingerprint


@pytest.mark.parametrize(
    ("name", "where", "state"),
    [
        ("loop", "insmod runs in boom_loop [boom]", "R"),
        ("hungmutex", "insmod waits in boom_hungmutex [boom]", "D"),
    ],
)
def test_sysrq_tells_where_a_silent_guest_is(name, where, state):
    lines = (CONSOLES.parent / "sysrq" / f"{name}.log").read_text().splitlines()
    place = stuck(lines)
    assert place is not None
    assert (str(place), place.state) == (where, state)
    assert len(backtraces(lines)) > 1
    verdict = verdict_of((), Observed(silent_for=20, doing="insmod boom.ko", stuck=place))
    assert verdict.outcome is End.AGENT_SILENCE
    assert verdict.sentence.endswith(f"during insmod boom.ko; {where}")
    elsewhere = verdict_of((), Observed(silent_for=20, doing="insmod boom.ko"))
    assert verdict.fingerprint != elsewhere.fingerprint


def test_a_guest_without_a_module_in_any_stack_is_stuck_nowhere_known():
    lines = (CONSOLES.parent / "sysrq" / "hungmutex.log").read_text().splitlines()
    end = next(n for n, line in enumerate(lines) if "Show Blocked State" in line)
    assert backtraces(lines[:end])
    assert stuck(lines[:end]) is None


@pytest.mark.parametrize(
    ("line", "kind", "title"),
    [
        (
            "CPU1: Watchdog detected hard LOCKUP on cpu 0",
            Kind.HARD_LOCKUP,
            "hard LOCKUP on cpu 0",
        ),
        (
            "BUG: KFENCE: out-of-bounds read in edu_read+0xa6/0x234 [edu]",
            Kind.KFENCE,
            "out-of-bounds read in edu_read [edu]",
        ),
        (
            "BUG: KCSAN: data-race in edu_irq [edu] / edu_read [edu]",
            Kind.KCSAN,
            "data-race in edu_irq [edu] / edu_read [edu]",
        ),
        (
            "BUG: KMSAN: uninit-value in edu_write+0x12/0x34 [edu]",
            Kind.KMSAN,
            "uninit-value in edu_write [edu]",
        ),
        (
            "WARNING: CPU: 1 PID: 7 at drivers/edu.c:9 edu_probe+0x5/0x9 [edu]",
            Kind.WARN,
            "WARN_ON in edu_probe [edu]",
        ),
        ("BUG: Bad page state in process cat  pfn:12345", Kind.BUG, "Bad page state in process"),
        ("INFO: trying to register non-static key.", Kind.LOCKDEP, "trying to register non-static"),
    ],
)
def test_first_lines_of_reports_that_were_not_recorded(line, kind, title):
    # kernel/watchdog.c, mm/kfence/report.c, kernel/kcsan/report.c, mm/kmsan/report.c,
    # kernel/panic.c of 6.12, mm/page_alloc.c, kernel/locking/lockdep.c
    (report,) = parse([f"[    1.000000] {line}"])
    assert report.kind is kind
    assert report.title.startswith(title)


KMEMLEAK = """\
unreferenced object 0xffff888001e1ec00 (size 96):
  comm "insmod", pid 34, jiffies 4294892562
  hex dump (first 32 bytes):
    00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  ................
  backtrace (crc 0):
    kmemleak_alloc+0x41/0x80
    __kmalloc_cache_noprof+0x2b3/0x3c0
    edu_open+0x33/0x90 [edu]
    misc_open+0x10/0x90
unreferenced object 0xffff888001e1e400 (size 96):
  comm "insmod", pid 34, jiffies 4294892562
  backtrace (crc 0):
    kmemleak_alloc+0x41/0x80
    edu_open+0x33/0x90 [edu]
    misc_open+0x10/0x90
unreferenced object 0xffff888001e1e400 (size 32):
  comm "cat", pid 35, jiffies 4294892562
  backtrace (crc 0):
    [<ffffffff8100000a>] edu_read+0x33/0x90 [edu]
"""


def test_kmemleak_gives_one_report_for_each_place_that_leaks():
    opened, read = parse_kmemleak(KMEMLEAK)
    assert opened.title == "2 objects, 192 bytes, never freed, allocated in edu_open [edu]"
    assert (opened.kind, opened.task) == (Kind.LEAK, "insmod")
    assert read.title == "1 object, 32 bytes, never freed, allocated in edu_read [edu]"
    assert opened.fingerprint != read.fingerprint
    assert describe(read).startswith("the driver edu lost memory: 1 object")
    assert parse_kmemleak("") == ()


def test_kmemleak_of_a_real_kernel_names_the_rust_function():
    (leak,) = parse_kmemleak((CONSOLES.parent / "kmemleak" / "rust.txt").read_text())
    assert leak.title == "1 object, 64 bytes, never freed, allocated in rboom::nested [rboom]"
    assert leak.culprit is not None
    assert leak.culprit.name == "rboom::nested"


def test_the_expectations_cover_every_kind_that_one_can_provoke():
    expected = json.loads((CONSOLES / "expected.json").read_text())
    seen = {report["kind"] for found in expected.values() for report in found}
    hard_to_provoke = {Kind.KFENCE, Kind.KMSAN, Kind.KCSAN, Kind.HARD_LOCKUP}
    assert {kind.value for kind in Kind if kind not in hard_to_provoke} <= seen
