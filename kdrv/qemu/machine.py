"""A machine in QEMU: the contract of :mod:`kdrv.machine.contract`, and what only QEMU can."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from kdrv.core.errors import CommandFailed, DeadlineExceeded, KdrvError, UsageError
from kdrv.devices.model import Device
from kdrv.devices.pci import PciDevice
from kdrv.machine.console import Console
from kdrv.machine.contract import DeviceSpec, MachineEnded
from kdrv.qemu import models
from kdrv.qemu.catalog import Catalog, device_option
from kdrv.qemu.monitor import Monitor
from kdrv.qemu.serial import SerialLine
from kdrv.qemu.symbols import Symbols
from kdrv.qemu.vfiouser.server import Server
from kdrv.qemu.whereabouts import whereabouts

SEND_SECONDS = 10.0
END_SECONDS = 5.0
UNPLUG_SECONDS = 20.0
"""A guest that behaves waits 5 s by itself, for a second press of the button (PCIe 6.7.1.5)."""
STDERR_LINES = 5
SLOT = "slot{}"

_PREFIX = re.compile(r"^qemu-system-\w+: ")

REASONS = {
    "guest-shutdown": "the guest powered off",
    "guest-reset": "the guest reset itself",
    "guest-panic": "the guest panicked",
    "host-qmp-quit": "QEMU was told to quit",
    "host-signal": "QEMU was ended by a signal",
}
"""Words for the ``reason`` of QEMU's SHUTDOWN event (qapi/run-state.json, ShutdownCause)."""


class QemuChannel:
    """The agent's channel: a virtio-serial port on a socket pair."""

    def __init__(self, sock: socket.socket, machine: QemuMachine) -> None:
        self._socket = sock
        self._machine = machine

    def send(self, data: bytes) -> None:
        """See :meth:`kdrv.machine.contract.Channel.send`.

        Raises :class:`DeadlineExceeded` when the guest takes nothing for long.
        """
        self._socket.settimeout(SEND_SECONDS)
        try:
            self._socket.sendall(data)
        except TimeoutError:
            raise DeadlineExceeded(
                f"the guest took no more bytes for {SEND_SECONDS:.0f} s",
                remedy="look at its console",
            ) from None
        except OSError:
            raise self._machine.why() from None

    def receive(self, timeout: float) -> bytes:
        """See :meth:`kdrv.machine.contract.Channel.receive`.

        Raises also :class:`~kdrv.devices.errors.DeviceFault`, once, when a device model ended the
        machine.
        """
        # A timeout of 0 would make the socket non-blocking, with another exception.
        self._socket.settimeout(max(timeout, 1e-6))
        try:
            data = self._socket.recv(1 << 16)
        except TimeoutError:
            return b""
        except OSError:
            data = b""
        if not data:
            raise self._machine.why()
        return data


class QemuMachine:
    """See :class:`kdrv.machine.contract.Machine`; made by ``QemuWorld.boot``."""

    def __init__(
        self,
        child: subprocess.Popen[bytes],
        *,
        serial: SerialLine,
        console: Console,
        monitor: Monitor,
        agent: socket.socket,
        said: IO[bytes],
        vmlinux: Path,
        catalog: Catalog,
        slots: int,
        server: Server,
        reproducer: str,
    ) -> None:
        self.console = console
        self.monitor = monitor
        self.channel = QemuChannel(agent, self)
        self._child = child
        self._serial = serial
        self._said = said
        self._vmlinux = vmlinux
        self._catalog = catalog
        self._free_slots = [SLOT.format(number) for number in range(slots)]
        self._plugged: dict[str, str] = {}
        self._server = server
        self._fault_told = False
        self._reproducer = reproducer

    @property
    def devices(self) -> Mapping[str, Device]:
        """The models that kdrv plays, by name.

        They work in a thread of their own: look at one when its driver is at rest.
        """
        return self._server.devices

    @property
    def fault(self) -> KdrvError | None:
        """What ended the machine from the side of its models: mostly a :class:`DeviceFault`."""
        return self._server.fault

    @property
    def alive(self) -> bool:
        """Whether QEMU still runs."""
        return self._child.poll() is None

    def clock(self) -> float:
        """See :meth:`kdrv.machine.contract.Machine.clock`."""
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        """See :meth:`kdrv.machine.contract.Machine.pause`."""
        time.sleep(seconds)

    def describe(self) -> str:
        """QEMU's command line with the console on the terminal instead of on our pipes.

        A device that kdrv plays answers only as long as this machine runs.
        """
        return self._reproducer

    def why(self) -> MachineEnded | KdrvError:
        """What to raise when the machine has ended: first the fault of a model, if it was one."""
        ended = self.ended()
        if self.fault and not self._fault_told:
            self._fault_told = True
            return self.fault
        return ended

    def ended(self) -> MachineEnded:
        """How the machine ended, in words; waits a moment for QEMU to be gone."""
        try:
            status = self._child.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            return MachineEnded("QEMU closed its channels but still runs", 0)
        # The sandbox reports death by a signal as a shell does.
        status = 128 - status if status > 128 else status
        self.monitor.finish()
        if self.fault:
            return MachineEnded(f"device fault: {self.fault.message}", status)
        if event := self.monitor.event("SHUTDOWN"):
            cause = str(event["data"].get("reason", ""))
            return MachineEnded(REASONS.get(cause, f"QEMU shut down: {cause}"), status)
        how = f"with status {status}" if status >= 0 else f"by signal {-status}"
        return MachineEnded(": ".join([f"QEMU ended {how}", *self._complaints()]), status)

    def _complaints(self) -> list[str]:
        """What QEMU wrote to its standard error, without its name and its warnings."""
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").splitlines()
        said = [_PREFIX.sub("", line) for line in lines if line and ": warning: " not in line]
        return said[-STDERR_LINES:]

    def diagnose(self) -> tuple[str, ...]:
        """See :meth:`kdrv.machine.contract.Machine.diagnose`.

        Asks the kernel too, by magic keys: its answer appears on the console, so judge the console
        before. Takes up to 3 seconds.
        """
        if not self.alive:
            return (self.ended().reason,)
        if stuck := self._server.stuck():
            # QEMU waits for the model and answers nobody.
            return stuck
        symbols = Symbols.of(self._vmlinux)
        places = whereabouts(self.monitor, self._serial, self.console, symbols)
        return (*self._server.diagnose(), *places)

    def plug(self, device: DeviceSpec, name: str) -> None:
        """Plug a PCI device into a free hotplug slot while the machine runs.

        Raises :class:`UsageError` when there is no free slot (see ``hotplug_slots`` of
        :class:`~kdrv.qemu.world.QemuWorld`) or QEMU refuses the device.
        """
        models.check(device, self._catalog)
        if not self._free_slots:
            raise UsageError(
                f"no free slot to plug {device.kind} into",
                expected=f"a slot; plugged now: {', '.join(self._plugged) or 'nothing'}",
                remedy="give the machine more: slots = 2 below [machine] of kdrv.toml",
            )
        slot = self._free_slots[0]
        if models.is_model(device, self._catalog):
            self._plug_model(device, name, slot)
        else:
            made = device_option(models.of_qemu(device), id=name, bus=slot)
            if said := self.monitor.human("device_add " + made).strip():
                raise UsageError(f"QEMU cannot plug {device.kind}: {said}")
        self._plugged[name] = self._free_slots.pop(0)

    def _plug_model(self, device: DeviceSpec, name: str, slot: str) -> None:
        option = models.device_option(device, name, self._server)
        try:
            self.monitor.execute("device_add", {**option, "id": name, "bus": slot})
        except CommandFailed as error:
            self._server.remove(name)
            raise UsageError(f"QEMU cannot plug {device.kind}: {error.message}") from error

    def unplug(self, name: str) -> None:
        """Ask the guest to give a plugged device back, and wait until it has.

        Raises :class:`DeadlineExceeded` when the guest does not answer within 20 s,
        :class:`MachineEnded` when it ends instead, and :class:`UsageError` for a model with MSI-X.
        """
        model = self.devices.get(name)
        if isinstance(model, PciDevice) and model.msix:
            # hw/vfio-user/pci.c, vfio_user_msix_teardown: the region is no longer where it was.
            raise UsageError(
                f"{name} cannot be unplugged: QEMU aborts when a model with MSI-X goes",
                expected="a model without MSI-X, or a device of QEMU's own",
            )
        mark = self.monitor.mark()
        self.monitor.execute("device_del", {"id": name})
        if not self.monitor.wait_event(
            "DEVICE_DELETED", UNPLUG_SECONDS, lambda data: data.get("device") == name, mark
        ):
            if not self.alive:
                raise self.why()
            raise DeadlineExceeded(f"the guest did not release {name} in {UNPLUG_SECONDS:.0f} s")
        self._server.remove(name)
        self._free_slots.append(self._plugged.pop(name))

    @contextmanager
    def terminal(self) -> Iterator[socket.socket]:
        """The console as a socket, for a person or for pexpect: see :mod:`kdrv.qemu.shell`."""
        with self._serial.terminal() as terminal:
            yield terminal
