"""The kernels themselves: both lanes reach userspace, and the Rust samples load and unload."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from kdrv.build.api import LaneBuild, Workbench, build
from kdrv.build.api import prepare as prepare_build
from kdrv.build.intree import built_module
from kdrv.build.lane import Language
from kdrv.build.result import KernelBuild
from kdrv.core.context import Context
from kdrv.core.errors import KdrvError, UsageError
from kdrv.core.limits import unless_machine_short
from kdrv.guest.base import base_initramfs
from kdrv.kernel.modinfo import code_sections
from kdrv.machine.contract import DeviceSpec, KernelImage
from kdrv.testing.driver import Driver, DriverFile
from kdrv.testing.prepare import (
    MODULES,
    TestRequest,
    boot_spec,
    require_green,
    stage,
)
from kdrv.testing.room import Room
from kdrv.testing.traces import Places
from kdrv.testing.worlds import make_world


@dataclass(frozen=True)
class Sample:
    """An in-tree Rust sample; ``device`` is the hardware it must bind to."""

    module: str
    device: str = ""


SAMPLES = (
    Sample("rust_minimal"),
    Sample("rust_misc_device"),
    Sample("rust_driver_faux"),
    Sample("rust_driver_platform"),
    Sample("rust_driver_pci", device="pci-testdev"),
)


@dataclass(frozen=True)
class Proof:
    """One thing that was tried; ``detail`` says what went wrong, or what was seen."""

    name: str
    ok: bool
    seconds: float
    detail: str = ""


@dataclass(frozen=True)
class LaneProof:
    """A lane's kernel, booted."""

    lane: str
    kernel: KernelBuild
    proofs: tuple[Proof, ...]

    @property
    def ok(self) -> bool:
        """Whether everything tried on it worked."""
        return self.kernel.ok and all(proof.ok for proof in self.proofs)


@dataclass(frozen=True)
class Smoke:
    """Both lanes."""

    lanes: tuple[LaneProof, ...]
    reproducer: str

    @property
    def ok(self) -> bool:
        """Whether both are good."""
        return all(lane.ok for lane in self.lanes)


def smoke(ctx: Context, request: TestRequest, scratch: Path) -> Smoke:
    """Build and boot both lanes; load every Rust sample on its device and unload it.

    Raises :class:`kdrv.core.errors.WorkFailed` when a lane does not build.
    """
    if request.project is not None:
        raise UsageError("the kernels are booted alone", expected="no project")
    build_request = request.to_build(Language.C, Language.RUST)
    bench = prepare_build(ctx, build_request)
    lanes = []
    for language in build_request.languages:
        (result,) = build(ctx, replace(build_request, languages=(language,)), bench)
        require_green(result)
        lanes.append(prove_lane(ctx, request, bench, result, scratch))
    return Smoke(tuple(lanes), request.command())


def prove_lane(
    ctx: Context, request: TestRequest, bench: Workbench, built: LaneBuild, scratch: Path
) -> LaneProof:
    """Boot a green lane; with Rust, load every sample on its device and unload it."""
    kernel = built.kernel
    assert kernel.image is not None
    proofs = prove_image(ctx, request, bench, kernel.image, kernel.lane, scratch)
    return LaneProof(kernel.lane, kernel, proofs)


def prove_image(
    ctx: Context,
    request: TestRequest,
    bench: Workbench,
    image: KernelImage,
    lane: str,
    scratch: Path,
) -> tuple[Proof, ...]:
    """Boot a kernel as :func:`prove_lane` does. Raises :class:`UsageError` when it lacks a sample
    that it was configured for."""
    world = make_world(ctx, request, bench)
    samples = SAMPLES if has_rust(image) else ()
    base = base_initramfs(ctx, bench.toolchain, bench.tree, image.arch)
    modules = [built_module(image.build, sample.module) for sample in samples]
    initramfs = stage(base, scratch / f"{lane}.cpio", modules, [])
    devices = tuple(DeviceSpec(sample.device) for sample in samples if sample.device)
    spec = boot_spec(request, image, initramfs, devices=devices, loads=bool(samples))
    with ctx.events.step(f"booting lane {lane} in {world.name}"):
        return _prove(Room(world, spec), image, samples)


def has_rust(image: KernelImage) -> bool:
    """Whether the kernel was configured with CONFIG_RUST."""
    return "CONFIG_RUST=y" in (image.build / ".config").read_text().splitlines()


def _prove(room: Room, image: KernelImage, samples: tuple[Sample, ...]) -> tuple[Proof, ...]:
    known: Places = Counter()
    try:
        proofs = [_proof("reaches userspace", partial(_userspace, room, image))]
        for sample in samples if proofs[0].ok else ():
            load = partial(_load, room, image, sample, known)
            proofs.append(_proof(f"{sample.module} loads and unloads", load))
        return tuple(proofs)
    finally:
        room.discard()


def _proof(name: str, action: Callable[[], str]) -> Proof:
    began = time.monotonic()
    try:
        detail = action()
    except (KdrvError, OSError, LookupError) as error:
        if isinstance(error, KdrvError):
            unless_machine_short(error)
        return Proof(name, False, time.monotonic() - began, str(error))
    return Proof(name, True, time.monotonic() - began, detail)


def _userspace(room: Room, image: KernelImage) -> str:
    with room.watched():
        release = room.guest.uname().release
    if release != image.release:
        raise LookupError(f"the guest runs {release}, not {image.release}")
    return release


def _load(room: Room, image: KernelImage, sample: Sample, known: Places) -> str:
    path = built_module(image.build, sample.module)
    file = DriverFile(sample.module, f"{MODULES}/{path.name}", code=code_sections(path))
    with room.watched():
        driver = Driver(room.guest, file, known)
        driver.load()
        devices = driver.devices
        driver.unload()
    if sample.device and not devices:
        raise LookupError(f"{sample.module} did not bind to {sample.device}")
    return f"bound to {', '.join(devices)}" if devices else ""
