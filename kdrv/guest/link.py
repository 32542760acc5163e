"""The host's end of the channel: sends requests, pairs answers with them, waits with deadlines.

Nobody reads in the background: whoever waits for an answer reads the channel, and hands out what
is for others. So a world with a clock of its own (the simulator) only runs while a test waits.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NoReturn, Protocol, TypeVar

from kdrv.core.errors import DeadlineExceeded, SetupError, WorkFailed
from kdrv.guest import bodies, wire
from kdrv.guest.bodies import Hello, Inspection
from kdrv.guest.errors import CONSOLE_LINES, REPORT_LINES, GuestCallDied, GuestGone, GuestSilent
from kdrv.guest.wire import Kind, Message, WireError
from kdrv.machine.console import Console
from kdrv.machine.contract import Channel, MachineEnded

T = TypeVar("T")

INSPECTION_SECONDS = 2.0
"""How long the agent may take to say what a hanging call is doing."""


class Turns(Protocol):
    """Lets several actors of one thread wait at the same time; see :meth:`Link.wait`."""

    def wait(self, link: Link, finished: Callable[[], bool], timeout: float) -> bool:
        """Wait until ``finished()``, at most ``timeout`` seconds; false then."""
        ...


@dataclass(eq=False)
class Exchange:
    """A request that was sent, and when, in seconds of the world, its answer came.

    ``ended`` says that it never comes: the machine is gone.
    """

    what: str
    session: int
    console_mark: int
    sent: float
    came: float = 0.0
    answer: Message | None = None
    ended: bool = False
    late: bool = False

    def arrived(self) -> bool:
        """Whether there is nothing to wait for any more."""
        return self.answer is not None or self.ended


class Link:
    """The connection to one agent.

    ``clock`` counts the world's seconds, the same that :meth:`Channel.receive` waits by.
    ``console`` and ``diagnose`` only make errors tell more.
    """

    def __init__(
        self,
        channel: Channel,
        *,
        console: Console | None = None,
        diagnose: Callable[[], tuple[str, ...]] = tuple,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.hello: Hello | None = None
        self.turns: Turns | None = None
        """Who waits instead, where several actors share this thread."""
        self.lost = False
        """Whether the machine ended, or the agent did not answer when it was last asked."""
        self._channel = channel
        self._console = console
        self._diagnose = diagnose
        self._clock = clock
        self._decoder = wire.Decoder()
        self._waiting: dict[int, Exchange] = {}
        self._last_call = 0
        self._turn = threading.Condition()
        self._reading = False
        self._sending = threading.Lock()
        self._ended: MachineEnded | None = None

    def send(self, what: str, kind: Kind, session: int, body: bytes = b"") -> Exchange:
        """Send a request; ``what`` names it in errors.

        Raises :class:`GuestSilent` when the channel says that the guest does not take it.
        """
        began = self._clock()
        exchange = Exchange(what, session, self._console.mark() if self._console else 0, began)
        with self._turn:
            self._last_call = self._last_call % 0xFFFFFFFF + 1
            message = Message(kind, session, self._last_call, body)
            self._waiting[message.call] = exchange
        try:
            self._transmit(message)
        except DeadlineExceeded as late:
            self.lost = True
            seconds = self._clock() - began
            raise GuestSilent(what, seconds, None, self.console_tail(), self._diagnose()) from late
        return exchange

    def wait_for_hello(self, timeout: float) -> Hello:
        """Wait until the agent greets. Raises :class:`GuestSilent` or :class:`GuestGone`."""
        what = "the start of the guest"
        if not self.wait(lambda: self.hello is not None or self._ended is not None, timeout):
            raise GuestSilent(what, timeout, None, self.console_tail(), self._diagnose())
        if self.hello is None:
            self.raise_gone(what)
        if self.hello.version != wire.VERSION:
            raise SetupError(
                f"the guest's agent speaks version {self.hello.version} of the wire",
                expected=f"version {wire.VERSION}",
                remedy="build the initramfs again",
            )
        return self.hello

    def wait(self, finished: Callable[[], bool], timeout: float) -> bool:
        """Read and hand out messages until ``finished()`` or ``timeout`` seconds are over."""
        if self.turns:
            return self.turns.wait(self, finished, timeout)
        until = self._clock() + timeout
        left = timeout
        while not finished():
            if not self._listen(finished, max(left, 0.0)):
                return finished()
            left = until - self._clock()  # when it is over, what has come already still counts
        return True

    def _listen(self, finished: Callable[[], bool], timeout: float) -> bool:
        """Read once, or let the thread that reads already do it; false when nothing came."""
        with self._turn:
            if self._reading:
                return self._turn.wait_for(lambda: finished() or not self._reading, timeout)
            self._reading = True
        try:
            return self.hear(timeout)
        finally:
            with self._turn:
                self._reading = False
                self._turn.notify_all()

    def clock(self) -> float:
        """The world's time in seconds."""
        return self._clock()

    def hear(self, timeout: float) -> bool:
        """Read once and hand out what came; false when nothing did within ``timeout`` seconds."""
        try:
            data = self._channel.receive(timeout)
        except MachineEnded as end:
            self._end(end)
            return True
        except WorkFailed:
            # A device model that raised has ended the machine: nobody is there to be asked.
            self.lost = True
            raise
        self.lost = self.lost and not data
        for message in self._decoder.feed(data):
            if message.kind == Kind.HELLO:
                self.hello = bodies.decode_hello(message.body)
            exchange = self._waiting.pop(message.call, None)
            if exchange is not None:
                exchange.answer, exchange.came = message, self._clock()
        self._go_on()
        return bool(data)

    def _go_on(self) -> None:
        """Ask for the rest of long answers, where the channel would drop what is too much."""
        asked, self._decoder.asked = self._decoder.asked, []
        for session, call in asked:
            self._transmit(Message(Kind.GO, session, call))

    def _transmit(self, message: Message) -> None:
        with self._sending:
            try:
                self._channel.send(wire.encode(message))
            except MachineEnded as end:
                self._end(end)

    def _end(self, end: MachineEnded) -> None:
        self._ended = end
        self.lost = True
        for exchange in tuple(self._waiting.values()):
            exchange.ended = True
        self._waiting.clear()

    def raise_gone(self, what: str) -> NoReturn:
        """Raise :class:`GuestGone`: the machine has ended."""
        reason = self._ended.reason if self._ended else "the channel closed"
        raise GuestGone(what, reason, self.console_tail()) from self._ended

    def raise_silent(self, what: str, session: int, timeout: float) -> NoReturn:
        """Ask the agent what the session is doing, and raise :class:`GuestSilent`."""
        inspection = self.inspect(session)
        self.lost = inspection is None
        # A process that runs has no stack to show: the machine can tell where its processors are.
        told = inspection is not None and bool(inspection.stack or inspection.wchan)
        diagnosis = () if told else self._diagnose()
        raise GuestSilent(what, timeout, inspection, self.console_tail(), diagnosis)

    def inspect(self, session: int) -> Inspection | None:
        """What the session's worker is doing; None when the agent does not answer."""
        try:
            asked = self.send("an inspection", Kind.INSPECT, session)
        except GuestSilent:
            return None
        self.wait(asked.arrived, INSPECTION_SECONDS)
        if asked.answer is None or asked.answer.kind != Kind.ANSWER:
            return None
        return bodies.decode_inspection(asked.answer.body)

    def raise_died(self, exchange: Exchange, status: int) -> NoReturn:
        """Raise :class:`GuestCallDied` with what the console said since the call began."""
        said = self._console.since(exchange.console_mark) if self._console else ()
        raise GuestCallDied(exchange.what, status, said[:REPORT_LINES])

    def console_tail(self) -> tuple[str, ...]:
        """The console's last lines, as far as there is a console."""
        return self._console.tail(CONSOLE_LINES) if self._console else ()


class Pending(Generic[T]):
    """A call under way. :meth:`result` waits for it; a second one gives the same again.

    ``patience`` is how long :meth:`result` waits when it is not told, in seconds.
    """

    def __init__(
        self, link: Link, exchange: Exchange, decode: Callable[[bytes], T], patience: float
    ) -> None:
        self.what = exchange.what
        self._link = link
        self._exchange = exchange
        self._decode = decode
        self._patience = patience

    def done(self) -> bool:
        """Whether :meth:`result` would return, or raise, at once."""
        return self._link.wait(self._exchange.arrived, 0.0)

    def arrives(self, timeout: float) -> bool:
        """Whether the answer comes within ``timeout`` seconds; the call goes on if it does not."""
        return self._link.wait(self._exchange.arrived, timeout)

    def interrupt(self) -> None:
        """Signal the call in the guest: an interruptible wait in a driver ends with ``EINTR``."""
        session = self._exchange.session
        asked = self._link.send(f"interrupting {self.what}", Kind.INTERRUPT, session)
        Pending(self._link, asked, bodies.decode_result, self._patience).result()

    def result(self, timeout: float | None = None) -> T:
        """Wait, at most ``timeout`` seconds, and give what the call gave.

        Raises ``OSError`` when the system call failed, :class:`GuestSilent` at the deadline,
        :class:`GuestGone` when the machine ended and :class:`GuestCallDied` when the kernel
        killed the calling process.
        """
        seconds = self._patience if timeout is None else timeout
        if not self._link.wait(self._exchange.arrived, seconds):
            self._exchange.late = True
            self._link.raise_silent(self.what, self._exchange.session, seconds)
        answer = self._exchange.answer
        if answer is None:
            self._link.raise_gone(self.what)
        if answer.kind == Kind.DIED:
            status, _ = bodies.decode_result(answer.body)
            self._link.raise_died(self._exchange, status)
        if answer.kind == Kind.REFUSED:
            error = -bodies.decode_result(answer.body)[0]
            raise OSError(error, f"the agent refused {self.what}: {os.strerror(error)}")
        try:
            return self._decode(answer.body)
        except (struct.error, OverflowError) as error:
            raise WireError(f"the answer to {self.what} is none: {error}") from error
