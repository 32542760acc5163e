"""The file system a guest starts from: the agent as ``/init``, and a shell where there is one."""

from __future__ import annotations

import tempfile
from io import BytesIO
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from kdrv.core.context import Context
from kdrv.core.errors import UsageError
from kdrv.guest.cpio import Archive
from kdrv.kernel.arch import Arch
from kdrv.toolchain.base import MODULE, OUTPUT, SOURCE, Bind, Toolchain

COMPILE_DEADLINE = 120.0
HEADERS_DEADLINE = 600.0

_NOLIBC = "tools/include/nolibc"
_FLAGS = (
    "-Wall -Wextra -Werror -O2 -nostdlib -static -fno-stack-protector "
    "-fno-asynchronous-unwind-tables -fno-ident -s"
).split()
_X86_64 = ("gcc",)
_ARM64 = ("clang", "--target=aarch64-linux-gnu", "-fuse-ld=lld", "-mno-outline-atomics")
_COMPILERS = {Arch.X86_64: _X86_64, Arch.ARM64: _ARM64, Arch.UM: _X86_64}
_MACHINES = {Arch.X86_64: "EM_X86_64", Arch.ARM64: "EM_AARCH64", Arch.UM: "EM_X86_64"}
_PACKAGED_ARM64 = "/usr/lib/linux/uapi/arm64"
"""Where Debian's linux-libc-dev keeps the ``asm`` headers of arm64, on any machine."""


def build_agent(
    toolchain: Toolchain, tree: Path, arch: Arch, ctx: Context, destination: Path
) -> Path:
    """Compile the agent for ``arch`` against the tree's nolibc; gives ``destination``.

    Raises :class:`UsageError` when the tree has no nolibc that fits and :class:`CommandFailed`
    with the compiler's last lines.
    """
    if not (tree / _NOLIBC / "nolibc.h").is_file():
        raise UsageError(
            f"{tree} has no {_NOLIBC}",
            expected="a Linux tree that the guest's agent can be built with",
            remedy="kdrv test --qemu --kernel 7.3",
        )
    binds = [Bind(tree, SOURCE), Bind(Path(__file__).parent, MODULE)]
    with tempfile.TemporaryDirectory(dir=destination.parent) as scratch:
        binds.append(Bind(Path(scratch), OUTPUT, writable=True))
        headers = _asm_headers(toolchain, arch, ctx, binds)
        nolibc = f"{SOURCE}/{_NOLIBC}"
        includes = ["-isystem", nolibc, *headers, "-include", f"{nolibc}/nolibc.h"]
        argv = [*_COMPILERS[arch], *_FLAGS, *includes, "-o", "agent", f"{MODULE}/agent.c"]
        command = toolchain.command(argv, binds=binds, cwd=OUTPUT)
        ctx.runner.run(command, deadline=COMPILE_DEADLINE)
        (Path(scratch) / "agent").replace(destination)
    return destination


def _asm_headers(toolchain: Toolchain, arch: Arch, ctx: Context, binds: list[Bind]) -> list[str]:
    """Options for headers of an architecture that is not this machine's."""
    if arch is not Arch.ARM64:
        return []
    found = toolchain.command(["test", "-d", f"{_PACKAGED_ARM64}/asm"])
    if ctx.runner.run(found, deadline=COMPILE_DEADLINE, check=False).ok:
        return ["-isystem", _PACKAGED_ARM64]
    make = ["make", "-s", "-C", SOURCE, f"O={OUTPUT}", "ARCH=arm64", f"-j{ctx.jobs}", "headers"]
    ctx.runner.run(toolchain.command(make, binds=binds, cwd=OUTPUT), deadline=HEADERS_DEADLINE)
    return ["-isystem", f"{OUTPUT}/usr/include"]


def find_busybox(toolchain: Toolchain, arch: Arch, ctx: Context) -> bytes | None:
    """The toolchain's busybox, if it is static and made for ``arch``."""
    with tempfile.TemporaryDirectory() as scratch:
        binds = [Bind(Path(scratch), OUTPUT, writable=True)]
        script = f'cp "$(command -v busybox)" {OUTPUT}/busybox'
        command = toolchain.command(["sh", "-c", script], binds=binds, cwd=OUTPUT)
        if not ctx.runner.run(command, deadline=COMPILE_DEADLINE, check=False).ok:
            return None
        program = (Path(scratch) / "busybox").read_bytes()
    return program if _runs_alone(program, arch) else None


def _runs_alone(program: bytes, arch: Arch) -> bool:
    try:
        elf = ELFFile(BytesIO(program))
        static = all(part["p_type"] != "PT_INTERP" for part in elf.iter_segments())
    except ELFError:
        return False
    return static and bool(elf["e_machine"] == _MACHINES[arch])


def base_archive(agent: bytes, busybox: bytes | None = None) -> Archive:
    """The least a guest needs: the agent, its mount points, a console, users; and a shell.

    Of busybox's applets only ``sh`` and ``env`` get a name in the file system: its shell finds the
    others by itself, and so does the agent. Hundreds of links would slow down every boot.
    """
    archive = Archive().directory("/tmp", 0o1777).directory("/root", 0o700)
    for path in ("/dev", "/proc", "/sys", "/run", "/etc", "/bin"):
        archive.directory(path)
    archive.character_device("/dev/console", 5, 1)
    archive.file("/init", agent, 0o755)
    archive.file("/etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
    archive.file("/etc/group", b"root:x:0:\n")
    if busybox:
        archive.file("/bin/busybox", busybox, 0o755)
        archive.symlink("/bin/sh", "busybox")
        archive.symlink("/usr/bin/env", "/bin/busybox")
    return archive


def build_initramfs(
    toolchain: Toolchain,
    tree: Path,
    arch: Arch,
    ctx: Context,
    destination: Path,
    busybox: bytes | None = None,
) -> Path:
    """Write the initramfs of a guest without any project in it; gives ``destination``.

    ``busybox`` is one for ``arch`` where the toolchain's is not. A project's files go into a second
    :class:`Archive` whose bytes are put behind these.
    """
    agent = destination.with_name(destination.name + ".agent")
    try:
        build_agent(toolchain, tree, arch, ctx, agent)
        shell = busybox or find_busybox(toolchain, arch, ctx)
        archive = base_archive(agent.read_bytes(), shell)
    finally:
        agent.unlink(missing_ok=True)
    destination.write_bytes(archive.pack())
    return destination
