"""The sandbox: bubblewrap around every compiler, emulator and makefile.

Patches and drivers are untrusted, and building one runs its makefiles. Inside there is no network,
no home, no environment of the user's, and nothing writable but what was bound so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from kdrv.core.process import Command
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

    ``hidden`` directories of the root appear empty. ``/tmp`` and ``/run`` are fresh and the only
    places, apart from writable ``binds``, that can be written.
    """
    words = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--clearenv"]
    words += ["--ro-bind", str(root), "/", "--dev", "/dev", "--proc", "/proc"]
    for path in ("/tmp", "/run", *hidden):
        words += ["--tmpfs", path]
    for bind in binds:
        words += ["--bind" if bind.writable else "--ro-bind", str(bind.source), bind.target]
    for device in devices:
        words += ["--dev-bind", device, device]
    for name, value in {**ENVIRONMENT, **(env or {})}.items():
        words += ["--setenv", name, value]
    words += ["--chdir", cwd, "--", *argv]
    return Command(tuple(words))
