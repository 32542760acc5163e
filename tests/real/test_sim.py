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
from kdrv.sim.allocfail import failing, prepare
from kdrv.sim.faults import MILLISECOND, FaultKind, FaultPlan, Rule
from kdrv.sim.machine import SimMachine
from kdrv.sim.profiles import PROFILES
from kdrv.sim.removal import announce
from kdrv.sim.world import SimWorld

pytestmark = pytest.mark.real

PATIENCE = 60.0
SAMPLE = "samples/rust/rust_driver_pci.ko"
DRIVER = """// SPDX-License-Identifier: GPL-2.0
#include <linux/completion.h>
#include <linux/delay.h>
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

/* An interrupt at any time meets this between a write and a read, or in the read. */
static void hammer(struct pci_dev *pdev)
{
	int wrong = 0;

	for (u32 i = 0; i < 1000; i++) {
		writel(i, bar + 0x04);
		wrong += readl(bar + 0x04) != ~i;
		udelay(3);
	}
	dev_info(&pdev->dev, "%d wrong reads\\n", wrong);
}

/* Frees memory while a transfer into it is under way. */
static void leave(struct pci_dev *pdev)
{
	dma_addr_t address;
	void *buffer = dma_alloc_coherent(&pdev->dev, 4096, &address, GFP_KERNEL);

	if (!buffer)
		return;
	transfer(0x40000, address, 16, 1 | 2);
	dma_free_coherent(&pdev->dev, 4096, buffer, address);
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
	ret = pci_alloc_irq_vectors(pdev, 1, 1, PCI_IRQ_MSI | PCI_IRQ_MSIX);
	if (ret < 0)
		return ret;
	ret = devm_request_irq(&pdev->dev, pci_irq_vector(pdev, 0), on_irq, 0, "probe", pdev);
	if (ret)
		return ret;
	if (!strcmp(how, "dma"))
		run(pdev);
	if (!strcmp(how, "leave"))
		leave(pdev);
	if (!strcmp(how, "hammer"))
		hammer(pdev);
	if (!strcmp(how, "wild"))
		transfer(0x7ffff000, 0x40000, 64, 1);
	while (!strcmp(how, "spin"))
		barrier();
	while (!strcmp(how, "flood"))
		pr_info("and once more\\n");
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


def test_the_console_is_in_order_and_whole(boot: Boot) -> None:
    with boot() as (machine, guest):
        guest.power_off()
        lines = machine.console.since()
        assert any("Linux version" in line for line in lines[:10])
        assert any("Power down" in line for line in lines[-2:])
        times = [float(line[1:].split("]")[0]) for line in lines if line.startswith("[ ")]
        assert times == sorted(times)


def test_interrupts_in_the_middle_of_a_read_do_no_harm(boot: Boot) -> None:
    plan = FaultPlan(10, (Rule(FaultKind.IRQ_SPURIOUS, 0.3),))
    with boot("edu", plan=plan) as (machine, guest):
        guest.load("/lib/simprobe.ko", "how=hammer")
        said = machine.console.since()
        assert len(machine.schedule.fired) > 100
        assert any("0 wrong reads" in line for line in said)
        assert not any("WARNING" in line for line in said)


def test_a_device_that_was_pulled_out_is_removed(boot: Boot) -> None:
    plan = FaultPlan(0, (Rule(FaultKind.SURPRISE_REMOVE, numbers=(0,)),))
    with boot("testdev", "edu", plan=plan) as (machine, guest):
        guest.load("/lib/simprobe.ko", "how=dma")
        assert machine.pulled == ("edu",)
        assert machine.addresses["edu"] == "0000:00:01.0"
        assert announce(machine, guest) == ("edu",)
        assert guest.listdir("/sys/bus/pci/devices") == ["0000:00:00.0"]
        assert announce(machine, guest) == ()


def test_a_device_that_does_not_wake_up_fails_its_probe(boot: Boot) -> None:
    plan = FaultPlan(0, (Rule(FaultKind.PM_FAIL, 1.0, start=1000 * MILLISECOND),))
    with boot("ringdev", plan=plan) as (machine, guest):
        device = machine.addresses["ringdev"]
        guest.load("/lib/simprobe.ko")
        guest.write_text("/sys/bus/pci/drivers/simprobe/new_id", "1234 72d0")
        guest.unbind("pci", "simprobe", device)
        guest.sleep(1)
        # Since the device was unbound the kernel does not know its state, and looks.
        with pytest.raises(OSError):
            guest.bind("pci", "simprobe", device)
        assert any("to D0, device inaccessible" in line for line in machine.console.since())
        guest.sleep(2)
        machine.schedule.quiesce()
        guest.bind("pci", "simprobe", device)


def test_the_nth_allocation_fails_and_no_other(boot: Boot) -> None:
    with boot("edu") as (machine, guest):
        prepare(guest)
        calls = failing(guest, 1)
        with pytest.raises(OSError, match="Cannot allocate memory"):
            calls.load("/lib/simprobe.ko").result()
        assert calls.fired
        calls = failing(guest, 1_000_000)
        calls.load("/lib/simprobe.ko").result()
        assert not calls.fired
        assert any("FAULT_INJECTION" in line for line in machine.console.since())


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
        assert caught.value.message.startswith("edu: the device model raised KeyError")
        assert caught.value.doing == "timer Broken._transfer"
        assert (
            caught.value.detail[0] == f"at {machine.now / 1e9:.9f} s, during timer Broken._transfer"
        )
        assert machine.fault is caught.value
        assert not machine.alive


class Refusing(Edu):
    """Raises in a register that the driver writes."""

    @Edu.dma_command.on_write
    def _start(self, value: int) -> None:
        self.dma.write(self.dma_source, bytes(16))
        raise RuntimeError("out of rings")


def test_a_model_that_raises_in_a_register_names_it(
    boot: Boot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(catalog.MODELS, "edu", Refusing)
    with boot("edu") as (machine, guest):
        with pytest.raises(DeviceFault, match="out of rings") as caught:
            guest.load("/lib/simprobe.ko", "how=dma")
        assert caught.value.doing == "4-byte write of 0x5 to dma_command (BAR 0 + 0x98)"
        assert caught.value.at == machine.now


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


def test_a_kernel_that_prints_without_an_end_has_one_history(boot: Boot) -> None:
    histories = set()
    for _ in range(3):
        with (
            boot("edu", patience=60.0) as (machine, guest),
            pytest.raises(Exception, match=r"stalled.*without an end"),
        ):
            guest.load("/lib/simprobe.ko", "how=flood")
        assert "and once more" in "\n".join(machine.console.since())
        histories.add(machine.history())
    assert len(histories) == 1


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
