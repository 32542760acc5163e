"""The sandbox: bubblewrap around every compiler, emulator and makefile.

Patches and drivers are untrusted, and building one runs its makefiles. Inside there is no network,
no home, no environment of the user's, and nothing writable but what was bound so. That holds for
root too, whose programs get no capability: with them they could mount the root anew, writable. And
/proc is read-only, because root's files there are root's inside as well: the name of the program
that the kernel runs for a core dump (/proc/sys/kernel/core_pattern) is one of them.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import kdrv
from kdrv.core.errors import KdrvError
from kdrv.core.limits import MIB, physical_memory
from kdrv.core.process import Command, Inside, LocalRunner
from kdrv.toolchain.base import Bind

ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    # Fixed: the same inputs give the same kernel (Documentation/kbuild/reproducible-builds.rst).
    "KBUILD_BUILD_TIMESTAMP": "Thu Jan  1 00:00:00 UTC 1970",
    "KBUILD_BUILD_USER": "kdrv",
    "KBUILD_BUILD_HOST": "kdrv",
    "KBUILD_BUILD_VERSION": "1",
}


def sandboxed(
    argv: Sequence[str],
    *,
    root: Path,
    binds: Sequence[Bind] = (),
    hidden: Sequence[str] = (),
    cwd: str = "/",
    env: Mapping[str, str] | None = None,
    devices: Sequence[str] = (),
) -> Command:
    """A command that runs ``argv`` with ``root`` as its read-only file system.

    ``hidden`` directories of the root appear empty, and so does ``/sys``. ``/tmp``, ``/run`` and
    ``/dev/shm`` are fresh and the only places, apart from writable ``binds``, that can hold much.
    """
    words = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--clearenv"]
    words += ["--cap-drop", "ALL"]
    if _can(*_NO_NESTING):
        words += _NO_NESTING
    words += ["--ro-bind", str(root), "/", "--dev", "/dev"]
    # In a container, or in a sandbox of ours, there may be no other /proc than the one it has.
    words += _NEW_PROC if _can(*_NEW_PROC) else ("--ro-bind", "/proc", "/proc")
    # All of them together leave a quarter of the memory.
    words += _in_memory(dict.fromkeys(("/sys", *hidden), MIB))
    words += _in_memory(dict.fromkeys(("/tmp", "/run", "/dev/shm"), physical_memory() // 4))
    for bind in binds:
        words += ["--bind" if bind.writable else "--ro-bind", str(bind.source), bind.target]
    for device in devices:
        words += ["--dev-bind", device, device]
    # After all that is mounted below them.
    words += ["--remount-ro", "/dev", "--remount-ro", "/proc"]
    for name, value in {**ENVIRONMENT, **(env or {})}.items():
        words += ["--setenv", name, value]
    words += ["--chdir", cwd, "--", *argv]
    writable = tuple(bind.source for bind in binds if bind.writable)
    return Command(tuple(words), env=_outer(), clean=True, inside=Inside(tuple(argv), writable))


def _outer() -> dict[str, str]:
    """The environment of bwrap itself: everyone inside can read it, and the user's PATH tells of
    the user."""
    program = shutil.which("bwrap")
    places = [str(Path(program).parent)] if program else []
    return {"PATH": ":".join(dict.fromkeys((*places, *os.defpath.split(":"))))}


NOBODY = 65534
"""Who owns nothing: the user that root's sandboxed Python becomes."""
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_SYSTEM_FILES = ("alternatives", "group", "ld.so.cache", "localtime", "passwd")
_KVM = "/dev/kvm"


def python_sandboxed(argv: Sequence[str], *, shown: Sequence[Path], writable: Path) -> Command:
    """A command that runs a Python program of ours which makes sandboxes itself.

    It sees the system's programs, itself, what is ``shown`` (read-only, at the same paths) and
    ``writable``, which root must have given to :data:`NOBODY`: user namespaces cannot be made
    where /proc is read-only, and where it is not, nobody can do less there than root.
    """
    words = ["bwrap", "--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"]
    root = os.geteuid() == 0
    if root:
        words += [f"--unshare-{name}" for name in ("ipc", "pid", "net", "uts", "cgroup")]
        words += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        become = f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups --inh-caps=-all --"
        argv = [*become.split(), *argv]
    else:
        words += ["--unshare-all"]
    words += ["--dev", "/dev", "--proc", "/proc", "--dir", "/sys"]
    words += _in_memory(dict.fromkeys(("/tmp", "/run", "/dev/shm"), physical_memory() // 4), "1777")
    places = [*map(Path, _SYSTEM), *(Path("/etc", name) for name in _SYSTEM_FILES)]
    python = [Path(sys.prefix), Path(sys.base_prefix), Path(kdrv.__file__).parent]
    places += [path for path in (*python, *shown) if not path.is_relative_to("/usr")]
    made = {Path(name) for name in ("/dev", "/tmp", "/run")}
    for place in (*places, writable):
        if not place.exists():
            continue
        for parent in reversed(place.parents[:-1]):
            if parent not in made:
                words += ["--perms", "0755", "--dir", str(parent)]
            made.add(parent)
        words += ["--bind" if place == writable else "--ro-bind", str(place), str(place)]
        made.add(place)
    if os.access(_KVM, os.R_OK | os.W_OK) and not root:
        words += ["--dev-bind", _KVM, _KVM]
    words += ["--remount-ro", "/dev", "--remount-ro", "/"]
    package = str(Path(kdrv.__file__).parents[1])
    inner = {**ENVIRONMENT, "PYTHONPATH": package, "PYTHONDONTWRITEBYTECODE": "1"}
    for name, value in inner.items():
        words += ["--setenv", name, value]
    words += ["--chdir", "/tmp", "--", *argv]
    inside = Inside(tuple(argv), (writable,))
    return Command(tuple(words), env=_outer(), clean=True, inside=inside)


def _in_memory(rooms: Mapping[str, int], mode: str = "") -> list[str]:
    """File systems in memory, each of a size."""
    words = []
    for path, room in rooms.items():
        words += ["--size", str(room)] if _can(*_SIZED) else []
        words += ["--perms", mode] if mode else []
        words += ["--tmpfs", path]
    return words


_NEW_PROC = ("--proc", "/proc")
_NO_NESTING = ("--unshare-user", "--disable-userns")
"""No user namespaces inside, behind which much of the kernel is open to anyone (bwrap 0.8)."""
_SIZED = ("--size", "4096", "--tmpfs", "/tmp")
"""File systems in memory of a size of their own, instead of half the memory each (bwrap 0.7)."""
_PROBE_DEADLINE = 20.0


def _can(*options: str) -> bool:
    """Whether this machine's bwrap has the options, and can do what they ask.

    Most can all that is ever asked, and are asked once.
    """
    return _works(*_NO_NESTING, *_NEW_PROC, *_SIZED) or _works(*options)


@cache
def _works(*options: str) -> bool:
    command = Command(("bwrap", "--unshare-all", *options, "--ro-bind", "/", "/", "true"))
    try:
        return LocalRunner().run(command, deadline=_PROBE_DEADLINE, check=False).ok
    except KdrvError:
        return False
