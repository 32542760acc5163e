"""The QEMU world against a program that plays QEMU: wires, ends, and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kdrv.core.context import Context
from kdrv.core.errors import CommandFailed, DeadlineExceeded, SetupError, UsageError
from kdrv.core.process import Command, LocalRunner
from kdrv.devices.errors import DeviceFault
from kdrv.kernel.arch import Arch
from kdrv.machine.console import Console
from kdrv.machine.contract import BootSpec, DeviceSpec, KernelImage, MachineEnded
from kdrv.qemu import kvm
from kdrv.qemu.machine import QemuMachine
from kdrv.qemu.serial import SerialLine
from kdrv.qemu.shell import console_expect, require_terminal
from kdrv.qemu.world import QemuWorld
from kdrv.toolchain.base import Bind

from .conftest import FakeRunner
from .test_qemu_devices import HELP, FakeTools

FAKE = Path(__file__).with_name("fake_qemu.py")


class FakeQemu(FakeTools):
    """A toolchain whose QEMU is a Python program, and which lists devices as QEMU does."""

    def command(self, argv: Sequence[str], *, binds: Sequence[Bind] = (), **_: Any) -> Command:
        if argv[1] == "-device":
            return Command(("echo", HELP))
        words = list(argv[1:])
        for bind in binds:
            words = [word.replace(bind.target, str(bind.source)) for word in words]
        return Command((sys.executable, str(FAKE), *words))


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("vmlinux", "initramfs"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path / "vmlinux", tmp_path / "initramfs"


@pytest.fixture
def boot(tmp_path: Path, files: tuple[Path, Path]) -> Any:
    image, initramfs = files
    world = QemuWorld(FakeQemu(), Context(cache=tmp_path / "cache"), accel="tcg")

    @contextlib.contextmanager
    def start(*words: str, **spec: Any) -> Iterator[QemuMachine]:
        kernel = KernelImage(spec.pop("arch", Arch.X86_64), "7.3.4", image, image, tmp_path)
        cmdline = tuple(f"do={word}" for word in words)
        with world.boot(BootSpec(kernel, initramfs, cmdline=cmdline, **spec)) as machine:
            yield machine

    return start


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def _end(machine: QemuMachine) -> MachineEnded:
    with pytest.raises(MachineEnded) as ended:
        for _ in range(10):
            machine.channel.receive(2.0)
    return ended.value


def test_the_console_loses_nothing(boot: Any) -> None:
    with boot("flood:5000", "print:end", "sleep:30") as machine:
        assert machine.console.wait_for("end", 10)
        assert machine.console.since() == (*map(str, range(5000)), "end")


def test_the_agent_hears_and_answers(boot: Any) -> None:
    with boot("echo", "sleep:30") as machine:
        assert machine.channel.receive(0.01) == b""
        machine.channel.send(b"hello")
        assert machine.channel.receive(5.0) == b"HELLO"


@pytest.mark.parametrize(
    ("words", "reason", "status"),
    [
        (("greet", "shutdown:guest-shutdown", "exit:0"), "the guest powered off", 0),
        (("greet", "shutdown:guest-reset", "exit:0"), "the guest reset itself", 0),
        (("greet", "shutdown:new-cause", "exit:0"), "QEMU shut down: new-cause", 0),
        (("complain:no-such-slot", "exit:1"), "QEMU ended with status 1: no-such-slot", 1),
        (("exit:139",), "QEMU ended by signal 11", -11),
        (("kill:9",), "QEMU ended by signal 9", -9),
    ],
)
def test_the_end_of_a_machine_has_a_reason(
    boot: Any, words: tuple[str, ...], reason: str, status: int
) -> None:
    with boot("print:last-words", *words) as machine:
        end = _end(machine)
        assert (end.reason, end.status) == (reason, status)
        assert not machine.alive
        assert machine.diagnose() == (reason,)
        with pytest.raises(MachineEnded):
            machine.channel.send(b"x" * 100_000)
    assert machine.console.since() == ("last-words",)


def test_the_monitor_answers_and_refuses(boot: Any) -> None:
    with boot("greet", "answer", "refuse", "sleep:30") as machine:
        assert machine.monitor.execute("query-status") == {"status": "running"}
        with pytest.raises(CommandFailed, match="QEMU refused device_del: not today"):
            machine.unplug("nothing")


def test_a_device_is_gone_when_the_guest_says_so_now(
    boot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdrv.qemu.machine.UNPLUG_SECONDS", 0.1)
    plugged = ("greet", "answer", "deleted:late", "answer", "sleep:30")
    with boot(*plugged) as machine:
        mark = machine.monitor.mark()
        machine.monitor.execute("first")
        assert machine.monitor.wait_event("DEVICE_DELETED", 5.0, lambda _: True, mark)
        with pytest.raises(DeadlineExceeded, match="did not release late"):
            machine.unplug("late")


def test_a_command_to_a_dead_qemu_fails_at_once(boot: Any) -> None:
    with boot("greet", "exit:0") as machine:
        _end(machine)
        with pytest.raises(CommandFailed, match="has ended"):
            machine.monitor.execute("query-status")


def test_leaving_the_block_ends_qemu(boot: Any) -> None:
    class Stop(BaseException):
        pass

    threads = threading.active_count()
    descriptors = _descriptors()
    with contextlib.suppress(Stop), boot("print:up", "sleep:60") as machine:
        assert machine.console.wait_for("up", 10)
        assert machine.alive
        raise Stop
    assert not machine.alive
    assert threading.active_count() == threads
    assert _descriptors() == descriptors


def test_a_start_that_fails_leaves_nothing(tmp_path: Path, files: tuple[Path, Path]) -> None:
    class Missing(FakeQemu):
        def command(self, argv: Sequence[str], **_: Any) -> Command:
            return Command(("/nonexistent/qemu",))

    image, initramfs = files
    world = QemuWorld(Missing(), Context(cache=tmp_path / "cache"), accel="tcg")
    spec = BootSpec(KernelImage(Arch.X86_64, "7.3.4", image, image, tmp_path), initramfs)
    descriptors = _descriptors()
    with pytest.raises(SetupError, match="cannot run"), world.boot(spec):
        pass
    assert _descriptors() == descriptors


def test_a_person_or_pexpect_types_at_the_console(boot: Any) -> None:
    with (
        boot("sleep:0.2", "print:login", "type", "sleep:30") as machine,
        console_expect(machine, timeout=10) as console,
    ):
        console.expect("login")
        console.sendline("root")
        console.expect("typed root")
        assert machine.console.wait_for("typed root", 10)


def test_a_machine_that_does_not_read_keeps_nobody_waiting() -> None:
    with SerialLine(Console()) as line:
        for _ in range(100):
            line.write(bytes(4096))


def test_a_shell_needs_a_terminal() -> None:
    with pytest.raises(UsageError, match="needs a terminal"):
        require_terminal()


def test_the_command_line_can_be_pasted(boot: Any) -> None:
    with boot("sleep:30", devices=(DeviceSpec("edu"),), cpus=2) as machine:
        line = machine.describe()
    assert "-serial mon:stdio" in line
    assert "-device edu" in line
    assert "-smp 2" in line
    assert "fd=" not in line


def test_a_model_answers_from_another_process(boot: Any) -> None:
    with boot("touch:0", "sleep:30", devices=(DeviceSpec("ringdev"),)) as machine:
        assert machine.channel.receive(5.0) == b"RING"
        assert machine.devices["ringdev"].state()["version"] == 1
        line = machine.describe()
    assert "memory-backend-memfd,id=kdrv-ram,size=256M,share=on" in line
    assert "memory-backend=kdrv-ram" in line


def test_a_model_that_raises_ends_the_machine_and_is_told_once(boot: Any) -> None:
    with boot("touch:1", "sleep:60", devices=(DeviceSpec("ringdev"),)) as machine:
        with pytest.raises(DeviceFault, match="ringdev: the driver asked for what cannot be"):
            for _ in range(10):
                machine.channel.receive(2.0)
        assert not machine.alive
        assert machine.fault is not None
        end = _end(machine)
        assert end.reason.startswith("device fault: ringdev: the driver asked")
        assert machine.diagnose() == (end.reason,)


def test_a_machine_of_qemus_own_devices_has_no_server(boot: Any) -> None:
    threads = threading.active_count()
    with boot("sleep:30", devices=(DeviceSpec("testdev"), DeviceSpec("edu"))) as machine:
        assert machine.devices == {}
        line = machine.describe()
        assert threading.active_count() == threads + 2  # console and monitor
    assert "memory-backend" not in line
    assert "-device pci-testdev -device edu" in line


def test_a_model_is_plugged_by_the_monitor(tmp_path: Path, files: tuple[Path, Path]) -> None:
    image, initramfs = files
    tools, cache = FakeQemu(), Context(cache=tmp_path / "cache")
    world = QemuWorld(tools, cache, accel="tcg", hotplug_slots=1)
    kernel = KernelImage(Arch.X86_64, "7.3.4", image, image, tmp_path)
    words = tuple(f"do={word}" for word in ("greet", "refuse", "answer", "exit:1"))
    with world.boot(BootSpec(kernel, initramfs, cmdline=words)) as machine:
        with pytest.raises(UsageError, match="cannot plug ringdev: .*not today"):
            machine.plug(DeviceSpec("ringdev"), "late")
        assert machine.devices == {}
        machine.plug(DeviceSpec("ringdev"), "late")
        assert list(machine.devices) == ["late"]
        with pytest.raises(UsageError, match="no free slot"):
            machine.plug(DeviceSpec("edu", {"model": True}), "more")
        with pytest.raises(UsageError, match="QEMU aborts"):
            machine.unplug("late")


def test_devices_are_checked_once(
    tmp_path: Path, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    image, initramfs = files

    world = QemuWorld(FakeQemu(), Context(cache=tmp_path / "cache"), accel="tcg")
    kernel = KernelImage(Arch.X86_64, "7.3.4", image, image, tmp_path)
    spec = BootSpec(kernel, initramfs, (DeviceSpec("edu"),), cmdline=("do=sleep:30",))
    world.check(spec)
    checked: list[DeviceSpec] = []
    monkeypatch.setattr("kdrv.qemu.models.check", lambda device, _: checked.append(device))
    with world.boot(spec):
        assert checked == []
    with world.boot(replace(spec, cpus=2)):
        assert checked == [DeviceSpec("edu")]


def test_what_cannot_boot_is_refused(boot: Any, files: tuple[Path, Path]) -> None:
    for wrong, says in (
        ({"memory_mib": 8}, "8 MiB of memory"),
        ({"devices": (DeviceSpec("eduu"),)}, "no device 'eduu'"),
        ({"arch": Arch.UM}, "architecture um"),
    ):
        with pytest.raises(UsageError, match=says), boot(**wrong):
            pass
    files[1].unlink()
    with pytest.raises(UsageError, match="no initramfs"), boot():
        pass


def test_an_unknown_accelerator_is_refused(ctx: Context, files: tuple[Path, Path]) -> None:
    image, initramfs = files
    spec = BootSpec(KernelImage(Arch.X86_64, "7.3.4", image, image, image.parent), initramfs)
    with (
        pytest.raises(UsageError, match="'hvf'"),
        QemuWorld(FakeTools(), ctx, accel="hvf").boot(spec),
    ):
        pass


@pytest.fixture
def kvm_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A computer of the guest's architecture with a /dev/kvm."""
    device, boot_id = tmp_path / "kvm", tmp_path / "boot_id"
    device.touch()
    boot_id.write_text("first\n")
    monkeypatch.setattr(kvm, "DEVICE", device)
    monkeypatch.setattr(kvm, "BOOT_ID", boot_id)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    return device


def test_kvm_is_tried_once_a_boot(ctx: Context, runner: FakeRunner, kvm_device: Path) -> None:
    status = 2 * kvm.EXIT_VALUE + 1
    runner.answers = [("isa-debug-exit", lambda _: (status, ""))]
    assert kvm.kvm_works(FakeTools(), ctx) == kvm.KvmProbe(True, "a guest booted")
    assert kvm.kvm_works(FakeTools(), ctx).works
    assert len(runner.ran) == 1
    assert kvm.kvm_works(FakeTools(), ctx, fresh=True).works
    kvm.BOOT_ID.write_text("second\n")
    assert kvm.kvm_works(FakeTools(), ctx).works
    assert len(runner.ran) == 3


def test_a_guest_that_does_not_end_means_no_kvm(
    tmp_path: Path, kvm_device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hanging(FakeTools):
        def command(self, argv: Sequence[str], **_: Any) -> Command:
            return Command(("sleep", "60"))

    monkeypatch.setattr(kvm, "DEADLINE", 0.1)
    ctx = Context(cache=tmp_path / "cache", runner=LocalRunner())
    probe = kvm.kvm_works(Hanging(), ctx)
    assert not probe.works
    assert "hardly a step" in probe.reason
    (memo,) = (ctx.cache / "kvm").iterdir()
    assert json.loads(memo.read_text())["works"] is False


def test_kvm_of_another_architecture_or_without_a_device_is_not_tried(
    ctx: Context, kvm_device: Path
) -> None:
    assert "the guest arm64" in kvm.kvm_works(FakeTools(), ctx, Arch.ARM64).reason
    kvm_device.unlink()
    assert "does not exist" in kvm.kvm_works(FakeTools(), ctx).reason


def test_demanding_a_kvm_that_does_not_work_is_refused(
    ctx: Context, files: tuple[Path, Path], kvm_device: Path
) -> None:
    kvm_device.unlink()
    image, initramfs = files
    spec = BootSpec(KernelImage(Arch.X86_64, "7.3.4", image, image, image.parent), initramfs)
    with (
        pytest.raises(SetupError, match="does not exist"),
        QemuWorld(FakeTools(), ctx, accel="kvm").boot(spec),
    ):
        pass
