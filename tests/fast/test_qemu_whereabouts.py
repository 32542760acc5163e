"""Where processors are: register dumps, symbols, and the kernel's own answer."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from kdrv.core.errors import CommandFailed
from kdrv.machine.console import Console
from kdrv.qemu.symbols import Symbols
from kdrv.qemu.whereabouts import Processor, processors, whereabouts

KERNEL = 0xFFFF_FFFF_8100_0000
MODULE = 0xFFFF_FFFF_A000_0002
LOADED_AT = 0x0100_0000

X86 = f"""\

CPU#0
RAX=0000000000000001 RBX=ffffc9000003d000 RCX=0000000000000027 RDX=0000010000000014
RSI=ffffffff81901e80 RDI=0000000000000001 RBP=ffff888001ea8810 RSP=ffffc9000013bc28
RIP={MODULE:016x} RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=0
CPU#1
RAX=0000000000000000 RBX=ffff888001cbe000 RCX=0000000000000001 RDX=0000000000000000
RSI=0000000000000087 RDI=000000000005cc5c RBP=0000000000000000 RSP=ffffc9000009bef0
RIP={KERNEL + 0x117:016x} RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1
"""
ARM = """\

CPU#0
 PC=ffff800080012344 X00=0000000000000000 X01=ffff800080f1c9f8
X02=0000000000000001 X30=ffff8000808d4d6c  SP=ffff800081043d90
PSTATE=600000c5 -ZC- EL1h     FPU disabled
"""
FIRMWARE = """\

CPU#0
EAX=00000000 EBX=00000000 ECX=00000000 EDX=00060fb1
ESI=00000000 EDI=00000000 EBP=00000000 ESP=00000000
EIP=0000fff0 EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0
"""
SYMBOLS = Symbols(
    [
        (KERNEL, False, "startup_64"),
        (KERNEL, True, "_text"),
        (KERNEL + 0x40, False, "my_poll"),
        (KERNEL + 0x100, False, "default_idle"),
    ],
    [(KERNEL, LOADED_AT, 0x1000)],
)


def test_registers_of_x86_are_read() -> None:
    assert processors(X86) == (
        Processor(0, MODULE, 0xFFFFC9000013BC28, False),
        Processor(1, KERNEL + 0x117, 0xFFFFC9000009BEF0, True),
    )


def test_registers_of_arm64_are_read() -> None:
    assert processors(ARM) == (Processor(0, 0xFFFF800080012344, 0xFFFF800081043D90, False),)


def test_an_arm64_processor_waits_for_an_interrupt() -> None:
    idle = Symbols(
        [(0xFFFF_8000_8001_2340, False, "cpu_do_idle")], [(0xFFFF_8000_8001_0000, 0, 1 << 16)]
    )
    console = Console()
    lines = whereabouts(FakeMonitor(ARM, console), FakeSerial(), console, idle)  # type: ignore[arg-type]
    assert lines == ("cpu0 in cpu_do_idle+0x4 (idle: waiting for an interrupt)",)


def test_registers_before_64_bit_mode_are_read() -> None:
    assert [(p.pc, p.halted) for p in processors(FIRMWARE)] == [(0xFFF0, False)]


def test_an_address_gets_the_function_it_is_in() -> None:
    assert SYMBOLS.name(KERNEL + 0x117) == "default_idle+0x17"
    assert SYMBOLS.name(KERNEL + 0x2) == "startup_64+0x2"
    assert SYMBOLS.name(KERNEL + 0x42) == "my_poll+0x2"


def test_a_physical_address_of_the_early_kernel_has_a_name_too() -> None:
    assert SYMBOLS.name(LOADED_AT + 0x108) == "default_idle+0x8"


def test_what_is_not_the_kernel_has_no_name() -> None:
    assert SYMBOLS.name(MODULE) == ""
    assert SYMBOLS.name(0xFFF0) == ""


def test_an_image_without_symbols_names_nothing(tmp_path: Path) -> None:
    for content in (b"", b"no ELF at all", b"\x7fELF" + bytes(10)):
        image = tmp_path / "vmlinux"
        image.write_bytes(content)
        assert Symbols.of(image).name(KERNEL) == ""
    assert Symbols.of(tmp_path / "missing").name(KERNEL) == ""


def test_symbols_are_read_from_an_elf(tmp_path: Path) -> None:
    image = tmp_path / "vmlinux"
    image.write_bytes(_elf({"default_idle": KERNEL + 0x100, "$x": KERNEL + 0x110}))
    assert Symbols.of(image).name(KERNEL + 0x117) == "default_idle+0x17"
    assert Symbols.of(image).name(LOADED_AT + 0x100) == "default_idle+0x0"
    assert Symbols.of(image).name(KERNEL + 0x130) == "", "data behind the code"


class FakeMonitor:
    """Answers as QEMU does; a break on the line makes the kernel print what it is told to."""

    def __init__(self, dump: str, console: Console, said: str = "", status: str = "running"):
        self.dump, self.console, self.said, self.status = dump, console, said, status

    def execute(self, name: str, arguments: Any = None) -> Any:
        if name == "query-status":
            return {"status": self.status}
        assert (name, arguments) == ("chardev-send-break", {"id": "console"})
        self.console.feed(self.said.encode())
        return {}

    def human(self, line: str) -> str:
        if line == "info registers -a":
            return self.dump
        if line.startswith("x /"):
            return f"ffffc90000: 0x{KERNEL + 0x45:016x} 0x{1:016x}\n"
        assert line.startswith("cpu ")
        return ""


class FakeSerial:
    """A line that takes keys."""

    def __init__(self) -> None:
        self.keys = b""

    def write(self, data: bytes) -> None:
        self.keys += data


def _ask(dump: str, said: str = "", status: str = "running") -> tuple[str, ...]:
    console, serial = Console(), FakeSerial()
    console.feed(b"Linux version 7.3.4\n")
    monitor = FakeMonitor(dump, console, said, status)
    lines = whereabouts(monitor, serial, console, SYMBOLS, patience=0.05)  # type: ignore[arg-type]
    assert serial.keys == b"lw"
    return lines


def test_a_processor_in_a_module_is_named_by_the_kernel() -> None:
    lines = _ask(
        X86,
        "[    6.02] RIP: 0010:spin_for_ever+0x2/0x10 [probe]\n"
        "[    6.03] RAX: 0000000000000001 RBX: ffffc9000003d000 RCX: 0000000000000027\n"
        "[    6.04]  my_probe+0x111/0x160 [probe]\n",
    )
    assert lines[0] == "cpu0 in spin_for_ever+0x2/0x10 [probe]"
    assert lines[1].endswith("by my_poll")
    assert lines[2] == "cpu1 in default_idle+0x17 (idle: waiting for an interrupt)"
    assert "[    6.04]  my_probe+0x111/0x160 [probe]" in lines
    assert not any("RAX" in line for line in lines)


def test_a_task_that_waits_in_a_module_is_pointed_out() -> None:
    lines = _ask(
        FIRMWARE,
        "[    6.000001] sysrq: Show Blocked State\n"
        "[    6.000002] task:cat             state:D stack:0     pid:41    tgid:41    ppid:1\n"
        "[    6.000003] Call Trace:\n"
        "[    6.000004]  <TASK>\n"
        "[    6.000005]  __schedule+0x1b0/0x5a0\n"
        "[    6.000006]  mutex_lock+0x20/0x30\n"
        "[    6.000007]  widget_read+0x31/0x90 [widget]\n"
        "[    6.000008]  vfs_read+0xb1/0x2c0\n"
        "[    6.000009]  </TASK>\n",
    )
    assert lines[0] == "most likely stuck: cat waits in widget_read [widget]"


def test_a_kernel_that_takes_no_interrupts_still_shows_who_called() -> None:
    lines = _ask(X86)
    assert lines[0] == f"cpu0 in a module's code ({MODULE:#x})"
    assert lines[1].endswith("by my_poll")


def test_a_kernel_that_never_printed_is_not_asked() -> None:
    console, serial = Console(), FakeSerial()
    monitor = FakeMonitor(X86, console)
    lines = whereabouts(monitor, serial, console, SYMBOLS)  # type: ignore[arg-type]
    assert lines[0] == f"cpu0 in a module's code ({MODULE:#x})"
    assert serial.keys == b""


def test_firmware_and_a_stopped_machine_are_named() -> None:
    lines = _ask(FIRMWARE, status="internal-error")
    assert lines[0] == "QEMU says the machine is internal-error"
    assert lines[1] == "cpu0 in firmware or user space (0xfff0)"


def test_a_monitor_that_does_not_answer_is_said_and_not_raised() -> None:
    class Dead(FakeMonitor):
        def execute(self, name: str, arguments: Any = None) -> Any:
            raise CommandFailed("QEMU has ended and cannot query-status")

    console = Console()
    lines = whereabouts(Dead("", console), FakeSerial(), console, SYMBOLS)  # type: ignore[arg-type]
    assert lines == ("QEMU has ended and cannot query-status",)


def _elf(functions: dict[str, int]) -> bytes:
    """A small ELF with one executable segment and a symbol table."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name in functions)
    table = bytes(24)
    for name, address in functions.items():
        table += struct.pack("<IBBHQQ", names.index(name.encode()), 2, 0, 3, address, 0)
    sections = b"\0.symtab\0.strtab\0.init.text\0"
    head, program = 64, 56
    at_table = head + program
    at_names = at_table + len(table)
    at_sections = at_names + len(names)
    at_headers = at_sections + len(sections)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        *(2, 62, 1, KERNEL, head, at_headers, 0, head, program, 1, 64, 5, 4),
    )
    load = struct.pack("<IIQQQQQQ", 1, 6, 0, KERNEL, LOADED_AT, 0, 0x1000, 4096)

    def section(name: int, kind: int, at: int, size: int, link: int, entry: int) -> bytes:
        return struct.pack("<IIQQQQIIQQ", name, kind, 0, 0, at, size, link, 0, 1, entry)

    # As in vmlinux, code of the start stands in a segment that is not marked executable.
    text = struct.pack("<IIQQQQIIQQ", 17, 1, 6, KERNEL + 0x100, 0, 0x20, 0, 0, 1, 0)

    return b"".join(
        (
            *(header, load, table, names, sections, bytes(64)),
            section(1, 2, at_table, len(table), 2, 24),
            section(9, 3, at_names, len(names), 0, 0),
            text,
            section(9, 3, at_sections, len(sections), 0, 0),
        )
    )
