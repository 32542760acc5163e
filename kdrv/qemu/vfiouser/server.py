"""The thread that plays all device models of a machine, in real time.

One thread: models need no locks, and a model's timers never run in the middle of an access.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from kdrv.core.errors import DeadlineExceeded, KdrvError, SetupError, UsageError
from kdrv.devices.clock import Clock
from kdrv.devices.model import Device
from kdrv.devices.pci import PciDevice
from kdrv.qemu.vfiouser.session import Session
from kdrv.qemu.vfiouser.slot import Slot
from kdrv.qemu.vfiouser.wire import Hangup

Result = TypeVar("Result")
LONGEST_WAIT = 1.0
JOIN_SECONDS = 3.0
FRAMES = 3
"""How much of the stack of a stuck model is shown."""
TIMERS_AT_ONCE = 1000
"""A model whose timer starts itself again and again must not keep the guest from being served."""


class Server:
    """Listens for QEMU, one socket a model. Enter it before QEMU starts, leave it after.

    ``place`` is the directory of the sockets; ``fault`` is what ended the thread, if anything did:
    a :class:`~kdrv.devices.errors.DeviceFault`, or another error where kdrv or QEMU is to blame.
    """

    def __init__(self) -> None:
        self.fault: KdrvError | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="kdrv-")
        self.place = Path(self._folder.name)
        self._clock = Clock()
        self._slots: dict[str, Slot] = {}
        self._listeners: dict[socket.socket, Slot] = {}
        self._sessions: dict[socket.socket, Session] = {}
        self._count = 0
        self._asked: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="kdrv-devices", daemon=True)
        self._began = 0
        self._stopped = False
        self._end: Callable[[], None] = lambda: None

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._wake.close()
        if self._thread.ident is not None:
            # A model that never returns keeps the thread, which then dies with the process.
            self._thread.join(JOIN_SECONDS)
        if not self._thread.is_alive():
            self._close()
        self._folder.cleanup()

    @property
    def devices(self) -> Mapping[str, Device]:
        """The models by name."""
        return {name: slot.model for name, slot in self._slots.items()}

    def add(self, name: str, model: type[PciDevice], options: Mapping[str, object]) -> str:
        """Plug a model in; gives its socket's name in :attr:`place`.

        Raises :class:`UsageError` for a name that is taken, and
        :class:`~kdrv.devices.errors.DeviceFault` when the model cannot be made.
        """
        return self._in_thread(lambda: self._add(name, model, options))

    def remove(self, name: str) -> None:
        """Pull a model out; QEMU has let go of it. Nothing happens when there is none."""
        self._in_thread(lambda: self._remove(name))

    def _in_thread(self, action: Callable[[], Result]) -> Result:
        """Only one thread touches models and their clock: once it runs, it is that one."""
        if not self._thread.is_alive():
            return action()
        done: Future[Result] = Future()

        def work() -> None:
            try:
                done.set_result(action())
            except Exception as error:
                done.set_exception(error)

        self._asked.put(work)
        self._wake.send(b"\0")
        try:
            return done.result(JOIN_SECONDS)
        except TimeoutError:
            raise DeadlineExceeded(
                f"the device models did not answer within {JOIN_SECONDS:.0f} s", detail=self.stuck()
            ) from None

    def _add(self, name: str, model: type[PciDevice], options: Mapping[str, object]) -> str:
        if name in self._slots:
            raise UsageError(f"there is a device {name} already", expected="a name of its own")
        slot = Slot(name, self._clock, model, options)
        self._count += 1
        door = f"d{self._count}"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # The address of a socket has room for 107 bytes only; this way the directory's is free.
        handle = os.open(self.place, os.O_PATH | os.O_DIRECTORY)
        try:
            listener.bind(f"/proc/self/fd/{handle}/{door}")
        finally:
            os.close(handle)
        listener.listen(1)
        self._slots[name] = slot
        self._listeners[listener] = slot
        return door

    def _remove(self, name: str) -> None:
        slot = self._slots.pop(name, None)
        for session in [each for each in self._sessions.values() if each.slot is slot]:
            self._hang_up(session)
        for listener in [door for door, served in self._listeners.items() if served is slot]:
            del self._listeners[listener]
            listener.close()

    def start(self, end: Callable[[], None]) -> None:
        """Serve from here on. ``end`` ends the machine; it is called when a model raises."""
        self._end = end
        self._began = time.monotonic_ns()
        self._thread.start()

    def diagnose(self) -> tuple[str, ...]:
        """What there is to say of a machine that has gone silent."""
        return tuple(line for slot in self._slots.values() for line in slot.recently())

    def stuck(self) -> tuple[str, ...]:
        """The model that has not come back from what it was asked, and where in its code it is."""
        said = [words for slot in self._slots.values() if (words := slot.stuck())]
        frame = sys._current_frames().get(self._thread.ident or 0)
        if not said or frame is None:
            return ()
        places = traceback.extract_stack(frame)[-FRAMES:]
        return (*said, *(f"  {place.filename}:{place.lineno} in {place.name}" for place in places))

    # --- the thread

    def _run(self) -> None:
        try:
            while not self._stopped:
                self._serve_once()
        except KdrvError as fault:
            self.fault = fault
        except Exception as error:
            # A server that died quietly would leave the guest waiting for its answer.
            self.fault = SetupError(
                f"the server of the device models failed: {type(error).__name__}: {error}",
                remedy="report it, with this message",
            )
        if self.fault:
            # QEMU first: with its connections open it waits, and the guest sees no wrong answer.
            self._end()

    def _serve_once(self) -> None:
        self._tick()
        sources = [self._woken, *self._listeners, *self._sessions]
        # Not poll: it counts in milliseconds, and devices take microseconds.
        ready, _, _ = select.select(sources, (), (), self._wait())
        self._tick()
        for source in ready:
            if source is self._woken:
                source.recv(1)
                while not self._asked.empty():
                    self._asked.get()()
            if session := self._sessions.get(source):
                self._serve(session)
            elif slot := self._listeners.get(source):
                self._accept(source, slot)

    def _wait(self) -> float:
        due = self._clock.due()
        return LONGEST_WAIT if due is None else min(max(due - self._now(), 0) / 1e9, LONGEST_WAIT)

    def _now(self) -> int:
        return time.monotonic_ns() - self._began

    def _tick(self) -> None:
        """Run the timers that are due, then let the clock show the present."""
        now = self._now()
        for _ in range(TIMERS_AT_ONCE):
            due = self._clock.due()
            if due is None or due > now:
                break
            self._clock.step()
        self._clock.now = now

    def _accept(self, listener: socket.socket, slot: Slot) -> None:
        connection, _ = listener.accept()
        if slot.gone or any(session.slot is slot for session in self._sessions.values()):
            connection.close()
        else:
            self._sessions[connection] = Session(slot, connection)

    def _serve(self, session: Session) -> None:
        try:
            session.serve()
        except Hangup:
            self._hang_up(session)

    def _hang_up(self, session: Session) -> None:
        del self._sessions[session.connection]
        session.close()

    def _close(self) -> None:
        for session in tuple(self._sessions.values()):
            session.close()
        self._sessions.clear()
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        with contextlib.suppress(OSError):
            self._wake.close()
            self._woken.close()
