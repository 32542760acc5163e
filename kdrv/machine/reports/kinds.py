"""What the kernel says when something is wrong, as data: one row for every kind of report.

The sentences come from the kernel's sources, named beside each row; they are matched without the
time stamp. A new detector of the kernel is a new row here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a report is about, the gravest first: the order is the severity."""

    RUST_PANIC = "rust-panic"
    KASAN = "kasan"
    KFENCE = "kfence"
    KMSAN = "kmsan"
    STACK = "stack-corruption"
    OOPS = "oops"
    BUG = "bug"
    PANIC = "panic"
    INIT_DIED = "init-died"
    NO_INIT = "no-init"
    SLAB = "slab-corruption"
    LIST = "list-corruption"
    REFCOUNT = "refcount"
    OBJECTS = "debug-objects"
    HARD_LOCKUP = "hard-lockup"
    SOFT_LOCKUP = "soft-lockup"
    RCU_STALL = "rcu-stall"
    WORKQUEUE_LOCKUP = "workqueue-lockup"
    HUNG_TASK = "hung-task"
    LOCKDEP = "lockdep"
    ATOMIC_SLEEP = "atomic-sleep"
    KCSAN = "data-race"
    UBSAN = "ubsan"
    DMA = "dma-api"
    IRQ = "unhandled-irq"
    OUT_OF_MEMORY = "out-of-memory"
    LEAK = "leak"
    MODULE = "module-load"
    WARN = "warn"
    ALLOC_FAILURE = "alloc-failure"

    @property
    def severity(self) -> int:
        """Greater is graver."""
        return len(Kind) - tuple(Kind).index(self)


@dataclass(frozen=True)
class Opening:
    """The line that begins a report.

    ``pattern`` may name ``title`` (else the whole line is the title), ``where`` (file:line),
    ``task``, ``cpu``. ``head`` is how a line just before belongs to the report. ``close`` ends it;
    ``tail`` are lines that still belong to it after its stack trace. ``absorbs`` are kinds that
    the kernel prints as a part of this report.
    """

    kind: Kind
    pattern: re.Pattern[str]
    close: re.Pattern[str] | None = None
    head: re.Pattern[str] | None = None
    tail: re.Pattern[str] | None = None
    absorbs: frozenset[Kind] = frozenset()
    single: bool = False


CUT_HERE = "------------[ cut here ]------------"
MAPPED_AT = "DMA-API: Mapped at:"
"""Stands, with a stack below it, behind the end of a DMA-API report (kernel/dma/debug.c)."""
END_TRACE = re.compile(r"^---\[ end trace ")
_RULE = re.compile(r"^={10,}$")
_END_PANIC = re.compile(r"^---\[ end Kernel panic")
_LOCKS_HELD = re.compile(
    r"^(?:\d+ locks? held by |no locks held by |INFO: lockdep is turned off| #\d+: "
    r"|Showing all locks held|\s*$)"
)
_LOCKDEP = "|".join(
    (
        r"possible circular locking dependency detected",
        r"possible recursive locking detected",
        r"inconsistent lock state",
        r"possible irq lock inversion dependency detected",
        r"\S+-safe -> \S+-unsafe lock order detected",
        r"chain_key collision",
        r"Nested lock was not taken",
        r"bad unlock balance detected!",
        r"bad contention detected!",
        r"held lock freed!",
        r"lock held when returning to user space!",
        r"suspicious RCU usage",
    )
)


def _row(
    kind: Kind,
    pattern: str,
    *absorbs: Kind,
    close: re.Pattern[str] | None = None,
    head: re.Pattern[str] | None = None,
    tail: str = "",
    single: bool = False,
) -> Opening:
    return Opening(
        kind,
        re.compile(pattern),
        close,
        head,
        re.compile(tail) if tail else None,
        frozenset(absorbs),
        single,
    )


OPENINGS: tuple[Opening, ...] = (
    # rust/kernel/lib.rs: panic(); the BUG() below it is how Rust stops, not a second fault
    _row(
        Kind.RUST_PANIC,
        r"^rust_kernel: panicked at (?P<where>.+?:\d+)(?::\d+)?:$",
        *(Kind.BUG, Kind.OOPS, Kind.PANIC),
        close=END_TRACE,
    ),
    # mm/kasan/report.c, mm/kfence/report.c, kernel/kcsan/report.c, mm/kmsan/report.c
    _row(Kind.KASAN, r"^BUG: KASAN: (?P<title>.+)$", close=_RULE, head=_RULE),
    _row(Kind.KFENCE, r"^BUG: KFENCE: (?P<title>.+)$", close=_RULE, head=_RULE),
    _row(Kind.KCSAN, r"^BUG: KCSAN: (?P<title>.+)$", close=_RULE, head=_RULE),
    _row(Kind.KMSAN, r"^BUG: KMSAN: (?P<title>.+)$", close=_RULE, head=_RULE),
    # lib/ubsan.c
    _row(
        Kind.UBSAN,
        r"^UBSAN: (?P<title>.+) in (?P<where>.+?:\d+)(?::\d+)?$",
        close=re.compile(r"^---\[ end trace"),
    ),
    # kernel/locking/lockdep.c
    _row(Kind.LOCKDEP, rf"^WARNING: (?P<title>{_LOCKDEP})$", head=_RULE),
    _row(Kind.LOCKDEP, r"^WARNING: (?P<title>.+/\d+ still has locks held!)$", head=_RULE),
    _row(Kind.LOCKDEP, r"^\[ BUG: (?P<title>Invalid wait context) \]$", head=_RULE),
    _row(Kind.LOCKDEP, r"^INFO: (?P<title>trying to register non-static key\.)$"),
    _row(Kind.LOCKDEP, r"^BUG: (?P<title>MAX_(?:LOCK|STACK)\w+ too low!)$"),
    # kernel/sched/core.c
    _row(
        Kind.ATOMIC_SLEEP,
        r"^BUG: (?P<title>sleeping function called from invalid context) at (?P<where>\S+)$",
    ),
    _row(Kind.ATOMIC_SLEEP, r"^BUG: (?P<title>scheduling while atomic): (?P<task>.+)/\d+/0x"),
    # kernel/hung_task.c, kernel/watchdog.c, kernel/workqueue.c, kernel/rcu/tree_stall.h
    _row(
        Kind.HUNG_TASK,
        r"^INFO: (?P<title>task (?P<task>.+):\d+ blocked.* for more than \d+ seconds)\.$",
        tail=r"^INFO: task .* blocked on an? |^(?:task:|Call Trace:| \S.*\+0x| </?TASK>)|"
        + _LOCKS_HELD.pattern,
    ),
    _row(
        Kind.SOFT_LOCKUP,
        r"BUG: (?P<title>soft lockup - CPU#(?P<cpu>\d+) stuck for \d+s!) \[(?P<task>.+):\d+\]$",
    ),
    _row(Kind.HARD_LOCKUP, r"Watchdog detected (?P<title>hard LOCKUP on cpu (?P<cpu>\d+))$"),
    _row(
        Kind.RCU_STALL,
        r"INFO: (?P<title>rcu\w* (?:self-)?detected (?:expedited )?stalls? on CPU.*)$",
        tail=r"^rcu: |^Sending NMI|^NMI backtrace|^\s+\(detected by|^\t",
    ),
    _row(
        Kind.WORKQUEUE_LOCKUP,
        r"BUG: (?P<title>workqueue lockup - pool.*)$",
        tail=r"^(?:Showing (?:busy|freezable|backtraces)|workqueue |pool \d|\s+(?:pwq|in-fl|pend))",
    ),
    # arch/x86/kernel/{dumpstack,traps}.c, arch/x86/mm/fault.c, arch/arm64/{kernel/traps,mm/fault}.c
    _row(
        Kind.OOPS,
        r"^(?:BUG: )?(?P<title>(?:unable|Unable) to handle (?:page fault|kernel) .+"
        r"|kernel NULL pointer dereference, address: .+"
        r"|\S+ stack guard page was hit.*)$",
        Kind.OOPS,
        close=END_TRACE,
    ),
    _row(
        Kind.OOPS,
        r"^(?:Oops|Internal error|traps: PANIC|PANIC): (?P<title>.+)$",
        Kind.OOPS,
        close=END_TRACE,
    ),
    _row(
        Kind.BUG,
        r"^(?P<title>kernel BUG at (?:\[.*\] )?(?P<where>\S+?:\d+)!)$",
        Kind.OOPS,
        close=END_TRACE,
    ),
    # include/asm-generic/bug.h and arch/um/kernel/trap.c: um panics at once
    _row(
        Kind.BUG,
        r"^BUG: (?P<title>failure at (?P<where>\S+?:\d+)/\S+!)$",
        Kind.PANIC,
        close=END_TRACE,
    ),
    _row(
        Kind.OOPS,
        r"^Kernel panic - not syncing: "
        r"(?P<title>Kernel (?:mode fault|tried to access user memory) at addr 0x[0-9a-f]+)",
        close=_END_PANIC,
        head=re.compile(r"^(?:$|Modules linked in:|Pid: |R[A-Z0-9]{2}: )"),
    ),
    # kernel/panic.c __warn(); before 6.16 the processor came first
    _row(
        Kind.WARN,
        r"^WARNING: (?:CPU: (?P<cpu>\d+) PID: \d+ )?(?:at )?(?:\[(?P<cond>.*)\] )?"
        r"(?P<where>[^\s:]+:\d+)? ?"
        r"(?:at )?(?P<title>\S+\+0x\S+(?: \[\S+\])?)(?:, CPU#\d+: (?P<task>.+)/\d+)?$",
        close=END_TRACE,
    ),
    # mm/slub.c, mm/slab_common.c
    _row(
        Kind.LEAK,
        r"^BUG (?P<title>\S+ \(.+\): Objects remaining .+)$",
        Kind.WARN,
        close=END_TRACE,
        head=re.compile(r"^={10,}$"),
    ),
    _row(
        Kind.SLAB,
        r"^BUG (?P<title>\S+ \(.+\): .+)$",
        *(Kind.WARN, Kind.SLAB),
        close=END_TRACE,
        head=re.compile(r"^={10,}$|^\[.+ overwritten\] 0x"),
    ),
    # init/main.c, init/do_mounts.c, kernel/exit.c, kernel/panic.c
    _row(
        Kind.NO_INIT,
        r"^Kernel panic - not syncing: (?P<title>VFS: Unable to mount root.*|No working init.*"
        r"|No init found.*|Requested init .+ failed.*)$",
        close=_END_PANIC,
    ),
    _row(
        Kind.INIT_DIED,
        r"^Kernel panic - not syncing: (?P<title>Attempted to kill init!.*)$",
        close=_END_PANIC,
    ),
    _row(
        Kind.STACK,
        r"^Kernel panic - not syncing: (?P<title>stack-protector: .+|corrupted stack end .+)$",
        close=_END_PANIC,
    ),
    _row(
        Kind.OUT_OF_MEMORY,
        r"^Kernel panic - not syncing: (?P<title>System is deadlocked on memory|Out of memory.*)$",
        close=_END_PANIC,
    ),
    _row(Kind.PANIC, r"^Kernel panic - not syncing: (?P<title>.*)$", close=_END_PANIC),
    # kernel/irq/spurious.c
    _row(
        Kind.IRQ,
        r"^(?P<title>irq \d+: nobody cared)",
        tail=r"^handlers:|^\[<|^\s+threaded \[<",
        close=re.compile(r"^Disabling IRQ #\d+$"),
    ),
    # mm/kmemleak.c
    _row(Kind.LEAK, r"^kmemleak: (?P<title>\d+ new suspected memory leaks)", single=True),
    # kernel/module/{main,version}.c
    _row(
        Kind.MODULE,
        r"^(?P<title>\S+: (?:version magic '.*' should be '.*'|Unknown symbol \S+ \(err -?\d+\)"
        r"|disagrees about version of symbol \S+|exports duplicate symbol .*"
        r"|module tries to import module namespace.*|module using GPL-only symbols.*)"
        r"|Invalid (?:ELF |architecture in ELF |module architecture in ELF ).*"
        r"|module \S+: .*\.gnu\.linkonce\.this_module.*)$",
        single=True,
    ),
    # mm/oom_kill.c, mm/page_alloc.c
    _row(
        Kind.OUT_OF_MEMORY,
        r"^(?P<title>(?P<task>\S+) invoked oom-killer): ",
        Kind.OUT_OF_MEMORY,
        close=re.compile(r"^(?:Memory cgroup out|Out) of memory: Killed process"),
    ),
    _row(Kind.OUT_OF_MEMORY, r"^(?P<title>Out of memory: Killed process .+)$", single=True),
    _row(Kind.OUT_OF_MEMORY, r"^(?P<title>Out of memory and no killable processes)", single=True),
    _row(
        Kind.ALLOC_FAILURE,
        r"^(?P<task>\S+): (?P<title>(?:page allocation failure: order:\d+"
        r"|vmalloc error: size \d+).*)$",
    ),
    # fs/sysfs/dir.c
    _row(Kind.WARN, r"^sysfs: (?P<title>cannot create duplicate filename '.+')$"),
    # the rest that calls itself a bug: mm/memory.c, kernel/locking/spinlock_debug.c, kernel/fork.c
    _row(Kind.BUG, r"^BUG: (?P<title>.+)$", Kind.OOPS),
)

REFINEMENTS: tuple[tuple[re.Pattern[str], Kind], ...] = (
    # what a WARN or BUG is really about, from the message printed with it
    (re.compile(r"^refcount_t: "), Kind.REFCOUNT),
    (re.compile(r"^list_(?:add|del)(?: double add| corruption)"), Kind.LIST),
    (re.compile(r"^ODEBUG: "), Kind.OBJECTS),
    (re.compile(r"^DMA-API: "), Kind.DMA),
    (re.compile(r"^kmem_cache_destroy \S+: Slab cache still has objects"), Kind.LEAK),
    (re.compile(r"^cache_from_obj: "), Kind.SLAB),
    (re.compile(r"^(?:DEBUG_LOCKS_WARN_ON|Looking for class|lock_release)"), Kind.LOCKDEP),
    (
        re.compile(
            r"^Voluntary context switch within RCU read-side|^do not call blocking ops when"
            r"|^initcall .* returned with (?:preemption imbalance|disabled interrupts)"
        ),
        Kind.ATOMIC_SLEEP,
    ),
)
