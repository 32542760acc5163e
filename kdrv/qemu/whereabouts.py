"""Where the processors of a silent machine are, and what its kernel says when asked.

QEMU knows the registers of every processor at any time, also of a kernel that never reached its
console. The kernel, as long as it takes interrupts, answers the magic keys (SysRq: drivers/tty/
sysrq.c) on its serial line: only it knows the symbols of modules and the stacks of sleeping tasks.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from kdrv.core.errors import KdrvError
from kdrv.machine.console import Console
from kdrv.machine.reports import stuck
from kdrv.qemu.monitor import Monitor
from kdrv.qemu.serial import CHARDEV, SerialLine
from kdrv.qemu.symbols import Symbols

KEY_CPUS, KEY_BLOCKED = b"l", b"w"
ANSWER_SECONDS = 1.0
QUIET_SECONDS = 0.15
CALLERS = 6
STACK_WORDS = 256
KERNEL_HALF = 1 << 63
MOST_LINES = 60

_CPU = re.compile(r"^CPU#(\d+)", re.M)
_PC = re.compile(r"\b(?:RIP|EIP|PC)\s*=\s*([0-9a-f]+)", re.I)
_SP = re.compile(r"\b(?:RSP|ESP|SP)\s*=\s*([0-9a-f]+)", re.I)
_HALTED = re.compile(r"\bHLT=1")
_IDLE = ("cpu_do_idle+", "pv_native_safe_halt+", "default_idle+")
"""Where processors wait for interrupts; of arm64 QEMU does not tell that one is halted."""
_WORD = re.compile(r"0x([0-9a-f]{16})")
_IN_MODULE = re.compile(r"(?:RIP: \d+:|pc : )(\S+\+0x[0-9a-f]+/0x[0-9a-f]+ \[\S+\])")
_REGISTERS = re.compile(r"\] (?:Code|R[A-Z0-9]{2}|[CFG]S|CR2|x\d+ ?|sp ): ")
"""Lines of raw registers: noise beside the stack."""


@dataclass(frozen=True)
class Processor:
    """A processor as QEMU's ``info registers`` shows it."""

    number: int
    pc: int
    sp: int
    halted: bool


def processors(dump: str) -> tuple[Processor, ...]:
    """Read the output of ``info registers -a``, of either architecture."""
    pieces = _CPU.split(dump)[1:]
    found = []
    for number, text in zip(pieces[::2], pieces[1::2], strict=True):
        pc, sp = _PC.search(text), _SP.search(text)
        if pc and sp:
            halted = _HALTED.search(text) is not None
            found.append(Processor(int(number), int(pc[1], 16), int(sp[1], 16), halted))
    return tuple(found)


def whereabouts(
    monitor: Monitor,
    serial: SerialLine,
    console: Console,
    symbols: Symbols,
    *,
    patience: float = ANSWER_SECONDS,
) -> tuple[str, ...]:
    """Lines such as ``cpu0 in my_probe+0x12/0x30 [my_driver]``; never raises.

    ``patience`` is how long the kernel gets to answer each of two keys, in seconds.
    """
    try:
        state = monitor.execute("query-status").get("status", "unknown")
        dump = processors(monitor.human("info registers -a"))
        callers = {p.number: _callers(monitor, p, symbols) for p in dump if _busy(p)}
    except KdrvError as error:
        return (error.message,)
    lines = [] if state == "running" else [f"QEMU says the machine is {state}"]
    # Keys are read long after the first line is printed.
    said = _ask(serial, monitor, console, patience) if console.since() else []
    if culprit := stuck(said):
        lines.append(f"most likely stuck: {culprit}")
    in_modules = [match[1] for line in said if (match := _IN_MODULE.search(line))]
    for processor in dump:
        place = symbols.name(processor.pc)
        if not place and processor.pc >= KERNEL_HALF:
            # Several processors in modules cannot be told apart by the kernel's lines alone.
            place = in_modules.pop(0) if in_modules else f"a module's code ({processor.pc:#x})"
        elif not place:
            place = f"firmware or user space ({processor.pc:#x})"
        halted = processor.halted or place.startswith(_IDLE)
        idle = " (idle: waiting for an interrupt)" if halted else ""
        lines.append(f"cpu{processor.number} in {place}{idle}")
        if (called := callers.get(processor.number)) and not halted:
            lines.append("  called, as far as its stack tells, by " + ", ".join(called))
    return (*lines, *[line for line in said if not _REGISTERS.search(line)][-MOST_LINES:])


def _busy(processor: Processor) -> bool:
    return not processor.halted and processor.pc >= KERNEL_HALF


def _callers(monitor: Monitor, processor: Processor, symbols: Symbols) -> list[str]:
    """Functions whose addresses stand on the stack, nearest first; some may be left-overs."""
    monitor.human(f"cpu {processor.number}")
    words = _WORD.findall(monitor.human(f"x /{STACK_WORDS}gx {processor.sp:#x}"))
    names = (symbols.name(int(word, 16)).partition("+")[0] for word in words)
    return list(dict.fromkeys(name for name in names if name))[:CALLERS]


def _ask(serial: SerialLine, monitor: Monitor, console: Console, patience: float) -> list[str]:
    """What the kernel prints of running and of blocked tasks; nothing if it takes no interrupts."""
    said: list[str] = []
    for key in (KEY_CPUS, KEY_BLOCKED):
        mark = console.mark()
        try:
            monitor.execute("chardev-send-break", {"id": CHARDEV})
        except KdrvError:
            break
        serial.write(key)
        until = time.monotonic() + patience
        while time.monotonic() < until:
            time.sleep(QUIET_SECONDS / 3)
            quiet = time.monotonic() - console.last_byte_at > QUIET_SECONDS
            if quiet and console.mark() > mark:
                break
        said += console.since(mark)
    return said
