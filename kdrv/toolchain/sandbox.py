"""The sandbox: bubblewrap around every compiler, emulator and makefile.

Patches and drivers are untrusted, and building one runs its makefiles. Inside there is no network,
no home, no environment of the user's, and nothing writable but what was bound so. That holds for
root too, whose programs get no capability: with them they could mount the root anew, writable. And
/proc is read-only, because root's files there are root's inside as well: the name of the program
that the kernel runs for a core dump (/proc/sys/kernel/core_pattern) is one of them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

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
    words += ["--ro-bind", str(root), "/", "--dev", "/dev", "--proc", "/proc"]
    # All of them together leave a quarter of the memory.
    rooms = dict.fromkeys(("/tmp", "/run", "/dev/shm"), physical_memory() // 4)
    for path, room in {**dict.fromkeys(("/sys", *hidden), MIB), **rooms}.items():
        if _can(*_SIZED):
            words += ["--size", str(room)]
        words += ["--tmpfs", path]
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
    # The first process in there is bwrap itself, and everyone can read what environment it has.
    outer = {"PATH": os.environ.get("PATH", os.defpath)}
    return Command(tuple(words), env=outer, clean=True, inside=Inside(tuple(argv), writable))


_NO_NESTING = ("--unshare-user", "--disable-userns")
"""No user namespaces inside, behind which much of the kernel is open to anyone (bwrap 0.8)."""
_SIZED = ("--size", "4096", "--tmpfs", "/tmp")
"""File systems in memory of a size of their own, instead of half the memory each (bwrap 0.7)."""
_PROBE_DEADLINE = 20.0


@cache
def _can(*options: str) -> bool:
    """Whether this machine's bwrap has the options, and can do what they ask."""
    command = Command(("bwrap", "--unshare-all", *options, "--ro-bind", "/", "/", "true"))
    try:
        return LocalRunner().run(command, deadline=_PROBE_DEADLINE, check=False).ok
    except KdrvError:
        return False
