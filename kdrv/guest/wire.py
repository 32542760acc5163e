"""The wire between host and agent: messages, and the frames they travel in.

The same in C is ``wire.h``; a test holds the two together. A message travels as one or more
frames of at most :data:`CHUNK` bytes, so that a long one holds up nobody else's. What messages
say is in :mod:`kdrv.guest.bodies`. Any bytes at all can be decoded without harm.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

from kdrv.core.errors import WorkFailed

VERSION = 1
MAGIC = 0x7672646B
CHUNK = 32752
MESSAGE = 4259840
"""The longest message; :data:`DATA` leaves room for what stands around the data."""
DATA = 4 << 20
"""The most data that one call carries, in bytes."""
SESSIONS = 128

_HEADER = struct.Struct("<IHHIHBB")
_MAGIC_BYTES = struct.pack("<I", MAGIC)


class Kind(IntEnum):
    """What a message is about."""

    PING = 1
    GREET = 2
    SPAWN = 3
    CLOSE = 4
    RESET = 5
    INTERRUPT = 6
    INSPECT = 7
    GO = 8
    CALL = 16
    PEEK = 17
    POKE = 18
    RUN = 19
    ANSWER = 128
    REFUSED = 129
    DIED = 130
    HELLO = 131


class Flag(IntFlag):
    """How a frame stands in its message."""

    NONE = 0
    MORE = 1
    ASK = 2


class WireError(WorkFailed):
    """Bytes that cannot be what they should be."""


@dataclass(frozen=True)
class Message:
    """One whole message. ``call`` pairs a request with its answer."""

    kind: int
    session: int
    call: int
    body: bytes = b""


def encode(message: Message) -> bytes:
    """The frames of a message."""
    body = message.body
    if len(body) > MESSAGE:
        raise ValueError(f"a message of {len(body)} bytes; the most is {MESSAGE}")
    frames = bytearray()
    for part, start in enumerate(range(0, max(len(body), 1), CHUNK)):
        piece = body[start : start + CHUNK]
        flags = Flag.MORE if start + CHUNK < len(body) else Flag.NONE
        frames += _HEADER.pack(
            MAGIC, len(piece), part, message.call, message.session, message.kind, flags
        )
        frames += piece
    return bytes(frames)


@dataclass
class _Partial:
    """A message of which the first parts are here."""

    call: int
    parts: int = 0
    body: bytearray = field(default_factory=bytearray)


@dataclass
class Decoder:
    """Turns a byte stream into messages.

    Bytes that are no frame are skipped and counted in ``junk``; a message of which a part got lost
    is dropped and counted in ``lost``. ``asked`` collects the messages, as ``(session, call)``,
    that go on when the host sends :attr:`Kind.GO`.
    """

    junk: int = 0
    lost: int = 0
    asked: list[tuple[int, int]] = field(default_factory=list)
    _pending: bytearray = field(default_factory=bytearray)
    _partial: dict[int, _Partial] = field(default_factory=dict)

    def feed(self, data: bytes) -> list[Message]:
        """Add bytes; gives the messages that are whole now."""
        self._pending += data
        return [message for message in self._frames() if message is not None]

    def _frames(self) -> Iterator[Message | None]:
        while len(self._pending) >= _HEADER.size:
            magic, length, part, call, session, kind, flags = _HEADER.unpack_from(self._pending)
            if magic != MAGIC or length > CHUNK:
                self._skip()
                continue
            if len(self._pending) < _HEADER.size + length:
                return
            body = bytes(self._pending[_HEADER.size : _HEADER.size + length])
            del self._pending[: _HEADER.size + length]
            if flags & Flag.ASK:
                self.asked.append((session, call))
            yield self._join(Message(kind, session, call, body), part, bool(flags & Flag.MORE))

    def _skip(self) -> None:
        """Drop bytes up to where the next frame may begin."""
        found = self._pending.find(_MAGIC_BYTES, 1)
        drop = found if found > 0 else len(self._pending) - len(_MAGIC_BYTES) + 1
        self.junk += drop
        del self._pending[:drop]

    def _join(self, message: Message, part: int, more: bool) -> Message | None:
        if part == 0 and not more:
            return message
        # A session has one long message at a time: a new one takes the place of a broken one.
        partial = self._partial.pop(message.session, None) if part else _Partial(message.call)
        if (
            partial is None
            or (partial.call, partial.parts) != (message.call, part)
            or len(partial.body) + len(message.body) > MESSAGE
            or message.session >= SESSIONS
        ):
            self.lost += 1
            return None
        partial.parts += 1
        partial.body += message.body
        if more:
            self._partial[message.session] = partial
            return None
        return Message(message.kind, message.session, message.call, bytes(partial.body))
