"""Single programs for guests of another architecture, unpacked from Debian's packages.

They are no part of a toolchain: they build nothing, so no kernel has to be built again for them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from kdrv.core.context import Context
from kdrv.core.errors import CommandFailed
from kdrv.core.process import Command
from kdrv.core.store import Store, digest
from kdrv.toolchain.debian import SUITE, explained
from kdrv.toolchain.machine_packages import need_host_programs
from kdrv.toolchain.mirror import debian_mirror

KIND = "foreign"
DEADLINE = 600.0


def foreign_program(ctx: Context, package: str, path: str, architecture: str) -> Path:
    """The file ``path`` of a Debian package for ``architecture``, fetched now if it is missing.

    apt checks signatures as for any package. Raises :class:`kdrv.core.errors.SetupError` when the
    mirror cannot be reached.
    """

    def make(data: Path) -> Mapping[str, object]:
        need_host_programs(ctx)
        uri = ctx.mirror or debian_mirror()
        # Nothing of it is run here: unpacking needs neither root nor that architecture.
        mode = "root" if os.geteuid() == 0 else "chrootless"
        options = ("--variant=extract", f"--mode={mode}", f"--architectures={architecture}")
        argv = ("mmdebstrap", *options, f"--include={package}", SUITE, str(data / "root"))
        with ctx.events.step(f"fetching {package} for {architecture}"):
            try:
                ctx.runner.run(Command((*argv, f"deb {uri} {SUITE} main")), deadline=DEADLINE)
            except CommandFailed as error:
                raise explained(error, data, uri, f"{package} for {architecture}") from error
        return {"package": package, "architecture": architecture, "mirror": uri}

    key = digest("foreign-1", SUITE, package, architecture)
    entry = Store(ctx).get(KIND, key, make, waiting=f"{package} for {architecture}")
    return entry.data / "root" / path
