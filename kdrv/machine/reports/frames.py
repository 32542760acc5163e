"""Stack frames in the kernel's reports: reading them, naming them, telling cause from machinery.

A frame's name is made stable: compiler suffixes go, Rust names are demangled. That makes a
fingerprint the same over runs, boots and builds. Formats: ``%pS``/``%pB`` in
``Documentation/core-api/printk-formats.rst``, ``arch/*/kernel/{dumpstack,stacktrace,sysrq}.c``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import demangle

DEEPEST = 3
"""How many frames name a crash: enough to tell callers apart, few enough to survive inlining."""

_SYMBOL = (
    r"(?P<symbol>[\w.$]+)\+0x(?P<offset>[0-9a-f]+)/0x[0-9a-f]+"
    r"(?: \[(?P<module>[\w-]+)(?: [0-9a-f]+)?\])?"
)
_CALL = re.compile(rf"^\s+(?:\[<[0-9a-fx]+>\] )?(?P<guess>\? )?{_SYMBOL}(?: \([A-Z]+\))*\s*$")
_AT = re.compile(rf"^(?:RIP: [0-9a-f]{{4}}:|pc : ){_SYMBOL}\s*$")
_TRACE = re.compile(r"^\s*Call [Tt]race:")
_ENTRIES = {
    "do_one_initcall": "init_module",
    "__do_sys_delete_module": "cleanup_module",
    "__se_sys_delete_module": "cleanup_module",
    "__x64_sys_delete_module": "cleanup_module",
    "__arm64_sys_delete_module": "cleanup_module",
    "sys_delete_module": "cleanup_module",
}
_MARKS = frozenset({"<TASK>", "<IRQ>", "<NMI>", "<#DF>"})
_NAMED = re.compile(
    r"(?:^\[<[0-9a-fx]+>\] |^\s+#\d+: .* at: |\bworkfn=|\bin-flight: \d+:)"
    r"(?P<symbol>[\w.$]+)(?:\+0x\S+)?(?: \[(?P<module>[\w-]+)\])?(?: for \d+s)?$"
)
_SUFFIX = re.compile(
    r"\.(?:constprop|isra|part|cold|llvm|lto_priv|localalias|warm)(?:\.\d+)?|\.\d+$"
)
_CLOSURE = re.compile(r"\{closure#\d+\}")
_BORROWED = re.compile(r"<?(?:&|mut |\*\w+ )*\[?(?:core|alloc|kernel)::")
_MACHINERY = re.compile(
    r"""(?:
    _*dump_stack\w*|_printk|show_(?:stack|regs)\w*|v?panic\w*|_*die\w*|oops_\w+|page_fault_oops
    |_*warn\w*|warn_slowpath\w*|_*report_bug\w*|handle_bug|exc_\w+|asm_exc_\w+|do_trap|do_error_trap
    |bad_area\w*|no_context|do_(?:user|kern)_addr_fault|do_mem_abort|el1\w*_sync\w*|brk_handler
    |(?:__)?(?:kasan|asan|ubsan|kcsan|kfence|kmsan|hwasan|tsan)_\w+|print_report\w*
    |print_address_description\w*|check_region_inline|check_memory_region
    |print_\w*(?:bug|usage|dependency|context|deadlock)\w*|_*lock_acquire\w*|_*lock_release\w*
    |mark_\w*lock\w*|mark_usage|validate_chain|check_\w*(?:prev|noncircular|deadlock|wait_context)\w*
    |lockdep_\w+|debug_check_no_locks_\w+
    |__might_(?:sleep|resched|fault)\w*|__switch_to|__schedule(?:_bug)?|schedule(?:_timeout\w*|_preempt_disabled)?
    |preempt_schedule\w*|__mutex_lock\w*|mutex_lock\w*|mutex_unlock|__mutex_unlock\w*
    |__raw_spin_\w+|_raw_(?:spin|read|write)_\w+|do_raw_\w+|rwsem_\w+|down_(?:read|write)\w*
    |wait_for_completion\w*|__wait_for_common|wait_for_common|do_wait_\w+|io_schedule\w*
    |rust_begin_unwind|rust_panic|rust_helper_\w+
    |(?:\w+_)?notifier_call_chain|bus_notify|refcount_warn_saturate|__list_(?:add|del)\w*|debug_(?:print_object|object|check|timer|rcu)\w*
    |__debug_\w+|check_unmap|debug_dma_\w+|dma_debug_\w+|dma_(?:map|alloc)_\w+|dmam_alloc\w*|add_dma_entry|check_sync|dma_entry_free
    |fortify_panic|__fortify_\w+|usercopy_abort|__check_(?:heap_)?object\w*|check_heap_object
    |__copy_overflow|__stack_chk_fail|warn_alloc|_*alloc_(?:pages|frozen)\w*|alloc_pages\w*
    |_*get_free_pages\w*|_*kmalloc\w*|krealloc\w*|kvrealloc\w*|_*kvmalloc\w*|kmem_cache_alloc\w*
    |_*vmalloc\w*|_*kmem_cache_(?:free|shutdown)\w*|slab_\w+|_*slab_err|object_err|___slab_alloc
    |check_(?:bytes|object|slab)\w*|free_(?:to_partial_list|debug_processing)|alloc_debug_processing
    |kmemleak_\w+|kfree\w*|kvfree|_*slab_(?:alloc|free)\w*|stack_depot_\w+|set_track\w*
    |dump_header|oom_kill_process|out_of_memory|__report_bad_irq
    |kernel_init_freeable|mount_root\w*|prepare_namespace
    )$""",
    re.VERBOSE,
)
_ROOT = re.compile(
    r"""(?:
    do_one_initcall|do_init_module|load_module|init_module_from_file|x64_sys_call
    |_*(?:ia32|x64|arm64|do|se)?_?sys_\w+|__do_sys_\w+|do_syscall_\w+|entry_\w+|invoke_syscall
    |el0\w*|do_el0_\w+|el1\w*|kthread|ret_from_\w+|process_(?:one|scheduled)_work\w*|worker_thread
    |asm_\w+|common_startup_64|x86_64_start_\w+|start_kernel|rest_init|do_idle|cpu_startup_entry
    |vfs_(?:read|write|ioctl|open)|ksys_\w+|handle_syscall|userspace|new_thread_handler
    |__handle_irq_event_percpu|handle_irq_event\w*|call_timer_fn|run_timer_softirq|handle_softirqs
    )$""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Frame:
    """One function in a stack, innermost first.

    ``name`` is the function for a person (demangled, without compiler suffixes); ``symbol`` is
    what the kernel printed and ``offset`` the bytes into it, for finding the source line;
    ``module`` is empty for the kernel proper.
    """

    name: str
    symbol: str
    offset: int = 0
    module: str = ""

    @property
    def machinery(self) -> bool:
        """Whether the function only reports, allocates, locks or waits: never the culprit."""
        return bool(_BORROWED.match(self.name)) or (
            not self.module and bool(_MACHINERY.match(self.name))
        )

    @property
    def own(self) -> bool:
        """Whether it is a module's own code, not a generic of the kernel's crates made there."""
        return bool(self.module) and not _BORROWED.match(self.name)

    @property
    def root(self) -> bool:
        """Whether the function only calls others: system calls, work queues, module loading."""
        return not self.module and bool(_ROOT.match(self.name))

    def __str__(self) -> str:
        return f"{self.name} [{self.module}]" if self.module else self.name


@lru_cache(maxsize=4096)
def stable_name(symbol: str) -> str:
    """The name of a symbol that two builds of the same source agree on."""
    bare = _SUFFIX.sub("", symbol).removeprefix("__pfx_")
    if bare.startswith(("_R", "_ZN")):
        return _CLOSURE.sub("{closure}", demangle.demangle(bare, language="rust"))
    return bare


def frame(symbol: str, offset: int = 0, module: str = "") -> Frame:
    """A :class:`Frame` from what the kernel printed."""
    return Frame(stable_name(symbol), symbol, offset, module or "")


def stack_entry(text: str) -> tuple[Frame, bool] | None:
    """A frame from a line of a call trace, and whether the unwinder was sure of it."""
    found = _CALL.match(text)
    return (_frame(found), not found["guess"]) if found else None


def instruction(text: str) -> Frame | None:
    """Where the processor was: x86's ``RIP:``, arm64's ``pc :``. User space gives nothing."""
    found = _AT.match(text)
    return _frame(found) if found else None


def named(text: str) -> Frame | None:
    """A function that a report names outside its stack, for where the stack tells nothing.

    The handlers of an interrupt nobody cared for (``kernel/irq/spurious.c``), who took a lock
    (``kernel/locking/lockdep.c``), the function of a work item (``kernel/workqueue.c``).
    """
    found = _NAMED.search(text)
    return frame(found["symbol"], 0, found["module"]) if found else None


def culprits(frames: Sequence[Frame]) -> tuple[Frame, ...]:
    """The few frames that tell where a report comes from, the innermost first.

    Machinery on top is skipped, and what is below the first root is left out. Where nothing
    remains (all of it machinery) the top frames are all there is to say.
    """
    rest = list(frames)
    while rest and rest[0].machinery:
        rest.pop(0)
    chosen: list[Frame] = []
    for entry in rest:
        if entry.root and chosen:
            break
        if entry.machinery or (chosen and chosen[-1].name == entry.name):
            continue
        chosen.append(entry)
        if len(chosen) == DEEPEST:
            break
    return tuple(chosen or frames[:DEEPEST])


def place(frames: Sequence[Frame]) -> tuple[str, ...]:
    """The names of the culprits, so that any build of the same source gives the same.

    A module's init and exit functions have two names each, and compilers differ in which one the
    symbol table keeps: they are told by their callers.
    """
    callers = {id(inner): outer.name for inner, outer in pairwise(frames)}
    return tuple(
        _ENTRIES.get(callers.get(id(entry), ""), entry.name) if entry.module else entry.name
        for entry in culprits(frames)
    )


class Trace:
    """Reads the first call trace in the lines it is given."""

    def __init__(self) -> None:
        self.open = False
        """Whether the trace has begun and not ended."""
        self._over = False
        self._marked = False
        self._sure: list[Frame] = []
        self._guessed: list[Frame] = []

    @property
    def frames(self) -> tuple[Frame, ...]:
        """The stack, innermost first; the unwinder's guesses only where there is nothing else."""
        if self._sure:
            return tuple(self._sure)
        # um's unwinder only guesses: what is above a module's first frame is noise
        own = (n for n, entry in enumerate(self._guessed) if entry.own)
        return tuple(self._guessed[next(own, 0) :])

    def take(self, text: str) -> bool:
        """Read a line; false when it is before or after the trace."""
        if self._over:
            return False
        if not self.open:
            self.open = bool(_TRACE.match(text))
            return self.open
        entry = stack_entry(text)
        bare = text.strip()
        if entry:
            found, sure = entry
            if sure:
                self._sure.append(found)
            elif found.offset:
                # no call returns to the first byte of a function: a stray pointer to it
                self._guessed.append(found)
        elif interrupted := instruction(text):
            self._sure.append(interrupted)
        elif bare in _MARKS:
            self._marked = True
        elif bare == "</TASK>" or not (self._marked or bare in ("", "</IRQ>")):
            # without markers (arm64, um) the first line that is no frame ends the stack
            self.open, self._over = False, True
        return True


def _frame(found: re.Match[str]) -> Frame:
    return frame(found["symbol"], int(found["offset"], 16), found["module"] or "")
