"""What the machine itself must give: sandbox, disk, KVM, and the means to make a Debian root."""

from __future__ import annotations

import os
import pwd
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from kdrv.core.errors import KdrvError
from kdrv.core.process import Command, Runner
from kdrv.core.show import size
from kdrv.toolchain.debian import SUITE
from kdrv.toolchain.doctor_finding import Finding, State
from kdrv.toolchain.doctor_remedy import install
from kdrv.toolchain.mirror import debian_mirror
from kdrv.toolchain.sandbox import sandboxed

FULL_SET = 12_000_000_000
"""Bytes of a full cache: the root, two kernel series, lanes of three architectures."""
SMALLEST_SET = 4_000_000_000
"""Bytes of the least one can work with: the root, one tree, one lane."""
SUBIDS = 65536
SUBID_FILES = (Path("/etc/subuid"), Path("/etc/subgid"))
KVM = Path("/dev/kvm")
APT_HELPER = "/usr/lib/apt/apt-helper"
_DEADLINE = 20.0


class KvmAnswer(Protocol):
    """Whether a guest really ran under KVM, and in words why not."""

    @property
    def works(self) -> bool: ...  # noqa: D102

    @property
    def reason(self) -> str: ...  # noqa: D102


KvmProbe = Callable[[], KvmAnswer]
"""Boots something under KVM, with a deadline."""


def bubblewrap(runner: Runner) -> Finding:
    """Whether bubblewrap makes a sandbox here, tried out: distributions restrict it variously."""
    needed = "unprivileged user namespaces" if os.geteuid() else "namespaces"
    if not shutil.which("bwrap"):
        return Finding("sandbox", "", "bubblewrap", State.MISSING, install("bubblewrap"))
    try:
        done = runner.run(sandboxed(["true"], root=Path("/")), deadline=_DEADLINE, check=False)
    except KdrvError as error:
        return Finding("sandbox", error.message, needed, State.MISSING)
    if done.ok:
        return Finding("sandbox", "bubblewrap works", needed, State.OK)
    said = next(iter(done.tail(1)), "bwrap fails")
    return Finding("sandbox", said, needed, State.MISSING, namespace_remedy())


def namespace_remedy(proc: Path = Path("/proc/sys")) -> str:
    """The switch of this kernel that keeps users from making namespaces."""
    for name, bad, good in (
        ("kernel/unprivileged_userns_clone", "0", "1"),  # Debian
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),  # Ubuntu
        ("user/max_user_namespaces", "0", "15000"),
    ):
        try:
            value = (proc / name).read_text().strip()
        except OSError:
            continue
        if value == bad:
            return f"sudo sysctl -w {name.replace('/', '.')}={good}"
    return (
        "run kdrv where namespaces are allowed: a container needs --security-opt seccomp=unconfined"
    )


def disk(cache: Path) -> Finding:
    """Free space where the cache is, or will be. What the cache holds already counts as had."""
    place = next(path for path in (cache, *cache.parents) if path.exists())
    if not os.access(place, os.W_OK):
        remedy = "set XDG_CACHE_HOME to a directory of your own"
        return Finding("cache", f"{place} is not writable", str(cache), State.MISSING, remedy)
    free = shutil.disk_usage(place).free
    needed = f"{size(FULL_SET)} for everything, {size(SMALLEST_SET)} at least"
    found = f"{size(free)} free in {place}"
    if free >= FULL_SET:
        return Finding("disk", found, needed, State.OK)
    state = State.WARNING if free >= SMALLEST_SET else State.MISSING
    remedy = "kdrv cache prune, or set XDG_CACHE_HOME to a larger disk"
    return Finding("disk", found, needed, state, remedy)


def kvm(probe: KvmProbe | None, device: Path = KVM) -> Finding:
    """Whether guests run at the processor's own speed; without KVM they run, but slowly."""
    needed = "for speed; TCG does without"
    if not device.exists():
        remedy = "sudo modprobe kvm_intel || sudo modprobe kvm_amd"
        return Finding("KVM", f"no {device}", needed, State.WARNING, remedy)
    if not os.access(device, os.R_OK | os.W_OK):
        remedy = "sudo usermod -aG kvm $USER, then log in again"
        return Finding("KVM", f"{device} is not yours to open", needed, State.WARNING, remedy)
    if probe is None:
        return Finding("KVM", f"{device} opens, but no QEMU is there to try it", needed, State.OK)
    answer = probe()
    state = State.OK if answer.works else State.WARNING
    return Finding("KVM", answer.reason, needed, state)


def root_makers() -> tuple[Finding, ...]:
    """What making a Debian root takes besides the sandbox."""
    found = [_program("mmdebstrap", "mmdebstrap")]
    if os.geteuid() != 0:
        found += [_program("newuidmap", "uidmap"), *map(_subids, SUBID_FILES)]
    return tuple(found)


def _program(name: str, package: str) -> Finding:
    if path := shutil.which(name):
        return Finding(name, path, "any", State.OK)
    return Finding(name, "", "any", State.MISSING, install(package))


def _subids(path: Path) -> Finding:
    """A user's range of subordinate ids (subuid(5)); mmdebstrap's mode unshare maps them."""
    user = pwd.getpwuid(os.geteuid()).pw_name
    needed = f"{SUBIDS} ids for {user}"
    try:
        fields = [line.split(":") for line in path.read_text().splitlines()]
    except OSError:
        fields = []
    owners = (user, str(os.geteuid()))
    counts = [int(f[2]) for f in fields if len(f) == 3 and f[0] in owners and f[2].isdigit()]
    most = max(counts, default=0)
    if most >= SUBIDS:
        return Finding(str(path), f"{most} ids", needed, State.OK)
    remedy = f"sudo usermod --add-{path.name}s 100000-165535 {user}"
    return Finding(str(path), f"{most} ids" if most else "", needed, State.MISSING, remedy)


def mirror(runner: Runner, *, urgent: bool) -> Finding:
    """Whether the machine's Debian mirror answers, asked through apt with apt's own proxies.

    ``urgent`` says that something is still to be downloaded.
    """
    bad = State.MISSING if urgent else State.WARNING
    needed = f"Debian {SUITE}" + ("" if urgent else ", for updates")
    try:
        uri = debian_mirror()
    except KdrvError as error:
        return Finding("mirror", "", needed, bad, error.remedy)
    try:
        with TemporaryDirectory(prefix="kdrv-") as place:
            file = f"{uri}/dists/{SUITE}/Release.gpg"
            ask = Command((APT_HELPER, "download-file", file, f"{place}/Release.gpg"))
            done = runner.run(ask, deadline=_DEADLINE, check=False)
    except KdrvError as error:
        return Finding("mirror", f"{uri}: {error.message}", needed, bad, "apt-get update")
    if done.ok:
        return Finding("mirror", f"{uri} answers", needed, State.OK)
    errors = re.findall(r"^E: (.+)$", done.output, re.M) or ["no answer"]
    return Finding("mirror", f"{uri}: {errors[0]}", needed, bad, "apt-get update")
