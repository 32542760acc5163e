"""QEMU's monitor (QMP, docs/interop/qmp-spec.rst), spoken by a thread of its own.

The thread also hears why the machine ends, which only QEMU knows.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import socket
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from kdrv.core.errors import CommandFailed, DeadlineExceeded

if TYPE_CHECKING:
    from qemu.qmp import QMPClient

DEADLINE = 5.0
"""How long QEMU may take to answer, in seconds."""


class Monitor:
    """The host's end of QMP on a socket pair. Enter it before QEMU starts, leave it after."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="kdrv-qmp", daemon=True)
        self._loop: asyncio.AbstractEventLoop
        self._client: QMPClient | None = None
        self._events: list[Mapping[str, Any]] = []
        self._changed = threading.Condition()
        self._over = False

    @property
    def guest_fds(self) -> tuple[int, ...]:
        """The descriptor QEMU inherits."""
        return (self._theirs.fileno(),)

    def arguments(self) -> tuple[str, ...]:
        """QEMU's options for the monitor."""
        fd = self._theirs.fileno()
        return ("-chardev", f"socket,id=monitor,fd={fd}", "-qmp", "chardev:monitor")

    def __enter__(self) -> Monitor:
        return self

    def started(self) -> None:
        """QEMU has its end now: close ours, and talk from here on."""
        self._theirs.close()
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._theirs.close()
        if self._thread.ident is not None:
            self.finish()
        self._ours.close()

    def finish(self) -> None:
        """Hear all that QEMU said before it ended."""
        self._thread.join(DEADLINE)

    def execute(self, name: str, arguments: Mapping[str, object] | None = None) -> Any:
        """Run a QMP command and give its result.

        Raises :class:`CommandFailed` with QEMU's own words when it refuses or has ended, and
        :class:`DeadlineExceeded` when it does not answer.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._client or self._over, DEADLINE)
            client, over = self._client, self._over
        if over:
            raise CommandFailed(f"QEMU has ended and cannot {name}")
        if client is None:
            raise DeadlineExceeded(f"QEMU's monitor did not greet within {DEADLINE:.0f} s")
        asking = client.execute(name, dict(arguments or {}))
        try:
            answer = asyncio.run_coroutine_threadsafe(asking, self._loop)
        except RuntimeError as error:
            asking.close()  # the loop has ended, with QEMU, this very moment
            raise CommandFailed(f"QEMU has ended and cannot {name}") from error
        try:
            return answer.result(DEADLINE)
        except concurrent.futures.TimeoutError:
            answer.cancel()
            raise DeadlineExceeded(f"QEMU did not {name} within {DEADLINE:.0f} s") from None
        except Exception as error:
            # The library has several unrelated classes for a refusal and for a lost connection.
            raise CommandFailed(f"QEMU refused {name}: {error}") from error

    def human(self, line: str) -> str:
        """Run a line of the human monitor and give what it printed."""
        return str(self.execute("human-monitor-command", {"command-line": line}))

    def event(self, name: str) -> Mapping[str, Any] | None:
        """The first event of this name so far."""
        with self._changed:
            return next((e for e in self._events if e["event"] == name), None)

    def mark(self) -> int:
        """A position in the events: :meth:`wait_event` looks at those after it."""
        with self._changed:
            return len(self._events)

    def wait_event(
        self, name: str, timeout: float, accept: Callable[[Mapping[str, Any]], bool], mark: int
    ) -> bool:
        """Wait for an event of this name after ``mark`` that ``accept`` likes.

        False when the time is over, or QEMU ended.
        """

        def came() -> bool:
            later = self._events[mark:]
            return any(e["event"] == name and accept(e.get("data", {})) for e in later)

        with self._changed:
            self._changed.wait_for(lambda: came() or self._over, timeout)
            return came()

    def _run(self) -> None:
        try:
            asyncio.run(self._session())
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()

    async def _session(self) -> None:
        # Imported here because it takes 0.1 s: now the guest boots meanwhile.
        from qemu.qmp import EventListener, Message, QMPClient, QMPError, Runstate

        def record(event: Message) -> bool:
            with self._changed:
                self._events.append(event)
                self._changed.notify_all()
            return False

        # The library asserts that QEMU did not end while it was being greeted; some do.
        lost = (QMPError, EOFError, OSError, AssertionError)
        client = QMPClient("kdrv")
        client.register_listener(EventListener(event_filter=record))
        with contextlib.suppress(*lost):
            await client.connect(self._ours)
            with self._changed:
                self._loop = asyncio.get_running_loop()
                self._client = client
                self._changed.notify_all()
            while client.runstate is Runstate.RUNNING:
                await client.runstate_changed()
        with contextlib.suppress(*lost):
            await client.disconnect()
