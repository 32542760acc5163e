"""The loop that runs a simulated machine: one thread, one queue, one kernel."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kdrv.sim.calendar import FOREVER, Calendar
from kdrv.sim.vhost import VhostServer
from kdrv.sim.wire import Hangup

BUSY_MESSAGES = 100_000
"""A kernel that talks to its devices so often while no virtual time passes will never stop."""


class Stalled(Exception):
    """The kernel runs without end; the text says how that showed."""


class Ended(Exception):
    """The kernel has closed its connection to the calendar: it is going down."""


class Rebooted(Exception):
    """The kernel has started itself anew and asks for a second calendar."""


class Connected(Protocol):
    """Something served over a connection that the kernel opens."""

    connection: socket.socket | None

    def serve(self) -> None:
        """Handle one message."""
        ...


@dataclass(frozen=True)
class Door:
    """A listening socket, named relative to the machine's directory, and who answers there."""

    name: str
    listener: socket.socket
    answers: Connected


def open_door(directory: Path, name: str, answers: Connected) -> Door:
    """Listen at ``directory/name``, however long that path is."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The address of a socket has room for 107 bytes only; this way the directory's length is free.
    handle = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        listener.bind(f"/proc/self/fd/{handle}/{name}")
    finally:
        os.close(handle)
    listener.listen(1)
    return Door(name, listener, answers)


class Engine:
    """Moves the kernel and the devices through virtual time.

    ``patience`` is how many seconds of the host's time the kernel may run without a word.
    ``watch`` is called whenever the kernel stands still; ``floods`` while it runs, and tells
    whether it prints without an end.
    """

    def __init__(
        self,
        calendar: Calendar,
        doors: Sequence[Door],
        patience: float,
        watch: Callable[[], None],
        floods: Callable[[], bool] = lambda: False,
    ) -> None:
        self.calendar = calendar
        self.clock = calendar.clock
        self.patience = patience
        self.messages = 0
        """How many messages the kernel has sent."""
        self._watch = watch
        self._floods = floods
        self._poll = select.poll()
        self._doors: dict[int, Door] = {}
        self._served: dict[int, Connected] = {}
        self._busy_since = (0, 0)
        for door in doors:
            self._doors[door.listener.fileno()] = door
            self._poll.register(door.listener, select.POLLIN)

    def close(self) -> None:
        """Close the listening sockets."""
        for door in self._doors.values():
            door.listener.close()
        self._doors.clear()

    def run(self, until: Callable[[], bool], dead: Callable[[], bool]) -> None:
        """Go on until ``until()``; the kernel then waits, or works on at its present time.

        ``dead`` tells whether the process has gone without connecting at all. Raises
        :class:`Ended`, :class:`Rebooted`, :class:`Stalled`, or what a device raises.
        """
        while not until():
            try:
                self._go_on(dead)
            except TimeoutError as error:
                raise Stalled("the kernel does not answer an interrupt") from error
            except Hangup:
                raise Ended from None

    def _go_on(self, dead: Callable[[], bool]) -> None:
        if not self.calendar.waiting:
            self._serve_one(dead)
        elif not self._run_event():
            wanted = self.calendar.request
            if wanted >= FOREVER:
                raise Stalled("the kernel sleeps for ever and no device will wake it")
            self.calendar.grant(wanted)

    def _run_event(self) -> bool:
        """Run our next event if it comes no later than what the waiting kernel wants."""
        due = self.clock.due()
        if due is None or due > self.calendar.request:
            return False
        self.clock.now = due
        self.calendar.publish()
        self.clock.step()
        return True

    def _serve_one(self, dead: Callable[[], bool]) -> None:
        until = time.monotonic() + self.patience
        while not (ready := self._poll.poll(200)):
            if dead():
                raise Ended
            if time.monotonic() > until:
                raise Stalled(
                    f"the kernel has run for {self.patience:.0f} s of the host's time "
                    "without waiting for anything"
                )
            if self._floods():
                raise Stalled("the kernel prints without an end")
        # Before it is answered: then it goes on, and prints on, at the pace of the host.
        self._watch()
        descriptor = min(found for found, _ in ready)
        door = self._doors.get(descriptor)
        if door:
            self._accept(door)
        else:
            self._serve(descriptor)

    def _accept(self, door: Door) -> None:
        connection, _ = door.listener.accept()
        if door.answers.connection is not None:
            connection.close()
            raise Rebooted
        connection.settimeout(self.patience)
        door.answers.connection = connection
        self._served[connection.fileno()] = door.answers
        self._poll.register(connection, select.POLLIN)

    def _serve(self, descriptor: int) -> None:
        served = self._served[descriptor]
        try:
            served.serve()
            self._count()
        except Hangup:
            self._poll.unregister(descriptor)
            del self._served[descriptor]
            if served is self.calendar:
                raise
            # At power-off the kernel lets go of its devices one by one and still needs the clock.
            if isinstance(served, VhostServer):
                served.close()

    def _count(self) -> None:
        self.messages += 1
        at, since = self._busy_since
        if self.clock.now != at:
            self._busy_since = (self.clock.now, self.messages)
        elif self.messages - since > BUSY_MESSAGES:
            raise Stalled(
                f"the kernel has sent {BUSY_MESSAGES} messages to its devices "
                f"at {self.clock.now / 1e9:.9f} s while no time passed"
            )
