"""The programs, headers and devices that building and booting a kernel takes, as data."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kdrv.core.process import Runner
from kdrv.toolchain.base import Toolchain
from kdrv.toolchain.doctor_finding import Finding, State
from kdrv.toolchain.requirements import Requirements, at_least

PRESENT = "present"
_DEADLINE = 60.0
_MARK = "@@ "
_VERSION = re.compile(r"\d+(?:\.\d+)+[^\s,;)\"]*|\b\d{8}\b")

_LIBCLANG = """printf '#pragma message("clang version " __clang_version__)\\n' >/tmp/libclang.h
bindgen /tmp/libclang.h 2>&1 >/dev/null"""
"""What scripts/rust_is_available.sh asks too: bindgen tells the libclang it found."""

_RUST_SRC = (
    'test -e "$(rustc --print sysroot)/lib/rustlib/src/rust/library/core/src/lib.rs" && echo x'
)


@dataclass(frozen=True)
class Tool:
    """Something a toolchain has or lacks.

    ``ask`` is a shell script that prints its version, or anything for "present". ``package`` is
    Debian's. ``minimum`` names the tree's requirement. ``purpose`` says what it is for when kdrv
    can do without it; a tool without a purpose is needed always.
    """

    name: str
    ask: str
    package: str
    minimum: str = ""
    purpose: str = ""
    rust: bool = False


def _program(
    name: str, package: str = "", *, program: str = "", minimum: str = "", purpose: str = ""
) -> Tool:
    ask = f"{program or name} --version"
    return Tool(name, ask, package or name, minimum, purpose)


def _header(name: str, package: str, header: str, macro: str) -> Tool:
    ask = f"echo {macro} >/tmp/said.c; gcc -E -P -include {header} /tmp/said.c 2>/dev/null"
    return Tool(name, ask, package)


def _rust(name: str, ask: str, package: str, minimum: str = "", purpose: str = "") -> Tool:
    return Tool(name, ask, package, minimum, purpose, rust=True)


def _devices(arch: str) -> str:
    return f'qemu-system-{arch} -device help | sed -n \'s/^name "\\([^"]*\\)".*/\\1/p\''


LLVM = "--arch arm64, --debug --rust"
ARM64 = "--arch arm64"
CHECKS = "kdrv build --check"

TOOLS = (
    _program("gcc", minimum="gcc"),
    _program("binutils", program="ld", minimum="binutils"),
    _program("make", minimum="make"),
    _program("flex", minimum="flex"),
    _program("bison", minimum="bison"),
    _program("bc", minimum="bc"),
    Tool("perl", "perl -e 'print $^V'", "perl"),
    _program("python3", minimum="python3"),
    _program("cpio"),
    _header("openssl headers", "libssl-dev", "openssl/opensslv.h", "OPENSSL_VERSION_TEXT"),
    _header("libelf headers", "libelf-dev", "elfutils/version.h", "_ELFUTILS_VERSION"),
    _program("clang", minimum="llvm", purpose=LLVM),
    _program("lld", program="ld.lld", minimum="llvm", purpose=LLVM),
    _program("llvm", program="llvm-objcopy", minimum="llvm", purpose=LLVM),
    _rust("rustc", "rustc --version", "rustc", "rustc"),
    _rust("rust-src", _RUST_SRC, "rust-src"),
    _rust("bindgen", "bindgen --version", "bindgen", "bindgen"),
    _rust("libclang", _LIBCLANG, "libclang-dev", "llvm"),
    _rust("rustfmt", "rustfmt --version", "rustfmt", purpose=CHECKS),
    _rust("clippy", "clippy-driver --version", "rust-clippy", purpose=CHECKS),
    _program("sparse", purpose=CHECKS),
    _program("pahole", minimum="pahole", purpose="CONFIG_DEBUG_INFO_BTF"),
    _program("ccache", purpose="faster rebuilds of C"),
    _program("qemu-system-x86", program="qemu-system-x86_64"),
    _program("qemu-system-arm", program="qemu-system-aarch64", purpose=ARM64),
    Tool("iasl", "iasl -v", "acpica-tools"),
    _program("dtc", "device-tree-compiler", purpose=ARM64),
    Tool("busybox", "busybox", "busybox-static"),
)

DEVICES: Mapping[str, str] = {
    "virtio-serial-pci": "",
    "edu": "",
    "pci-testdev": "",
    "vfio-user-pci": "device models of kdrv's own",
}
"""The QEMU devices kdrv uses; those with a purpose it can do without."""

Mend = Callable[[Tool], str]
"""The command that provides a tool, in a version the tree accepts."""


def tool_findings(
    toolchain: Toolchain, runner: Runner, wanted: Requirements, mend: Mend
) -> tuple[Finding, ...]:
    """What of :data:`TOOLS` and :data:`DEVICES` ``toolchain`` has, in one run of its sandbox."""
    answers = _ask(toolchain, runner)
    found = [_judged(tool, _version(answers.get(tool.name, "")), wanted, mend) for tool in TOOLS]
    if mismatch := _mismatch(answers, mend):
        found.append(mismatch)
    if answers.get("qemu-system-x86"):
        devices = answers.get("devices", "").split()
        qemu = next(tool for tool in TOOLS if tool.name == "qemu-system-x86")
        found += [_device(name, purpose, devices, mend(qemu)) for name, purpose in DEVICES.items()]
    return tuple(found)


def _ask(toolchain: Toolchain, runner: Runner) -> dict[str, str]:
    """Every tool's own words, by name; a tool that is not there says nothing."""
    questions = [*((tool.name, tool.ask) for tool in TOOLS), ("devices", _devices("x86_64"))]
    script = "\n".join(
        f"echo '{_MARK}{name}'\n( {ask} ) >/tmp/said 2>&1 && cat /tmp/said; echo"
        for name, ask in questions
    )
    command = toolchain.command(("sh", "-c", script))
    output = runner.run(command, deadline=_DEADLINE, check=False).output
    parts = re.split(rf"^{_MARK}(.+)$", output, flags=re.M)
    return {name: said.strip() for name, said in zip(parts[1::2], parts[2::2], strict=True)}


def _version(said: str) -> str:
    match = _VERSION.search(said)
    return match[0] if match else PRESENT if said else ""


def _judged(tool: Tool, version: str, wanted: Requirements, mend: Mend) -> Finding:
    minimum = wanted.minimum(tool.minimum) if tool.minimum else ""
    needed = f"{minimum} or newer" if minimum else "any"
    if tool.purpose:
        needed += f", for {tool.purpose}"
    if version and at_least(version, minimum):
        return Finding(tool.name, version, needed, State.OK)
    optional = tool.purpose or (tool.rust and not wanted.rust)
    return Finding(
        tool.name, version, needed, State.WARNING if optional else State.MISSING, mend(tool)
    )


def _mismatch(answers: Mapping[str, str], mend: Mend) -> Finding | None:
    """bindgen reads C with its libclang; with LLVM=1 that must be clang's own version."""
    clang = _version(answers.get("clang", ""))
    libclang = _version(answers.get("libclang", ""))
    if not clang or not libclang or clang == libclang:
        return None
    major = clang.partition(".")[0]
    tool = Tool("libclang", _LIBCLANG, f"libclang-{major}-dev")
    return Finding(
        "libclang against clang", libclang, f"{clang}, for {LLVM}", State.WARNING, mend(tool)
    )


def _device(name: str, purpose: str, devices: list[str], remedy: str) -> Finding:
    needed = f"for {purpose}" if purpose else "yes"
    if name in devices:
        return Finding(f"QEMU device {name}", PRESENT, needed, State.OK)
    state = State.WARNING if purpose else State.MISSING
    return Finding(f"QEMU device {name}", "", needed, state, remedy)
