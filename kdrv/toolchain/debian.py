"""Provider ``debian``: a Debian 13 + backports root, made by mmdebstrap, entered by bubblewrap.

The same compilers on every machine, old or new, for root and for an ordinary user.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdrv.core.context import Context
from kdrv.core.errors import CommandFailed, SetupError
from kdrv.core.process import Command
from kdrv.core.space import require_space
from kdrv.core.store import Entry, Store, digest
from kdrv.toolchain.base import Bind
from kdrv.toolchain.machine_packages import need_host_programs
from kdrv.toolchain.mirror import debian_mirror
from kdrv.toolchain.sandbox import ENVIRONMENT, sandboxed

KIND = "toolchain"
SUITE = "trixie"
BACKPORTS = "trixie-backports"
PACKAGES = (
    # what Documentation/process/changes.rst asks for
    "gcc make flex bison bc perl python3-minimal cpio kmod rsync xz-utils zstd lz4 "
    "libelf-dev libssl-dev libc6-dev pahole ccache git diffutils patch "
    # LLVM=1, and bindgen's libclang
    "clang lld llvm libclang-dev "
    # CONFIG_RUST (Documentation/rust/quick-start.rst)
    "rustc rust-src rustfmt rust-clippy bindgen "
    # checks, and what the guests and their firmware tables are made of
    "sparse codespell busybox-static acpica-tools device-tree-compiler"
).split()
PACKAGES_BACKPORTS = ("qemu-system-x86", "qemu-system-arm", "seabios")
RECORDED = (
    "gcc",
    "clang",
    "lld",
    "rustc",
    "bindgen",
    "libclang-dev",
    "pahole",
    "binutils",
    "make",
    "ccache",
    "qemu-system-x86",
    "qemu-system-arm",
)
PROVISION_DEADLINE = 1800.0
SPACE_GIB = 3.0


@dataclass(frozen=True)
class DebianToolchain:
    """A provisioned root; see :class:`kdrv.toolchain.base.Toolchain`."""

    root: Path
    identity: str
    versions: Mapping[str, str]
    name: str = "debian"
    path: str = ENVIRONMENT["PATH"]

    def command(
        self,
        argv: Sequence[str],
        *,
        binds: Sequence[Bind] = (),
        cwd: str = "/",
        env: Mapping[str, str] | None = None,
        devices: Sequence[str] = (),
    ) -> Command:
        """See :meth:`kdrv.toolchain.base.Toolchain.command`."""
        return sandboxed(argv, root=self.root, binds=binds, cwd=cwd, env=env, devices=devices)


def recipe_key() -> str:
    """The key of the root: what it is made from, not from which mirror."""
    return digest("debian-root-1", SUITE, BACKPORTS, PACKAGES, PACKAGES_BACKPORTS)


def find(ctx: Context) -> DebianToolchain | None:
    """The root if it is there already."""
    entry = Store(ctx).find(KIND, recipe_key())
    return _toolchain(entry) if entry else None


def provision(ctx: Context) -> DebianToolchain:
    """The root, made now if it is missing (about a minute, 2.5 GB).

    Raises :class:`SetupError` when mmdebstrap is missing or the mirror cannot be reached.
    """
    if ready := find(ctx):
        return ready

    def make(data: Path) -> Mapping[str, object]:
        require_space(data, SPACE_GIB, "the toolchain's root")
        need_host_programs(ctx)
        uri = ctx.mirror or debian_mirror()
        root = data / "root"
        command = _mmdebstrap(root, uri)
        label = f"making the Debian {SUITE} toolchain root (about a minute, 2.5 GB)"
        with ctx.events.step(label) as step:
            lines = 0

            def heard(line: str) -> None:
                nonlocal lines
                lines += 1
                step.progress(lines, 0, line.removeprefix("I: "))

            try:
                ctx.runner.run(command, deadline=PROVISION_DEADLINE, on_line=heard)
            except CommandFailed as error:
                raise explained(error, data, uri, "the toolchain's root") from error
        return {"packages": _installed(ctx, root), "mirror": uri}

    return _toolchain(Store(ctx).get(KIND, recipe_key(), make, waiting="the toolchain root"))


def _mmdebstrap(root: Path, uri: str) -> Command:
    backports = shlex.join(PACKAGES_BACKPORTS)
    options = [
        "mmdebstrap",
        "--variant=minbase",
        "--include=apt,ca-certificates," + ",".join(PACKAGES),
        "--dpkgopt=force-unsafe-io",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "--dpkgopt=path-exclude=/usr/share/info/*",
        '--aptopt=Acquire::Retries "3"',
        '--aptopt=Apt::Install-Recommends "false"',
        '--customize-hook=chroot "$1" apt-get install -y --no-install-recommends'
        f" -t {BACKPORTS} {backports}",
    ]
    archives = [f"deb {uri} {suite} main" for suite in (SUITE, BACKPORTS)]
    if os.geteuid() == 0:
        return Command((*options, "--mode=root", SUITE, str(root), *archives))
    # As a tar archive, unpacked by ourselves, the root belongs to the user and not to the ids of
    # /etc/subuid: it can then be deleted like any other directory.
    make = shlex.join([*options, "--mode=unshare", "--format=tar", SUITE, "-", *archives])
    unpack = f"tar -x --exclude='./dev/*' -C {shlex.quote(str(root))}"
    script = f"set -o pipefail; mkdir -p {shlex.quote(str(root))}; {make} | {unpack}"
    return Command(("bash", "-c", script))


def _installed(ctx: Context, root: Path) -> dict[str, str]:
    query = ["dpkg-query", "-W", "-f", "${Package} ${Version}\n"]
    output = ctx.runner.run(sandboxed(query, root=root), deadline=60).output
    return dict(line.split(" ", 1) for line in output.splitlines() if " " in line)


def _toolchain(entry: Entry) -> DebianToolchain:
    packages: Mapping[str, str] = entry.facts["packages"]
    versions = {name: packages[name] for name in RECORDED if name in packages}
    return DebianToolchain(entry.data / "root", digest(packages), versions)


def explained(error: CommandFailed, data: Path, uri: str, what: str) -> SetupError:
    """Say which of the usual reasons kept mmdebstrap from making ``what``."""
    text = "\n".join(error.detail).lower()
    if "no space left" in text or shutil.disk_usage(data).free < 1 << 28:
        return SetupError(
            f"the disk of {data} is full",
            expected=f"room for {what}: 12 GB are enough for everything",
            remedy="kdrv cache prune, or set XDG_CACHE_HOME to a larger disk",
            reproducer=error.reproducer,
        )
    if any(word in text for word in ("could not resolve", "could not connect", "unreachable")):
        return SetupError(
            f"the Debian mirror {uri} cannot be reached",
            expected="the mirror of this machine's apt configuration, over the network",
            remedy="check with: apt-get update; or use the machine's own tools: --toolchain host",
            detail=error.detail,
            reproducer=error.reproducer,
        )
    if "subuid" in text or "newuidmap" in text or "unshare" in text:
        return SetupError(
            "mmdebstrap cannot make a root as an ordinary user here",
            expected="a range of ids in /etc/subuid and /etc/subgid, and package uidmap",
            remedy="sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER",
            detail=error.detail,
            reproducer=error.reproducer,
        )
    return SetupError(
        f"mmdebstrap could not make {what}",
        remedy="kdrv doctor",
        detail=error.detail,
        reproducer=error.reproducer,
    )
