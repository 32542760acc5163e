"""Watching a sandbox, so that it keeps its limits, and ending all of it.

A thread looks four times a second, with a few reads of /proc; beyond a limit it kills the first
process of the sandbox's PID namespace, and with it all of them (pid_namespaces(7)). psutil would
look at every process of the machine each time; the sandbox's own /proc, seen from outside, holds
only what counts.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

from kdrv.core.errors import KdrvError, SetupError
from kdrv.core.limits import PAGE, LimitExceeded, Limits
from kdrv.core.show import size

INTERVAL = 0.25
STARTING = 0.005
"""Seconds between two looks: at a running sandbox, and at one whose namespace is not there yet."""
BLIND_SECONDS = 20.0
"""How long a sandbox may be without a namespace that can be looked into."""
STOPPING_SECONDS = 5.0
ENDING_SECONDS = 60.0
"""How long a process may take to stop, and the memory of killed ones to be given back."""
INODE = 4096
"""What a file counts for on the disk besides its content: also files of no bytes fill a disk."""


class Watch:
    """Watches one sandboxed command from its start to the end of its last process.

    ``writable`` are the host's directories that the sandbox may write. ``verdict`` is why the
    sandbox was killed, once it was.
    """

    def __init__(
        self,
        child: subprocess.Popen[bytes],
        limits: Limits,
        *,
        program: str,
        writable: Iterable[Path] = (),
    ) -> None:
        self.verdict: KdrvError | None = None
        self._child = child
        self._limits = limits
        self._program = program
        self._namespace: _Namespace | None = None
        self._yielding = False
        # bwrap has its own words for a place that is missing.
        self._disks = [_Disk(place, limits) for place in writable if place.exists()]
        self._over = threading.Event()
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._watch, name="kdrv-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End watching, and wait until all of the sandbox's processes are gone."""
        self._over.set()
        self._thread.join()
        if self._namespace:
            self._namespace.close()

    def _watch(self) -> None:
        _hurry(threading.get_native_id())
        while not self._over.wait(INTERVAL if self._namespace else STARTING):
            try:
                self._look()
            except KdrvError as verdict:
                self.verdict = verdict
            except OSError as error:
                self.verdict = SetupError(f"cannot watch {self._program}: {error}")
            if self.verdict:
                kill_sandbox(self._child)
                return

    def _look(self) -> None:
        for disk in self._disks:
            disk.look(self._program, self._namespace)
        if not self._namespace:
            self._namespace = _find(self._child.pid)
        if self._namespace:
            self._yielding = self._yielding or self._namespace.make_nice(self._limits.niceness)
            self._count(self._namespace)
        elif time.monotonic() - self._began > BLIND_SECONDS:
            raise SetupError(
                f"cannot look into the sandbox of {self._program}, so its limits cannot be kept",
                expected="a kernel with CONFIG_PROC_CHILDREN, and /proc as it is by default",
            )
        free = _available()
        if free < self._limits.spare_memory:
            raise LimitExceeded(
                f"the machine had {size(free)} of memory left while {self._program} ran",
                expected=f"{size(self._limits.spare_memory)} must stay free",
                what="spare_memory",
            )

    def _count(self, namespace: _Namespace) -> None:
        processes, memory = namespace.usage(self._limits.processes)
        if processes > self._limits.processes:
            raise LimitExceeded(
                f"{self._program} ran more than {self._limits.processes} processes at once",
                what="processes",
            )
        if memory > self._limits.memory:
            raise LimitExceeded(
                f"{self._program} took more than {size(self._limits.memory)} of memory",
                what="memory",
            )


def kill_sandbox(child: subprocess.Popen[bytes]) -> None:
    """Kill bwrap and its sandbox; returns when all processes are gone."""
    first = _kill_children(child.pid)
    # The first process of the sandbox dies with bwrap, but only from late in its start on: before
    # that a killed bwrap would leave it behind. So bwrap is stopped, and has no more children then
    # than those that are listed.
    child.send_signal(signal.SIGSTOP)
    with contextlib.suppress(OSError), _opened(f"/proc/{child.pid}") as process:
        _wait_for(process, b"TZ", STOPPING_SECONDS)
    first += _kill_children(child.pid)
    child.kill()
    for process in first:
        _wait_for(process, b"Z", ENDING_SECONDS)
        os.close(process)


def _kill_children(parent: int) -> list[int]:
    """Kill the children of a process; their ``/proc/PID``, which never mean another later."""
    killed = []
    with contextlib.suppress(OSError):
        for pid in _children(parent):
            with contextlib.suppress(OSError):
                killed.append(os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY))
                # Its end is the end of all others.
                _hurry(pid)
                os.kill(pid, signal.SIGKILL)
    return killed


def _hurry(thread: int) -> None:
    """Let a thread have the processor before ten thousand others that want it.

    Only root may, and only root's processes can be so many: others have RLIMIT_NPROC.
    """
    with contextlib.suppress(OSError):
        os.sched_setscheduler(thread, os.SCHED_RR, os.sched_param(1))


class _Namespace:
    """The PID namespace of a sandbox: its first process, and its own /proc seen from outside."""

    def __init__(self, pid: int) -> None:
        """Raises OSError while the namespace is not ready."""
        self._pid = pid
        with contextlib.ExitStack() as stack:
            self._first = stack.enter_context(_opened(f"/proc/{pid}"))
            self._proc = stack.enter_context(_opened("root/proc", self._first))
            if os.fstat(self._proc).st_dev == Path("/proc").stat().st_dev:
                raise FileNotFoundError(f"{pid} still has the host's /proc")
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Wait until the last process is gone."""
        _wait_for(self._first, b"Z", ENDING_SECONDS)
        self._stack.close()

    def make_nice(self, niceness: int) -> bool:
        """Give the sandbox's session its niceness among the machine's; whether that is settled.

        Sessions are scheduled as groups, and what nice(1) says counts only within one (sched(7),
        "The autogroup feature"). A process that makes another session gets out of it.
        """
        stat = _stat("stat", self._first)
        if not stat or int(stat[3]) != self._pid:
            return False  # bwrap has not made its session yet
        try:
            group = os.open("autogroup", os.O_WRONLY, dir_fd=self._first)
        except OSError:
            return True  # a kernel without the feature
        try:
            os.write(group, str(niceness).encode())
        except BlockingIOError:
            return False  # at most ten times a second, all sandboxes of a user together
        except OSError:
            return True
        finally:
            os.close(group)
        return True

    def usage(self, most: int) -> tuple[int, int]:
        """Threads, and bytes of memory, of all processes; only that there are more, if so."""
        threads = pages = 0
        pids = self._pids(most + 1)
        if len(pids) > most:
            return len(pids), 0
        for pid in pids:
            if stat := _stat(f"{pid}/stat", self._proc):
                threads += int(stat[17])
                pages += int(stat[21])
        return threads, pages * PAGE

    def unlinked(self, device: int) -> int:
        """Bytes in files that have no name any more but are open: no directory shows them."""
        found: dict[int, int] = {}
        for pid in self._pids():
            with contextlib.suppress(OSError), _opened(f"{pid}/fd", self._proc) as folder:
                for name in os.listdir(folder):  # noqa: PTH208
                    with contextlib.suppress(OSError):
                        file = os.stat(name, dir_fd=folder)
                        if file.st_dev == device and file.st_nlink == 0:
                            found[file.st_ino] = file.st_blocks * 512
        return sum(found.values())

    def _pids(self, most: int | None = None) -> list[str]:
        try:
            with os.scandir(self._proc) as entries:
                return list(islice((e.name for e in entries if e.name.isdigit()), most))
        except OSError:
            return []


@contextlib.contextmanager
def _opened(path: str, folder: int | None = None) -> Iterator[int]:
    """A directory's descriptor."""
    opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
    try:
        yield opened
    finally:
        os.close(opened)


def _wait_for(process: int, states: bytes, seconds: float) -> None:
    """Wait until the process of a ``/proc/PID`` has one of the states, or is gone.

    The first of a PID namespace is dead (``Z``) only when all others of it are gone
    (kernel/pid_namespace.c: zap_pid_ns_processes).
    """
    until = time.monotonic() + seconds
    while (stat := _stat("stat", process)) and stat[0] not in states:
        if time.monotonic() > until:
            return
        time.sleep(0.001)


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _stat(path: str, folder: int) -> list[bytes] | None:
    """The fields of a ``/proc/PID/stat`` from the third on (proc_pid_stat(5)), or None: gone."""
    try:
        opened = os.open(path, os.O_RDONLY, dir_fd=folder)
    except OSError:
        return None
    try:
        # The second field is a name in parentheses, and may hold any character itself.
        return os.read(opened, 4096).rpartition(b")")[2].split()
    except OSError:
        return None
    finally:
        os.close(opened)


def _find(parent: int) -> _Namespace | None:
    """The namespace whose first process is the only child of bwrap, once it is ready."""
    with contextlib.suppress(OSError):
        for child in _children(parent):
            return _Namespace(child)
    return None


def _available() -> int:
    """Bytes of memory that can still be had, swap included (Documentation/filesystems/proc.rst)."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    facts = dict(line.split(":", 1) for line in lines)
    return sum(int(facts[name].split()[0]) * 1024 for name in ("MemAvailable", "SwapFree"))


class _Disk:
    """What one writable directory takes of its disk.

    How full the disk is, is known at once; how large the directory is, only after a walk. So it is
    walked only when the disk has lost as much as the directory may take, to whomever.
    """

    def __init__(self, place: Path, limits: Limits) -> None:
        self._place = place
        self._limits = limits
        self._most = self._room()

    def _room(self) -> int:
        """Bytes that are free, files that could be made included."""
        facts = os.statvfs(self._place)
        return facts.f_bavail * facts.f_frsize + facts.f_favail * INODE

    def look(self, program: str, namespace: _Namespace | None) -> None:
        """Raise :class:`LimitExceeded` when ``program`` takes too much."""
        self._look_spare(program)
        room = self._room()
        self._most = max(self._most, room)
        if self._most - room <= self._limits.disk:
            return
        unlinked = namespace.unlinked(self._place.stat().st_dev) if namespace else 0
        used = 0
        for number, more in enumerate(chain([unlinked], _sizes(self._place))):
            used += more
            if used > self._limits.disk:
                raise LimitExceeded(
                    f"{program} wrote more than {size(self._limits.disk)} to {self._place}",
                    what="disk",
                )
            if number % 4096 == 0:
                self._look_spare(program)
        # So that the next walk is due when what is missing to the limit is taken.
        self._most = room + used

    def _look_spare(self, program: str) -> None:
        facts = os.statvfs(self._place)
        # Where f_files is 0, files are not counted (btrfs).
        spare = min(self._limits.spare_disk, facts.f_blocks * facts.f_frsize // 20)
        files = facts.f_favail * INODE if facts.f_files else spare
        free = min(facts.f_bavail * facts.f_frsize, files)
        if free < spare:
            raise LimitExceeded(
                f"the disk of {self._place} had {size(free)} left while {program} ran",
                expected=f"{size(spare)} must stay free",
                remedy="kdrv cache prune",
                what="spare_disk",
            )


def _sizes(place: Path) -> Iterator[int]:
    """Bytes on the disk of everything below a directory, one by one.

    A directory that cannot be read, or lies too deep to be named, counts for as much as there is.
    """
    folders = [str(place)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        yield entry.stat(follow_symlinks=False).st_blocks * 512 + INODE
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            yield 1 << 62
