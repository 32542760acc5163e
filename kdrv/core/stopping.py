"""Whether what is being done is still wanted: long jobs ask, whoever gave them out answers."""

from __future__ import annotations

import threading
from collections.abc import Callable

from kdrv.core.errors import KdrvError


class Stopped(KdrvError):
    """A job that ended because nobody wanted it any more."""


class _Here(threading.local):
    """What there is to know in the present thread."""

    def __init__(self) -> None:
        self.unwanted: Callable[[], bool] = lambda: False


_here = _Here()


def stopping() -> bool:
    """Whether nobody wants the present job any more; it ends soon then, with what it has.

    Cheap enough to be asked many times a second. Always false outside of a job.
    """
    return _here.unwanted()


def unless_stopped() -> None:
    """Go on, or raise :class:`Stopped` where :func:`stopping` is true."""
    if stopping():
        raise Stopped("stopped: nobody waits for this job any more")


def answer(unwanted: Callable[[], bool]) -> None:
    """Let ``unwanted`` answer :func:`stopping` in this thread from now on."""
    _here.unwanted = unwanted


def answering() -> Callable[[], bool]:
    """What answers in this thread, for threads of its own to :func:`answer` alike."""
    return _here.unwanted
