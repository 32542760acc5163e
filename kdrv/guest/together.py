"""Several small things in one request: under emulation the way there and back costs the most."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence

from kdrv.guest.bodies import Fill, In, Outcome, Result, Step, StepFlag
from kdrv.guest.session import Session
from kdrv.guest.syscalls import decode_dirents
from kdrv.guest.values import encode_path

ROOM = 1 << 18
"""How much of a file is read, in bytes."""

_AT_FDCWD = -100
_OPEN_READ_CLOSE = 3


def read_files(session: Session, paths: Sequence[str], room: int = ROOM) -> list[str]:
    """The first ``room`` bytes of each file as UTF-8, all of them in one request.

    Raises ``OSError`` when one of them cannot be read, ``FileNotFoundError`` when there is none.
    """
    steps: list[Step] = []
    for path in paths:
        steps += _opened(session, len(steps), path, "read", Fill(room), room)

    def decode(done: list[Outcome]) -> list[str]:
        texts = done[1::_OPEN_READ_CLOSE]
        return [text.buffers[0].decode(errors="replace") for text in texts]

    return session.begin.calls(f"reading {', '.join(paths)}", steps, decode).result()


def list_small(session: Session, folder: str) -> list[str]:
    """The names in a directory that is not large (some 1000), in one request.

    Empty when there is no such directory.
    """
    steps = _opened(session, 0, folder, "getdents64", Fill(ROOM), ROOM)
    asked = session.begin.calls(
        f"listing {folder}", steps, lambda done: decode_dirents(done[1].buffers[0])
    )
    try:
        return sorted(asked.result())
    except FileNotFoundError:
        return []


def write_and_sleep(session: Session, path: str, words: Iterable[str], seconds: float) -> None:
    """Write each of the words to a file that is there, opened anew, then sleep; one request."""
    steps: list[Step] = []
    for word in words:
        data = word.encode()
        steps += _opened(session, len(steps), path, "write", In(data), len(data), os.O_WRONLY)
    pause = struct.pack("<qq", *divmod(round(seconds * 1e9), 1_000_000_000))
    steps.append(session.begin.step("nanosleep", In(pause), 0, flags=StepFlag.ALWAYS))
    session.begin.calls(f"writing {path}", steps, lambda _: None).result(seconds + session.timeout)


def _opened(
    session: Session,
    index: int,
    path: str,
    does: str,
    buffer: Fill | In,
    size: int,
    flags: int = os.O_RDONLY,
) -> list[Step]:
    """Open a file, do one thing with it, close it; ``index`` is that of the first step."""
    step = session.begin.step
    name = In(encode_path(path) + b"\0")
    file = Result(index)
    whole = StepFlag.FULLY if does == "read" else StepFlag.NONE
    return [
        step("openat", _AT_FDCWD, name, flags | os.O_CLOEXEC, 0),
        step(does, file, buffer, size, flags=whole),
        step("close", file, flags=StepFlag.ALWAYS),
    ]
