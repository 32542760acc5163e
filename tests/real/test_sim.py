"""The simulator with a real kernel: virtual time, devices, faults, exactness."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kdrv.build.api import BuildRequest, Workbench, build
from kdrv.build.lane import Language
from kdrv.core.context import Context
from kdrv.devices import catalog
from kdrv.devices.edu import Edu
from kdrv.devices.errors import Blame, DeviceFault
from kdrv.guest.cpio import Archive
from kdrv.guest.initramfs import build_initramfs
from kdrv.guest.session import Guest
from kdrv.kernel.arch import Arch
from kdrv.machine.contract import BootSpec, DeviceSpec, KernelImage
from kdrv.sim.faults import PROFILES, FaultPlan
from kdrv.sim.machine import SimMachine
from kdrv.sim.world import SimWorld

pytestmark = pytest.mark.real

PATIENCE = 60.0
SAMPLE = "samples/rust/rust_driver_pci.ko"
DRIVER = """// SPDX-License-Identifier: GPL-2.0
#include <linux/completion.h>
#include <linux/module.h>
#include <linux/pci.h>

static char *how = "";
module_param(how, charp, 0);
static DECLARE_COMPLETION(done);
static void __iomem *bar;

static irqreturn_t on_irq(int irq, void *data)
{
	writel(readl(bar + 0x24), bar + 0x64);
	complete(&done);
	return IRQ_HANDLED;
}

static void transfer(u64 source, u64 target, u32 count, u32 command)
{
	writeq(source, bar + 0x80);
	writeq(target, bar + 0x88);
	writel(count, bar + 0x90);
	writel(command, bar + 0x98);
}

static void run(struct pci_dev *pdev)
{
	dma_addr_t address;
	char *buffer = dmam_alloc_coherent(&pdev->dev, 4096, &address, GFP_KERNEL);
	bool came;

	if (!buffer)
		return;
	strcpy(buffer, "there and back");
	transfer(address, 0x40000, 16, 1 | 4);
	came = wait_for_completion_timeout(&done, HZ);
	memset(buffer, 0, 16);
	transfer(0x40000, address, 16, 1 | 2 | 4);
	came &= !!wait_for_completion_timeout(&done, HZ);
	dev_info(&pdev->dev, "interrupts %d, buffer '%s'\\n", came, buffer);
}

static int probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	int ret = pcim_enable_device(pdev);

	if (ret)
		return ret;
	bar = pcim_iomap(pdev, 0, 0);
	if (!bar)
		return -ENOMEM;
	pci_set_master(pdev);
	ret = pci_alloc_irq_vectors(pdev, 1, 1, PCI_IRQ_MSI);
	if (ret < 0)
		return ret;
	ret = devm_request_irq(&pdev->dev, pci_irq_vector(pdev, 0), on_irq, 0, "probe", pdev);
	if (ret)
		return ret;
	if (!strcmp(how, "dma"))
		run(pdev);
	if (!strcmp(how, "wild"))
		transfer(0x7ffff000, 0x40000, 64, 1);
	while (!strcmp(how, "spin"))
		barrier();
	while (!strcmp(how, "poll") && readl(bar) != 0)
		;
	return 0;
}

static const struct pci_device_id ids[] = { { PCI_DEVICE(0x1234, 0x11e8) }, {} };
static struct pci_driver simprobe = { .name = "simprobe", .id_table = ids, .probe = probe };
module_pci_driver(simprobe);
MODULE_DESCRIPTION("Drives an edu device as a test says");
MODULE_LICENSE("GPL");
"""

Boot = Callable[..., Any]


@pytest.fixture(scope="session")
def um_image(ctx: Context, bench: Workbench) -> KernelImage:
    (lane,) = build(ctx, BuildRequest(languages=(Language.RUST,), arch=Arch.UM), bench)
    assert lane.kernel.image, lane.kernel.diagnostics
    return lane.kernel.image


@pytest.fixture(scope="session")
def driver(
    ctx: Context, bench: Workbench, um_image: KernelImage, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The module above, built."""
    place = tmp_path_factory.mktemp("simprobe")
    (place / "simprobe.c").write_text(DRIVER)
    (place / "Kbuild").write_text("obj-m := simprobe.o\n")
    request = BuildRequest(languages=(Language.RUST,), arch=Arch.UM, module=place)
    (lane,) = build(ctx, request, bench)
    assert lane.module
    assert lane.module.ok, lane.module.diagnostics
    (module,) = lane.module.modules
    return module


@pytest.fixture(scope="session")
def initramfs(
    ctx: Context,
    bench: Workbench,
    um_image: KernelImage,
    driver: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    place = tmp_path_factory.mktemp("initramfs") / "initramfs"
    build_initramfs(bench.toolchain, bench.tree.path, Arch.UM, ctx, place)
    extra = Archive().directory("/lib")
    extra.file("/lib/simprobe.ko", driver.read_bytes())
    extra.file("/lib/sample.ko", (um_image.build / SAMPLE).read_bytes())
    place.write_bytes(place.read_bytes() + extra.pack())
    return place


@pytest.fixture
def boot(ctx: Context, bench: Workbench, um_image: KernelImage, initramfs: Path) -> Boot:
    @contextmanager
    def run(
        *devices: str, patience: float = PATIENCE, **world: Any
    ) -> Iterator[tuple[SimMachine, Guest]]:
        simulator = SimWorld(ctx, bench.toolchain, patience=patience, **world)
        spec = BootSpec(um_image, initramfs, tuple(map(DeviceSpec, devices)), memory_mib=64)
        with simulator.boot(spec) as machine:
            yield machine, Guest(machine.channel, machine=machine, clock=machine.clock)

    return run


def test_a_long_sleep_costs_nothing_but_virtual_time(boot: Boot) -> None:
    with boot() as (machine, guest):
        before = machine.now
        guest.sleep(1000)
        assert 1000 <= (machine.now - before) / 1e9 < 1001
        guest.power_off()
        assert not machine.alive
        assert len(machine.line_times) == len(machine.console.since())


def test_the_rust_sample_finds_its_device_among_others(boot: Boot) -> None:
    with boot("edu", "testdev", "ringdev") as (machine, guest):
        guest.load("/lib/sample.ko")
        said = "pci-testdev data-match count: 1"
        assert any(said in line for line in machine.console.since())
        assert machine.devices["testdev"].state()["count"] == 1
        guest.unload("rust_driver_pci")


def test_interrupts_and_dma_reach_a_driver(boot: Boot) -> None:
    with boot("edu") as (machine, guest):
        guest.load("/lib/simprobe.ko", "how=dma")
        said = "interrupts 1, buffer 'there and back'"
        assert any(said in line for line in machine.console.since())
        assert [str(r).split(": ")[1] for r in machine.trace].count("interrupt 0") == 2


def test_wild_dma_ends_the_run_and_names_the_driver(boot: Boot) -> None:
    with boot("edu") as (machine, guest):
        with pytest.raises(DeviceFault, match="outside the machine's memory") as caught:
            guest.load("/lib/simprobe.ko", "how=wild")
            guest.sleep(1)
        assert caught.value.blame is Blame.DRIVER
        assert not machine.alive


class Broken(Edu):
    """Raises in the middle of a transfer."""

    def _transfer(self) -> None:
        self.dma.read(self.dma_source, 4)
        raise KeyError("no such buffer")


def test_a_model_that_raises_ends_the_run(boot: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(catalog.MODELS, "edu", Broken)
    with boot("edu") as (machine, guest):
        with pytest.raises(DeviceFault, match="no such buffer") as caught:
            guest.load("/lib/simprobe.ko", "how=dma")
        assert caught.value.blame is Blame.MODEL
        assert any("raise KeyError" in line for line in caught.value.detail)
        assert machine.fault is caught.value


@pytest.mark.parametrize(
    ("how", "words"), [("spin", "without waiting"), ("poll", "while no time passed")]
)
def test_a_kernel_that_never_stops_is_stopped(boot: Boot, how: str, words: str) -> None:
    with (
        boot("edu", patience=5.0) as (machine, guest),
        pytest.raises(Exception, match=f"stalled.*{words}"),
    ):
        guest.load("/lib/simprobe.ko", f"how={how}")
    assert not machine.alive


def test_a_reset_ends_the_machine(boot: Boot) -> None:
    with boot() as (machine, guest):
        guest.restart()
        assert not machine.alive


def _burn() -> None:
    while True:
        pass


@pytest.fixture
def busy_processors() -> Iterator[None]:
    """Two processes that never wait, beside the test."""
    burners = [multiprocessing.Process(target=_burn, daemon=True) for _ in range(2)]
    for burner in burners:
        burner.start()
    yield
    for burner in burners:
        burner.kill()
        burner.join()


@pytest.mark.usefixtures("busy_processors")
@pytest.mark.parametrize("profile", ["calm", "lossy", "hostile", "removal"])
def test_one_seed_has_one_history(boot: Boot, profile: str) -> None:
    def history(seed: int) -> tuple[str, int]:
        plan = FaultPlan(seed, PROFILES[profile], jitter=0.5)
        with boot("edu", "testdev", plan=plan) as (machine, guest):
            guest.load("/lib/sample.ko")
            guest.load("/lib/simprobe.ko", "how=dma")
            guest.unload("simprobe")
            guest.power_off()
            return machine.history(), machine.now

    histories = {seed: {history(seed) for _ in range(3)} for seed in range(3)}
    assert [len(found) for found in histories.values()] == [1, 1, 1]
    assert len(set.union(*histories.values())) == 3
