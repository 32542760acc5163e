"""Booting the kernel of a commit, unless the very same bytes were booted before."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from kdrv.build.api import Workbench
from kdrv.build.intree import built_module
from kdrv.build.kernel import built_image
from kdrv.build.vetting import LIMIT
from kdrv.core.context import Context
from kdrv.core.errors import KdrvError
from kdrv.core.inside import open_inside, understood
from kdrv.core.limits import unless_machine_short
from kdrv.core.store import digest
from kdrv.gate.step import Place
from kdrv.gate.walk import LaneWalk
from kdrv.machine.contract import KernelImage
from kdrv.testing.prepare import make_request
from kdrv.testing.smoke import SAMPLES, Proof, has_rust, prove_image
from kdrv.toolchain.base import Toolchain

FORMAT = "gate-boot-1"


@dataclass(frozen=True)
class Booted:
    """A kernel's boot: it reaches userspace, and its Rust samples load and unload."""

    proofs: tuple[Proof, ...]
    reused: bool = False

    @property
    def ok(self) -> bool:
        """Whether everything tried worked."""
        return all(proof.ok for proof in self.proofs)


def boot(ctx: Context, walk: LaneWalk, place: Place, toolchain: Toolchain) -> Booted:
    """Boot the lane's kernel at a commit at which it is green.

    A kernel and modules that are byte for byte those of an earlier boot that worked are not booted
    again. Raises :class:`SetupError` when the machine cannot.
    """
    walk.have(place)
    try:
        with understood(f"what {place.label} left in lane {walk.lane.name}"):
            return _booted(ctx, walk, place, toolchain)
    except KdrvError as error:
        unless_machine_short(error)
        return Booted((Proof("boots", False, 0.0, error.message),))


def _booted(ctx: Context, walk: LaneWalk, place: Place, toolchain: Toolchain) -> Booted:
    image = built_image(walk.build, walk.lane.arch)
    key = digest(FORMAT, _bytes_of(image), toolchain.identity)
    if known := walk.results.get(key, Booted):
        return replace(known, reused=True)
    request = make_request(None, "qemu", arch=image.arch, toolchain=toolchain.name)
    bench = Workbench(walk.tree(place.commit), toolchain)
    with tempfile.TemporaryDirectory(prefix="kdrv-") as scratch:
        proofs = prove_image(ctx, request, bench, image, walk.lane.name, Path(scratch))
    booted = Booted(proofs)
    if booted.ok:
        walk.results.put(key, booted)
    return booted


def _bytes_of(image: KernelImage) -> str:
    """A digest of all that a boot loads of the build."""
    samples = SAMPLES if has_rust(image) else ()
    modules = [built_module(image.build, sample.module) for sample in samples]
    whole = hashlib.sha256()
    for path in (image.vmlinux, image.image, *modules):
        with open_inside(image.build, path, LIMIT) as stream:
            whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()
