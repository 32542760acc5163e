"""A machine in the simulator: its processes, console, channel, devices and history."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from kdrv.devices.errors import DeviceFault
from kdrv.devices.model import Device
from kdrv.machine.console import Console
from kdrv.machine.contract import MachineEnded
from kdrv.sim.engine import Ended, Engine, Rebooted, Stalled
from kdrv.sim.faults import Schedule
from kdrv.sim.host import this_host
from kdrv.sim.launcher import Running
from kdrv.sim.pcidev import PciTransport
from kdrv.sim.port import Port
from kdrv.sim.trace import Trace, history_hash
from kdrv.sim.wire import ProtocolError

EXIT_DEADLINE = 3.0
PIECE = 1 << 16
FLOOD = 1 << 20
"""Bytes on the console, printed without a pause."""
LAST_WORDS = 16 << 10
"""Bytes that are kept of what a kernel printed before it was killed for never standing still."""
KILLED = -9


class SimMachine:
    """See :class:`kdrv.machine.contract.Machine`; times are virtual.

    ``devices`` are the models by name, to be inspected at any time; ``trace`` is everything that
    went over their buses; ``schedule.fired`` is every fault that was injected; ``fault`` is the
    :class:`DeviceFault` that ended the run, if one did. ``host`` is the processor this history
    belongs to. ``addresses`` are the PCI devices' places in the guest, by name.
    """

    def __init__(
        self,
        description: str,
        child: Running,
        output: Path,
        console: Console,
        port: Port,
        transports: Sequence[PciTransport],
        devices: Mapping[str, Device],
        trace: Trace,
        schedule: Schedule,
    ) -> None:
        self.console = console
        self.devices = devices
        self.host = this_host()
        self.addresses = {t.device.name: f"0000:00:{i:02x}.0" for i, t in enumerate(transports)}
        self.trace = trace
        self.schedule = schedule
        self.fault: DeviceFault | None = None
        self.line_times: list[int] = []
        """For every line of the console: the virtual time, in nanoseconds, at which it was seen."""
        self._description = description
        self._child = child
        self._output = output.open("rb")
        self._port = port
        self._transports = transports
        self._engine: Engine | None = None
        self._end: MachineEnded | None = None
        self._room: int | None = None

    def attach(self, engine: Engine) -> None:
        """Take the loop that runs this machine; called once, by the world."""
        self._engine = engine

    def close(self) -> None:
        """Kill the kernel and read the rest of its console."""
        self._kill()
        self.watch()
        self.console.finish()
        self._output.close()

    @property
    def engine(self) -> Engine:
        """The loop that runs this machine."""
        assert self._engine is not None
        return self._engine

    @property
    def pulled(self) -> tuple[str, ...]:
        """The devices that were pulled out; see :func:`kdrv.sim.removal.announce`."""
        return tuple(t.device.name for t in self._transports if t.device.bus.gone)

    @property
    def channel(self) -> SimMachine:
        """The way to the agent: the machine itself."""
        return self

    @property
    def now(self) -> int:
        """Virtual time in nanoseconds."""
        return self.engine.clock.now

    def clock(self) -> float:
        """See :class:`~kdrv.machine.contract.Machine`: virtual time."""
        return self.now / 1e9

    def pause(self, seconds: float) -> None:
        """See :class:`~kdrv.machine.contract.Machine`. Raises :class:`DeviceFault`."""
        with contextlib.suppress(MachineEnded):
            self.run(lambda: False, seconds)

    @property
    def alive(self) -> bool:
        """See :class:`~kdrv.machine.contract.Machine`."""
        return self._end is None and self._child.poll() is None

    def describe(self) -> str:
        """See :class:`~kdrv.machine.contract.Machine`.

        Pasted into a shell the kernel would wait for its calendar: the line is for reading.
        """
        return self._description

    def history(self) -> str:
        """One hash over the console and the device trace so far."""
        return history_hash(self.console.since(), self.trace)

    def watch(self) -> None:
        """Take over what the kernel has printed; called whenever it stands still."""
        # Not by read(): it asks the file for its size first, and this is done at every message.
        while data := os.read(self._output.fileno(), PIECE):
            if self._room is not None:
                data = data[: self._room]
                self._room -= len(data)
                if not data:
                    break
            before = self.console.mark()
            self.console.feed(data)
            self.line_times += [self.now] * (self.console.mark() - before)

    def floods(self) -> bool:
        """Whether the kernel, which runs, has printed so much that it will hardly stop."""
        output = self._output.fileno()
        return os.fstat(output).st_size - os.lseek(output, 0, os.SEEK_CUR) > FLOOD

    # --- Channel

    def send(self, data: bytes) -> None:
        """See :class:`~kdrv.machine.contract.Channel`."""
        if self._end:
            raise self._end
        self._port.send(data)

    def receive(self, timeout: float) -> bytes:
        """See :class:`~kdrv.machine.contract.Channel`; ``timeout`` is in virtual seconds.

        Raises also :class:`DeviceFault`, once, when a device model ended the run.
        """
        if not self._port.received:
            self.run(lambda: bool(self._port.received), timeout)
        data = bytes(self._port.received)
        self._port.received.clear()
        if data:
            # The guest has booted, for its agent speaks.
            self.schedule.begin()
        return data

    def run(self, until: Callable[[], bool], timeout: float) -> bool:
        """Let virtual time pass until ``until()``, at most ``timeout`` seconds; false then.

        Raises :class:`MachineEnded`, or :class:`DeviceFault`.
        """
        if self._end:
            raise self._end
        over: list[bool] = []
        alarm = self.engine.clock.after(round(timeout * 1e9), lambda: over.append(True))
        try:
            self.engine.run(lambda: bool(over) or until(), lambda: self._child.poll() is not None)
        except Ended:
            raise self._finish() from None
        except Rebooted:
            raise self._break("the guest reset the machine") from None
        except Stalled as stall:
            # How much it printed since it last stood still is up to the host; how it began is not.
            self._room = LAST_WORDS
            raise self._break(f"stalled: {stall}") from None
        except ProtocolError as error:
            self._break(str(error))
            raise
        except DeviceFault as fault:
            self.fault = fault
            self._break(f"device fault: {fault.message}")
            raise
        finally:
            alarm.cancel()
            self.watch()
        return not over or until()

    def _finish(self) -> MachineEnded:
        """The kernel has let go of the calendar: how did its process end?"""
        self.watch()
        try:
            status = self._child.wait(EXIT_DEADLINE)
        except subprocess.TimeoutExpired:
            return self._break("the kernel let go of its clock and did not exit")
        if status == 0:
            reason = "the guest powered off"
        elif status < 0:
            named = -status in signal.valid_signals() and -status < signal.SIGRTMIN
            name = signal.Signals(-status).name if named else f"signal {-status}"
            reason = f"the kernel died of {name}"
        else:
            reason = f"the kernel exited with status {status}"
        self._end = MachineEnded(reason, status)
        return self._end

    def _break(self, reason: str) -> MachineEnded:
        self._kill()
        self._end = MachineEnded(reason, KILLED)
        return self._end

    def _kill(self) -> None:
        self._child.kill()

    def diagnose(self) -> tuple[str, ...]:
        """See :class:`~kdrv.machine.contract.Machine`."""
        engine = self.engine
        doing = "waits for time to pass" if engine.calendar.waiting else "runs"
        lines = [f"virtual time {self.now / 1e9:.9f} s; the kernel {doing}"]
        lines += [f"last on the bus: {record}" for record in self.trace.since(len(self.trace) - 5)]
        return tuple(lines)
