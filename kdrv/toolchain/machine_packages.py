"""Packages that kdrv wants from the machine itself: root gets them installed, others are told how.

Several kdrv may want them at once, and other programs use apt as well: whoever comes second waits.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import time
from collections.abc import Mapping

from kdrv.core.context import Context
from kdrv.core.errors import CommandFailed, DeadlineExceeded, SetupError
from kdrv.core.process import Command
from kdrv.core.store import Store

SANDBOX_PROGRAMS = {"bwrap": "bubblewrap"}
HOST_PROGRAMS = {"mmdebstrap": "mmdebstrap", **SANDBOX_PROGRAMS}
APT_DEADLINE = 600.0
PAUSE = 1.0
"""Seconds between two questions whether apt is free."""
_HELD = re.compile(r"Could not get lock (\S+?)\.? ")


def need_host_programs(ctx: Context, programs: Mapping[str, str] = HOST_PROGRAMS) -> None:
    """Have mmdebstrap and bubblewrap on the machine.

    ``programs`` maps those that are needed to their packages. Raises :class:`SetupError` with the
    command that installs them for whoever is not root, :class:`DeadlineExceeded` when another
    program keeps apt to itself.
    """
    missing = _missing(programs)
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise SetupError(
            f"{' and '.join(missing)} not installed",
            expected="mmdebstrap makes the toolchain's root, bubblewrap enters it",
            remedy="sudo " + shlex.join(_install(missing)),
        )
    with Store(ctx).lock("apt", "machine", waiting=f"{' and '.join(missing)} ready"):
        missing = _missing(programs)
        if not missing:
            return
        with ctx.events.step(f"installing {' and '.join(missing)} with apt-get"):
            for argv in (["apt-get", "update", "-q"], _install(missing)):
                _apt(ctx, Command(tuple(argv), env={"DEBIAN_FRONTEND": "noninteractive"}))


def _missing(programs: Mapping[str, str]) -> list[str]:
    missing = [package for program, package in programs.items() if not shutil.which(program)]
    if "mmdebstrap" in programs and os.geteuid() != 0 and not shutil.which("newuidmap"):
        missing.append("uidmap")
    return missing


def _install(packages: list[str]) -> list[str]:
    return ["apt-get", "install", "-y", "--no-install-recommends", *packages]


def _apt(ctx: Context, command: Command) -> None:
    """Run apt-get as soon as no other program uses apt."""
    began, told = time.monotonic(), False
    while True:
        try:
            ctx.runner.run(command, deadline=APT_DEADLINE)
        except CommandFailed as error:
            held = _HELD.search("\n".join(error.detail))
            if not held:
                raise
            if time.monotonic() - began > APT_DEADLINE:
                raise DeadlineExceeded(
                    f"another program has held {held[1]} for {APT_DEADLINE / 60:.0f} minutes",
                    remedy=f"see which: fuser -v {held[1]}",
                    detail=error.detail,
                    reproducer=error.reproducer,
                ) from error
        else:
            return
        if not told:
            ctx.events.note(f"waiting for another program to release {held[1]}")
            told = True
        time.sleep(PAUSE)
