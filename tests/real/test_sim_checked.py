"""The simulator's checked kernel: every detector is seen at work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kdrv.build.api import BuildRequest, LaneBuild, Workbench, build
from kdrv.build.lane import Language
from kdrv.core.context import Context
from kdrv.guest.base import base_initramfs
from kdrv.guest.cpio import Archive
from kdrv.guest.session import Guest
from kdrv.kernel.arch import Arch
from kdrv.machine.contract import BootSpec, DeviceSpec
from kdrv.sim.alive import (
    C_MODULE,
    KMEMLEAK,
    RUST_MODULE,
    Detector,
    Modules,
    provoke,
    standing,
    write_modules,
)
from kdrv.sim.dmamap import Findings, Why, judge, read, start
from kdrv.sim.faults import CALM, MILLISECOND, FaultKind, FaultPlan, Rule
from kdrv.sim.machine import SimMachine
from kdrv.sim.world import SimWorld
from kdrv.testing.prepare import WATCH_DEBUG
from tests.real.test_sim import DRIVER

pytestmark = [pytest.mark.real, pytest.mark.late("rust-um-debug")]

PATIENCE = 120.0
MODULES = Modules(f"/lib/{C_MODULE}.ko", f"/lib/{RUST_MODULE}.ko")
Boot = Callable[..., Any]


@pytest.fixture(scope="session")
def checked(ctx: Context, bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> LaneBuild:
    """The checked kernel, and the modules that do wrong built for it."""
    place = tmp_path_factory.mktemp("selftest")
    write_modules(place)
    (place / "simprobe.c").write_text(DRIVER)
    with (place / "Kbuild").open("a") as makefile:
        makefile.write("obj-m += simprobe.o\n")
    request = BuildRequest(
        languages=(Language.RUST,), arch=Arch.UM, debug=True, module=place, instrument=True
    )
    (lane,) = build(ctx, request, bench)
    assert lane.kernel.image, lane.kernel.diagnostics
    assert lane.module
    assert lane.module.ok, lane.module.diagnostics
    return lane


@pytest.fixture
def boot(ctx: Context, bench: Workbench, checked: LaneBuild, tmp_path: Path) -> Boot:
    image = checked.kernel.image
    assert image
    assert checked.module
    base = base_initramfs(ctx, bench.toolchain, bench.tree, Arch.UM)
    extra = Archive().directory("/lib")
    for module in checked.module.modules:
        extra.file(f"/lib/{module.name}", module.read_bytes())
    place = tmp_path / "initramfs"
    place.write_bytes(base.read_bytes() + extra.pack())

    @contextmanager
    def run(*devices: str, plan: FaultPlan = CALM) -> Iterator[tuple[SimMachine, Guest]]:
        world = SimWorld(ctx, bench.toolchain, patience=PATIENCE, plan=plan)
        plugged = tuple(map(DeviceSpec, devices))
        with world.boot(BootSpec(image, place, plugged, cmdline=WATCH_DEBUG)) as machine:
            yield machine, Guest.of(machine)

    return run


def test_what_can_be_asked_says_that_it_is_alive(boot: Boot) -> None:
    with boot() as (_, guest):
        signs = standing(guest)
        assert [str(sign) for sign in signs if not sign.alive] == []
        assert len({sign.detector for sign in signs}) == 4


@pytest.mark.parametrize("detector", Detector)
def test_a_detector_finds_what_is_wrong(boot: Boot, detector: Detector) -> None:
    with boot() as (machine, guest):
        sign = provoke(detector, guest, machine.console, MODULES)
        assert sign.alive, sign
        assert sign.detector is detector


def test_stacks_that_were_recorded_go_through_the_driver(boot: Boot) -> None:
    """What is saved when an object is made, and not only what is printed when all goes wrong."""
    with boot() as (machine, guest):
        provoke(Detector.KASAN, guest, machine.console, MODULES)
        log = "\n".join(guest.dmesg())
        _, made = log.split("Allocated by task", 1)
        assert "read_behind_the_end+0x" in made.split("The buggy address", 1)[0]
        assert f"[{C_MODULE}]" in made.split("The buggy address", 1)[0]
    with boot() as (machine, guest):
        provoke(Detector.KMEMLEAK, guest, machine.console, MODULES)
        _, made = guest.read_text(KMEMLEAK).split("backtrace", 1)
        assert f"[{C_MODULE}]" in made


def test_a_detector_that_has_turned_itself_off_is_dead(boot: Boot) -> None:
    with boot() as (machine, guest):
        provoke(Detector.LOCKDEP, guest, machine.console, MODULES)
        (lockdep,) = [sign for sign in standing(guest) if sign.detector is Detector.LOCKDEP]
        assert not lockdep.alive
        assert "debug_locks: 0" in lockdep.evidence


def _mapped(boot: Boot, how: str, plan: FaultPlan = CALM) -> Findings:
    """What is wrong with the DMA of one load, perhaps a transfer, and unload."""
    with boot("edu", plan=plan) as (machine, guest):
        start(guest)
        guest.load("/lib/simprobe.ko", f"how={how}")
        guest.sleep(1)
        guest.unload("simprobe")
        found = read(guest)
        assert found.lost == 0
        assert [event.mapped for event in found.events] == [True, False]
        assert {event.length for event in found.events} == {4096}
        return judge(found.events, machine.trace, machine.addresses)


def test_dma_stays_inside_what_was_mapped(boot: Boot) -> None:
    assert _mapped(boot, "dma") == Findings((), ())


def test_dma_that_a_driver_leaves_behind_is_seen(boot: Boot) -> None:
    found = _mapped(boot, "leave")
    assert [stray.why for stray in found.stray] == [Why.TOO_LATE]
    assert found.left == ()


def test_dma_after_free_by_a_fault_is_nobody_s_fault(boot: Boot) -> None:
    late = Rule(FaultKind.DMA_AFTER_FREE, numbers=(0,), lasts=500 * MILLISECOND)
    assert _mapped(boot, "dma", FaultPlan(0, (late,))) == Findings((), ())
