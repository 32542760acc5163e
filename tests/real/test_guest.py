"""The agent as /init of real kernels: what a driver does to a call never takes the guest along."""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from kdrv.build.api import BuildRequest, LaneBuild, Workbench, build
from kdrv.build.lane import Language
from kdrv.core.context import Context
from kdrv.guest import wire
from kdrv.guest.base import base_initramfs
from kdrv.guest.cpio import Archive
from kdrv.guest.errors import GuestCallDied, GuestGone, GuestSilent
from kdrv.guest.session import Guest
from kdrv.guest.wire import Kind, Message
from kdrv.machine.contract import BootSpec, Machine
from kdrv.qemu.world import QemuWorld

pytestmark = pytest.mark.real

HANG, DIE, LOOP, DOUBLE, RELEASE = (0x6B00 + number for number in range(5))
SLEEPER = """\
// SPDX-License-Identifier: GPL-2.0
#include <linux/fs.h>
#include <linux/io.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

static DECLARE_WAIT_QUEUE_HEAD(queue);
static int released;
static int start = 1;
module_param(start, int, 0444);
static unsigned long page;

static ssize_t sleeper_read(struct file *file, char __user *data, size_t size, loff_t *at)
{
	return wait_event_interruptible(queue, READ_ONCE(released));
}

static long sleeper_ioctl(struct file *file, unsigned int command, unsigned long arg)
{
	u32 value;

	switch (command) {
	case 0x6b00:
		wait_event(queue, READ_ONCE(released));
		return 0;
	case 0x6b01:
		WRITE_ONCE(*(volatile int *)8, 1);
		return 0;
	case 0x6b02:
		preempt_disable();
		for (;;)
			cpu_relax();
	case 0x6b03:
		if (get_user(value, (u32 __user *)arg))
			return -EFAULT;
		return put_user(2 * value, (u32 __user *)arg);
	case 0x6b04:
		WRITE_ONCE(released, 1);
		wake_up_all(&queue);
		return 7;
	}
	return -ENOTTY;
}

static int sleeper_mmap(struct file *file, struct vm_area_struct *vma)
{
	unsigned long number = virt_to_phys((void *)page) >> PAGE_SHIFT;

	return remap_pfn_range(vma, vma->vm_start, number, PAGE_SIZE, vma->vm_page_prot);
}

static __poll_t sleeper_poll(struct file *file, poll_table *table)
{
	poll_wait(file, &queue, table);
	return READ_ONCE(released) ? EPOLLIN : 0;
}

static const struct file_operations operations = {
	.owner = THIS_MODULE,
	.read = sleeper_read,
	.unlocked_ioctl = sleeper_ioctl,
	.mmap = sleeper_mmap,
	.poll = sleeper_poll,
};
static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR, .name = "sleeper", .fops = &operations,
};

static int __init sleeper_init(void)
{
	if (!start)
		return -ENODEV;
	page = get_zeroed_page(GFP_KERNEL);
	return page ? misc_register(&device) : -ENOMEM;
}

static void __exit sleeper_exit(void)
{
	misc_deregister(&device);
	free_page(page);
}

module_init(sleeper_init);
module_exit(sleeper_exit);
MODULE_DESCRIPTION("Sleeps, loops and dies on demand");
MODULE_LICENSE("GPL");
"""


@pytest.fixture(scope="module")
def lane(
    ctx: Context, bench: Workbench, rust_lane: LaneBuild, tmp_path_factory: pytest.TempPathFactory
) -> LaneBuild:
    place = tmp_path_factory.mktemp("sleeper")
    (place / "sleeper.c").write_text(SLEEPER)
    (place / "Kbuild").write_text("obj-m := sleeper.o\n")
    (built,) = build(ctx, BuildRequest(languages=(Language.RUST,), module=place), bench)
    assert built.ok, built.diagnostics
    return built


@pytest.fixture(scope="module")
def initramfs(
    ctx: Context, bench: Workbench, lane: LaneBuild, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    assert lane.kernel.image and lane.module
    (module,) = lane.module.modules
    base = base_initramfs(ctx, bench.toolchain, bench.tree, lane.kernel.image.arch)
    target = tmp_path_factory.mktemp("initramfs") / "guest.cpio"
    more = Archive().file("/lib/sleeper.ko", module.read_bytes())
    target.write_bytes(base.read_bytes() + more.pack())
    return target


class Booting:
    """Boots machines for the tests."""

    def __init__(self, world: QemuWorld, lane: LaneBuild, initramfs: Path) -> None:
        assert lane.kernel.image
        self._world = world
        self._spec = BootSpec(lane.kernel.image, initramfs, cpus=1)

    @contextmanager
    def __call__(self) -> Iterator[tuple[Guest, Machine]]:
        with self._world.boot(self._spec) as machine:
            yield Guest.of(machine, boot_timeout=120), machine


@pytest.fixture(scope="module")
def boot(ctx: Context, bench: Workbench, lane: LaneBuild, initramfs: Path) -> Booting:
    return Booting(QemuWorld(bench.toolchain, ctx), lane, initramfs)


@pytest.fixture(scope="module")
def shared(boot: Booting) -> Iterator[Guest]:
    """One guest for the tests that leave it as it was."""
    with boot() as (guest, _):
        guest.load("/lib/sleeper.ko")
        yield guest
        guest.unload("sleeper")
        guest.power_off()


def test_the_guest_is_ready(shared: Guest, lane: LaneBuild) -> None:
    assert lane.kernel.image
    assert shared.hello.release == shared.uname().release == lane.kernel.image.release
    for place in ("/proc/self", "/sys/bus/pci", "/dev/null", "/sys/kernel/debug", "/dev/pts"):
        assert shared.exists(place)
    assert shared.shell("id -u; echo $((6 * 7)) | wc -c").output == "0\n3\n"
    assert shared.run(["hostname", "kdrv"]).ok
    assert any("Linux version" in line for line in shared.dmesg())


def test_large_data_both_ways(shared: Guest) -> None:
    data = random.Random(1).randbytes(8 << 20)
    shared.write_bytes("/tmp/large", data)
    assert shared.read_bytes("/tmp/large") == data
    shared.unlink("/tmp/large")


def test_a_driver_through_all_its_doors(shared: Guest) -> None:
    (module,) = (m for m in shared.modules() if m.name == "sleeper")
    assert (module.references, module.state) == (0, "Live")
    with shared.open("/dev/sleeper") as file:
        assert file.fileno() == 3
        assert file.ioctl(DOUBLE, struct.pack("<I", 21)) == struct.pack("<I", 42)
        with file.mmap(4096) as page:
            page.write(0, b"\1\2\3\4\5\6\7\x08", 4)
            assert page.read(0, 8, 8) == b"\1\2\3\4\5\6\7\x08"
        assert file.poll(select.POLLIN, 20) == 0
        with pytest.raises(OSError, match="ioctl"):
            file.ioctl(0x6BFF)
        with pytest.raises(BlockingIOError):
            shared.unload("sleeper")


def test_a_module_that_refuses_and_a_file_that_is_none(shared: Guest) -> None:
    shared.unload("sleeper")
    with pytest.raises(OSError, match="No such device") as caught:
        shared.load("/lib/sleeper.ko", "start=0")
    assert caught.value.filename == "/lib/sleeper.ko"
    with pytest.raises(OSError, match="Exec format error"):
        shared.load("/init")
    shared.load("/lib/sleeper.ko", "start=1")
    assert shared.read_text("/sys/module/sleeper/parameters/start") == "1\n"


def test_a_wait_that_hangs_shows_its_stack_and_can_be_interrupted(shared: Guest) -> None:
    with shared.open("/dev/sleeper") as file:
        call = shared.begin.read(file, 1)
        with pytest.raises(GuestSilent) as caught:
            call.result(timeout=2)
        assert caught.value.inspection is not None
        assert caught.value.inspection.state == "S"
        assert "sleeper_read" in caught.value.inspection.stack[0]
        call.interrupt()
        with pytest.raises(InterruptedError):
            call.result()


def test_sixty_four_sessions(shared: Guest) -> None:
    with ExitStack() as stack:
        sessions = [stack.enter_context(shared.session()) for _ in range(64)]
        calls = [session.begin.read_file("/bin/busybox", 1 << 18) for session in sessions]
        assert {len(call.result(60)) for call in calls} == {1 << 18}


def test_an_oops_ends_one_call(boot: Booting) -> None:
    with boot() as (guest, machine):
        guest.load("/lib/sleeper.ko")
        file = guest.open("/dev/sleeper")
        with pytest.raises(GuestCallDied) as caught:
            file.ioctl(DIE)
        assert "NULL pointer dereference" in caught.value.console[0]
        assert machine.console.wait_for("end trace", 10)
        assert file.ioctl(RELEASE) == 7
        assert guest.read_text("/proc/sys/kernel/tainted") != "0\n"
        guest.power_off()
        assert not machine.alive


def test_a_call_that_cannot_be_killed_is_left_behind(boot: Booting) -> None:
    with boot() as (guest, _):
        guest.load("/lib/sleeper.ko")
        file = guest.open("/dev/sleeper")
        with pytest.raises(GuestSilent) as caught:
            file.ioctl(HANG, timeout=2)
        assert caught.value.inspection is not None
        assert caught.value.inspection.state == "D"
        assert file.ioctl(DOUBLE, struct.pack("<I", 4)) == struct.pack("<I", 8)
        guest.power_off()


def test_a_processor_that_loops_is_a_silent_guest(boot: Booting) -> None:
    with boot() as (guest, _):
        guest.load("/lib/sleeper.ko")
        file = guest.open("/dev/sleeper")
        with pytest.raises(GuestSilent) as caught:
            file.ioctl(LOOP, timeout=3)
        assert caught.value.inspection is None
        assert any("sys_ioctl" in line for line in caught.value.diagnosis)


def test_an_emulator_killed_in_mid_call(boot: Booting) -> None:
    before = _emulators()
    with boot() as (guest, _):
        call = guest.begin.sleep(60)
        (pid,) = _emulators() - before
        killer = threading.Timer(0.3, os.kill, (pid, signal.SIGKILL))
        killer.start()
        with pytest.raises(GuestGone):
            call.result()
        killer.join()


def _emulators() -> set[int]:
    """The emulators below this process, and nobody else's."""
    parents, names = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            head, _, tail = (entry / "stat").read_text().rpartition(")")
            parents[int(entry.name)] = int(tail.split()[1])
            names[int(entry.name)] = head.partition("(")[2]

    def ours(pid: int) -> bool:
        return pid == os.getpid() or (pid in parents and ours(parents[pid]))

    return {pid for pid, name in names.items() if name.startswith("qemu-system") and ours(pid)}


@pytest.mark.parametrize("seed", range(2))
def test_no_bytes_hurt_the_first_process(boot: Booting, seed: int) -> None:
    rnd = random.Random(seed)
    with boot() as (_, machine):
        for _ in range(300):
            machine.channel.send(_nonsense(rnd))
            machine.channel.receive(0.0)
        machine.channel.send(bytes(70000))  # the end of any frame that is still open
        while machine.channel.receive(0.5):
            pass
        machine.channel.send(wire.encode(Message(Kind.GREET, 0, 0)))
        guest = Guest.of(machine)
        guest.reset()
        assert guest.uname().sysname == "Linux"
        guest.power_off()


def _nonsense(rnd: random.Random) -> bytes:
    kinds: list[Any] = [Kind.CALL, Kind.RUN, Kind.INSPECT, Kind.GO, Kind.INTERRUPT, 0, 20, 200, 255]
    body = rnd.randbytes(rnd.choice([0, 1, 8, 30, 3000, 40000]))
    message = Message(rnd.choice(kinds), rnd.choice([0, 0, 1, 999]), rnd.randrange(1 << 31), body)
    frames = bytearray(wire.encode(message))
    if rnd.random() < 0.5:
        frames[rnd.randrange(len(frames))] ^= 1 << rnd.randrange(8)
    if rnd.random() < 0.2:
        del frames[rnd.randrange(len(frames)) :]
    return bytes(frames)
