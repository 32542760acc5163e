"""Hostile scripts in the real sandbox: each gets its verdict, and nothing is harmed."""

from __future__ import annotations

import shutil
import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kdrv.build.api import Workbench
from kdrv.core.errors import CommandFailed, DeadlineExceeded
from kdrv.core.inside import UntrustedFile, read_text_inside
from kdrv.core.limits import MIB, LimitExceeded, Limits
from kdrv.core.process import Completed, LocalRunner
from kdrv.core.show import clean
from kdrv.toolchain.base import OUTPUT, SOURCE, Bind

pytestmark = pytest.mark.real

SMALL = Limits(
    processes=100,
    memory=300 * MIB,
    disk=50 * MIB,
    file_size=30 * MIB,
    output=4 * MIB,
    niceness=10,
)
KEPT = "what the host has\n"
Hostile = Callable[..., Completed]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A tree that the sandbox sees read-only."""
    place = tmp_path / "source"
    place.mkdir()
    (place / "file").write_text(KEPT)
    (place / "file").chmod(0o600)
    return place


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The only directory of the host that the sandbox can write."""
    place = tmp_path / "out"
    place.mkdir()
    return place


@pytest.fixture
def hostile(bench: Workbench, source: Path, out: Path) -> Iterator[Hostile]:
    """Runs a script like a makefile of a patch; no process of it is left in the end."""
    mark = f"kdrv-{uuid.uuid4().hex}"

    def run(script: str, *, deadline: float = 60, env: dict[str, str] | None = None) -> Completed:
        binds = [Bind(source, SOURCE), Bind(out, OUTPUT, writable=True)]
        command = bench.toolchain.command(
            ["sh", "-c", script], binds=binds, cwd=OUTPUT, env={"MARK": mark, **(env or {})}
        )
        try:
            return LocalRunner().run(command, deadline=deadline, limits=SMALL)
        finally:
            assert _running(mark) == []

    yield run
    assert (source / "file").read_text() == KEPT
    assert (source / "file").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in source.iterdir()] == ["file"]


def _running(mark: str) -> list[str]:
    """Processes that have the mark in their environment; a dead one has none."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (place / "environ").read_bytes():
                found.append((place / "comm").read_text())
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    "script",
    [
        f"echo x > {SOURCE}/file",
        f"echo x > {SOURCE}/new",
        f"rm -f {SOURCE}/file",
        f"chmod 777 {SOURCE}/file",
        f"ln -s {SOURCE}/file here && echo x > here",
        f"ln {SOURCE}/file here && echo x > here",
        f"mount -o remount,bind,rw {SOURCE} && echo x > {SOURCE}/file",
        f"umount {SOURCE}",
        "mount -t proc proc /tmp",
        "mknod disk b 254 0",
        "echo x > /etc/kdrv-was-here",
        "echo x > /usr/kdrv-was-here",
        "echo x > /dev/kdrv-was-here",
        "cat /proc/sys/kernel/core_pattern > /proc/sys/kernel/core_pattern",
        "cat /proc/sys/kernel/hostname > /proc/sys/kernel/hostname",
        "unshare --user --map-root-user true",
        "chroot / true",
        "test -e /home/* || test -e /root/.* || test -e /sys/kernel",
    ],
)
def test_there_is_no_way_to_write_outside(hostile: Hostile, bench: Workbench, script: str) -> None:
    with pytest.raises(CommandFailed, match="sh ended with status"):
        hostile(script)
    root = getattr(bench.toolchain, "root", Path("/"))
    assert list(root.glob("*/kdrv-was-here")) == []


def test_nobody_has_power_over_the_kernel(hostile: Hostile) -> None:
    output = hostile("cat /proc/self/status").output
    facts = dict(line.split(":", 1) for line in output.splitlines())
    assert {int(facts[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}
    assert facts["NoNewPrivs"].strip() == "1"


def test_the_sandbox_knows_nothing_of_the_user(
    hostile: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    output = hostile("env; cat /proc/*/environ | tr '\\0' '\\n'; cat /proc/[0-9]*/comm").output
    assert "hunter2" not in output
    assert "python" not in output and "pytest" not in output


CONNECT = """
use Socket;
socket(my $s, PF_INET, SOCK_STREAM, 0) or exit 9;
connect($s, pack_sockaddr_in($ENV{PORT}, inet_aton("127.0.0.1"))) and print "connected\\n";
connect($s, pack_sockaddr_in(80, pack("C4", 192, 0, 2, 1))) and print "connected\\n";
socket(my $u, PF_UNIX, SOCK_STREAM, 0) or exit 9;
connect($u, pack_sockaddr_un($ENV{NAME})) and print "connected\\n";
connect($u, pack_sockaddr_un("\\0" . $ENV{NAME})) and print "connected\\n";
print "tried\\n";
"""


def test_no_socket_reaches_anything(hostile: Hostile, tmp_path: Path) -> None:
    name = str(tmp_path / "listens")
    with (
        socket.create_server(("127.0.0.1", 0)) as internet,
        socket.socket(socket.AF_UNIX) as local,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        local.bind(name)
        abstract.bind(f"\0{name}")
        local.listen()
        abstract.listen()
        env = {"PORT": str(internet.getsockname()[1]), "NAME": name, "PERL": CONNECT}
        assert hostile('perl -e "$PERL"', env=env).output == "tried\n"
        for listener in (internet, local, abstract):
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                listener.accept()


def test_no_name_is_found(hostile: Hostile) -> None:
    with pytest.raises(CommandFailed):
        hostile("getent hosts kernel.org")


@pytest.mark.parametrize(
    ("what", "script"),
    [
        ("processes", "bomb() { bomb | bomb & }; bomb; sleep 600"),
        ("processes", "bomb() { setsid sh -c 'sleep 600' & bomb; }; bomb"),
        ("processes", "trap '' TERM HUP INT; while :; do sleep 600 & done"),
        ("memory", "exec tail /dev/zero"),
        ("memory", "for i in 1 2 3; do perl -e '$x = q(x) x 120000000; sleep 600' & done; wait"),
        ("disk", "while :; do i=$((i + 1)); head -c 20000000 /dev/zero > $i || exit; done"),
        ("disk", "while :; do i=$((i + 1)); : > $i; done"),
        (
            "disk",  # files without names
            'for i in 3 4 5 6 7 8; do eval "exec $i> f; head -c 20000000 /dev/zero >&$i";'
            " rm f; done; sleep 600",
        ),
        ("file_size", "exec head -c 60000000 /dev/zero > big"),
        ("output", "exec yes"),
        ("output", "exec cat /dev/zero"),
        ("output", "while :; do echo no end; done >&2"),
    ],
)
def test_whoever_takes_too_much_is_ended(
    hostile: Hostile, out: Path, what: str, script: str
) -> None:
    with pytest.raises(LimitExceeded) as caught:
        hostile(script)
    assert caught.value.what == what
    assert "bwrap" in caught.value.reproducer
    shutil.rmtree(out)


def test_memory_that_is_a_file_has_an_end(hostile: Hostile) -> None:
    """A file of /tmp and /dev/shm can be no larger than any other."""
    for place in ("/tmp", "/run", "/dev/shm"):
        with pytest.raises(LimitExceeded, match="wrote a file of more than"):
            hostile(f"exec head -c 60000000 /dev/zero > {place}/file")


def test_what_never_ends_is_ended(hostile: Hostile) -> None:
    with pytest.raises(DeadlineExceeded, match="sh did not finish within 2 s") as caught:
        hostile("echo begun; trap '' TERM; while :; do sleep 600; done", deadline=2)
    assert caught.value.detail == ("begun",)


def test_a_daemon_ends_with_the_command(hostile: Hostile) -> None:
    daemon = "setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 600; done'"
    assert hostile(f"{daemon} < /dev/null > /dev/null 2>&1 & sleep 0.2; echo done").ok
    assert hostile(f"{daemon} & sleep 0.2; echo done").output == "done\n"


def test_what_is_printed_does_nothing_to_a_terminal(hostile: Hostile) -> None:
    script = r"printf '\033]0;owned\007\033[2Jfine\r\033[1A\302\233 31m\n\342\200\256x\n'; exit 1"
    with pytest.raises(CommandFailed) as caught:
        hostile(script)
    shown = "\n".join(caught.value.detail)
    assert shown == clean(shown)
    assert "fine" in shown and "\x1b" not in shown and "owned" not in shown


@pytest.mark.parametrize(
    "script",
    [
        "ln -s /etc/passwd log",
        f"ln -s {SOURCE}/file log",
        "ln -s ../source/file log",
        "mkdir a; ln -s ../../source a/b; ln -s a/b/file log",
        "mkfifo log",
        "ln -s /dev/zero log",
        "ln -s log log",
        "mkdir log",
        "head -c 2000 /dev/zero > log",
        "truncate -s 20M log",
    ],
)
def test_what_is_left_for_the_host_to_read(hostile: Hostile, out: Path, script: str) -> None:
    hostile(script)
    with pytest.raises((UntrustedFile, FileNotFoundError)) as caught:
        read_text_inside(out, Path("log"), 1000)
    # A link to a path of the sandbox leads to what the host does not have.
    assert isinstance(caught.value, UntrustedFile) or (
        (out / "log").readlink().is_relative_to(SOURCE)
    )
