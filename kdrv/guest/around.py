"""Calls of a session with something done around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from kdrv.guest.link import Pending
from kdrv.guest.operations import Operations
from kdrv.guest.wire import Kind

T = TypeVar("T")


class Around(Operations):
    """The calls of another one's session; who inherits says what is done around them."""

    def __init__(self, plain: Operations) -> None:
        super().__init__(plain.link, plain.session, plain._abi, plain.patience)
        self._plain = plain

    def _start(
        self,
        what: str,
        kind: Kind,
        body: bytes,
        decode: Callable[[bytes], T],
        extra_seconds: float = 0.0,
    ) -> Pending[T]:
        return self._plain._start(what, kind, body, decode, extra_seconds)
