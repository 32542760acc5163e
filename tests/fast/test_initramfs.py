"""Archives the kernel can unpack, and how the agent gets into them."""

from __future__ import annotations

import itertools
import shutil
import stat
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdrv.core.context import Context
from kdrv.core.errors import UsageError
from kdrv.core.process import Command
from kdrv.guest.cpio import Archive
from kdrv.guest.initramfs import base_archive, build_agent, build_initramfs, find_busybox
from kdrv.kernel.arch import Arch
from kdrv.toolchain.base import OUTPUT, Bind
from tests.fast.conftest import FakeRunner


@dataclass(frozen=True)
class Member:
    name: str
    mode: int
    data: bytes
    device: tuple[int, int]


def unpack(data: bytes) -> list[Member]:
    """Reads as the kernel does: init/initramfs.c."""
    members = []
    at = 0
    while at < len(data):
        assert data[at : at + 6] == b"070701"
        assert at % 4 == 0
        values = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        _, mode, uid, gid, _, mtime, size, _, _, major, minor, name_size, _ = values
        assert (uid, gid, mtime) == (0, 0, 0)
        name = data[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        body = (at + 110 + name_size + 3) // 4 * 4
        at = (body + size + 3) // 4 * 4
        text = name[:-1].decode(errors="surrogateescape")
        if text != "TRAILER!!!":
            members.append(Member(text, mode, data[body : body + size], (major, minor)))
    return members


names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)
paths = st.lists(names.filter(lambda name: name not in (".", "..")), min_size=1, max_size=3).map(
    lambda parts: "/" + "/".join(parts)
)


@given(paths, st.binary(max_size=20), st.integers(0, 0o7777))
def test_a_file_comes_back_as_it_went_in(path: str, data: bytes, mode: int) -> None:
    *parents, member = unpack(Archive().file(path, data, mode).pack())
    assert member == Member(path[1:], stat.S_IFREG | mode, data, (0, 0))
    assert [parent.name for parent in parents] == list(
        itertools.accumulate(path[1:].split("/")[:-1], lambda a, b: f"{a}/{b}")
    )
    assert all(parent.mode == stat.S_IFDIR | 0o755 for parent in parents)


def test_everything_else_too() -> None:
    archive = Archive().directory("/tmp", 0o1777).symlink("/bin/sh", "busybox")
    archive.character_device("/dev/console", 5, 1)
    found = {member.name: member for member in unpack(archive.pack())}
    assert found["tmp"].mode == stat.S_IFDIR | 0o1777
    assert found["bin/sh"] == Member("bin/sh", stat.S_IFLNK | 0o777, b"busybox", (0, 0))
    assert found["dev/console"] == Member("dev/console", stat.S_IFCHR | 0o600, b"", (5, 1))


def test_archives_can_be_joined() -> None:
    joined = Archive().file("/a", b"1").pack() + Archive().file("/b", b"22").pack()
    assert [(m.name, m.data) for m in unpack(joined)] == [("a", b"1"), ("b", b"22")]


def test_a_directory_that_was_implied_can_still_be_said() -> None:
    archive = Archive().file("/tmp/x", b"").directory("/tmp", 0o1777).file("/tmp/y", b"")
    assert unpack(archive.pack())[0].mode == stat.S_IFDIR | 0o1777


@pytest.mark.parametrize("path", ["relative", "/", "/a/../b", "/a\0b", ""])
def test_paths_that_cannot_be(path: str) -> None:
    with pytest.raises(ValueError, match="absolute path"):
        Archive().file(path, b"")


def test_a_path_is_there_once() -> None:
    with pytest.raises(ValueError, match="already"):
        Archive().file("/a", b"").file("/a", b"")
    with pytest.raises(ValueError, match="already"):
        Archive().file("/a", b"").file("/a/b", b"")


def test_cpio_reads_it(tmp_path: Path) -> None:
    if shutil.which("cpio") is None:
        pytest.skip("no cpio on this machine")
    data = base_archive(b"\x7fELF", b"busy").pack()
    listed = subprocess.run(
        ["cpio", "-t", "--quiet"], input=data, capture_output=True, cwd=tmp_path, check=True
    )
    assert {"init", "dev/console", "bin/sh", "etc/passwd"} <= set(listed.stdout.decode().split())


@dataclass
class FakeToolchain:
    """Says its commands without a sandbox, with the outside of its binds in the environment."""

    name: str = "fake"
    identity: str = "fake"
    versions: Mapping[str, str] = field(default_factory=dict)

    def command(
        self, argv: Sequence[str], *, binds: Sequence[Bind] = (), cwd: str = "/", **_: object
    ) -> Command:
        return Command(tuple(argv), env={bind.target: str(bind.source) for bind in binds})


@pytest.fixture
def tree(fake_tree: Path) -> Path:
    (fake_tree / "tools/include/nolibc").mkdir(parents=True)
    (fake_tree / "tools/include/nolibc/nolibc.h").touch()
    return fake_tree


def writing(name: str, content: bytes) -> object:
    def write(command: Command) -> str:
        (Path(command.env[OUTPUT]) / name).write_bytes(content)
        return ""

    return write


@pytest.mark.parametrize(
    ("arch", "compiler"), [(Arch.X86_64, "gcc"), (Arch.UM, "gcc"), (Arch.ARM64, "clang")]
)
def test_the_agent_is_compiled_in_the_sandbox(
    tree: Path, ctx: Context, runner: FakeRunner, tmp_path: Path, arch: Arch, compiler: str
) -> None:
    runner.answers = [("test -d", ""), ("agent.c", writing("agent", b"built"))]  # type: ignore[list-item]
    built = build_agent(FakeToolchain(), tree, arch, ctx, tmp_path / "init")
    assert built.read_bytes() == b"built"
    argv = runner.ran[-1].argv
    assert argv[0] == compiler
    assert {"-nostdlib", "-static", "-Werror"} <= set(argv)
    assert ("--target=aarch64-linux-gnu" in argv) == (arch is Arch.ARM64)
    assert sorted(tmp_path.glob("tmp*")) == []


def test_headers_of_arm64_are_made_where_no_package_has_them(
    tree: Path, ctx: Context, runner: FakeRunner, tmp_path: Path
) -> None:
    runner.answers = [
        ("test -d", (1, "")),
        ("ARCH=arm64", ""),
        ("agent.c", writing("agent", b"")),  # type: ignore[list-item]
    ]
    build_agent(FakeToolchain(), tree, Arch.ARM64, ctx, tmp_path / "init")
    assert "ARCH=arm64" in runner.ran[1].argv
    assert f"{OUTPUT}/usr/include" in runner.ran[2].argv


def test_a_tree_without_nolibc_is_named(fake_tree: Path, ctx: Context, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nolibc"):
        build_agent(FakeToolchain(), fake_tree, Arch.X86_64, ctx, tmp_path / "init")


def elf(machine: int, interpreter: bool) -> bytes:
    """The head of an ELF program with one segment."""
    ident = b"\x7fELF\2\1\1".ljust(16, b"\0")
    fields = (2, machine, 1, 0, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    sizes = (2, 2, 4, 8, 8, 8, 4, 2, 2, 2, 2, 2, 2)
    head = ident + b"".join(
        value.to_bytes(size, "little") for value, size in zip(fields, sizes, strict=True)
    )
    segment = (
        (3 if interpreter else 1).to_bytes(4, "little") + bytes(4) + (120).to_bytes(8, "little")
    )
    return head + segment.ljust(56, b"\0") + b"/lib/ld.so\0".ljust(64, b"\0")


X86_64, AARCH64 = 62, 183


@pytest.mark.parametrize(
    ("program", "arch", "fits"),
    [
        (elf(X86_64, False), Arch.X86_64, True),
        (elf(X86_64, False), Arch.UM, True),
        (elf(X86_64, False), Arch.ARM64, False),
        (elf(AARCH64, False), Arch.ARM64, True),
        (elf(X86_64, True), Arch.X86_64, False),
        (b"#!/bin/sh\n", Arch.X86_64, False),
    ],
)
def test_only_a_busybox_that_runs_alone_is_taken(
    ctx: Context, runner: FakeRunner, program: bytes, arch: Arch, fits: bool
) -> None:
    runner.answers = [("busybox", writing("busybox", program))]  # type: ignore[list-item]
    assert find_busybox(FakeToolchain(), arch, ctx) == (program if fits else None)


def test_a_toolchain_without_busybox(ctx: Context, runner: FakeRunner) -> None:
    runner.answers = [("busybox", (127, "sh: busybox: not found"))]
    assert find_busybox(FakeToolchain(), Arch.X86_64, ctx) is None


def test_the_whole_is_the_same_every_time(
    tree: Path, ctx: Context, runner: FakeRunner, tmp_path: Path
) -> None:
    runner.answers = [
        ("busybox", writing("busybox", elf(X86_64, False))),  # type: ignore[list-item]
        ("agent.c", writing("agent", b"agent")),  # type: ignore[list-item]
    ]
    one, two = (
        build_initramfs(FakeToolchain(), tree, Arch.X86_64, ctx, tmp_path / name).read_bytes()
        for name in ("one", "two")
    )
    assert one == two
    found = {member.name: member for member in unpack(one)}
    assert found["init"] == Member("init", stat.S_IFREG | 0o755, b"agent", (0, 0))
    assert "bin/busybox" in found
    assert sorted(path.name for path in tmp_path.glob("*.agent")) == []
