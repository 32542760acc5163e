"""In a worker of a campaign: the driver made ready once, then task after task carried out."""

from __future__ import annotations

import os
import platform
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

from kdrv.core.context import Context
from kdrv.core.errors import KdrvError, SetupError
from kdrv.core.executor import slot
from kdrv.core.stopping import stopping
from kdrv.core.store import digest
from kdrv.explore.bench import Bench
from kdrv.explore.hunt import Caught, Hunt, Task
from kdrv.explore.shown import Shown
from kdrv.explore.subject import Subject, prepare
from kdrv.sim.host import HostCpu, settle, this_host
from kdrv.testing.prepare import TestRequest

MOST_BENCHES = 3
"""How many campaigns a worker of a cluster serves in turn without making ready anew."""


@dataclass(frozen=True)
class Post:
    """What a worker must know before its first task. ``key`` is the campaign's.

    ``cache`` (and ``beneath``) is where everything is, if that is on this machine. Otherwise the
    worker makes the driver ready in a cache of its own, from ``request``; ``host`` and
    ``operations`` (a digest of the files that declare them) tell whether it can be the same there.
    """

    key: str
    subject: Subject
    shown: Shown
    host: HostCpu
    operations: str
    cache: Path | None
    beneath: Path | None
    request: TestRequest | None


def make_post(
    ctx: Context, subject: Subject, shown: Shown, request: TestRequest | None = None
) -> Post:
    """What the workers of a new campaign must know; ``request`` if they are elsewhere.

    See :class:`Post`.
    """
    operations = _text(subject.files)
    cache = None if request else ctx.cache
    return Post(uuid4().hex, subject, shown, this_host(), operations, cache, ctx.beneath, request)


def carry_out(post: Post, task: Task) -> Caught:
    """Carry a task out; operations are the worker's own, for they are code.

    Raises :class:`SetupError` where this machine is not like the one that asks.
    """
    bench = _desk.take(post)
    choice = replace(task.choice, operations=bench.menu.operations)
    with _settled():
        caught = Hunt(bench, replace(task, choice=choice), stopping).run()
    rest = replace(caught.rest, choice=task.choice) if caught.rest else None
    return replace(caught, rest=rest)


class _Desk(threading.local):
    """Benches by campaign, the oldest first; each thread is a worker of its own."""

    def __init__(self) -> None:
        self.benches: dict[str, tuple[Bench, ExitStack]] = {}

    def take(self, post: Post) -> Bench:
        """The bench of a campaign."""
        if post.key not in self.benches:
            with ExitStack() as stack:
                here = Context(cache=post.cache, beneath=post.beneath) if post.cache else None
                ctx = here or Context()
                subject = _made_ready(ctx, post, stack) if post.request else post.subject
                bench = subject.bench(ctx, post.shown)
                self.benches[post.key] = bench, stack.pop_all()
            while len(self.benches) > MOST_BENCHES:
                oldest = next(iter(self.benches))
                self.benches.pop(oldest)[1].close()
        return self.benches[post.key][0]


_desk = _Desk()


def _made_ready(ctx: Context, post: Post, stack: ExitStack) -> Subject:
    """The campaign's subject, made on this machine. Raises :class:`SetupError` for another one."""
    assert post.request
    wanted = post.subject
    root = wanted.project.root
    if not root.is_dir():
        raise _other("disk", f"there is no {root}", f"the project at {root}")
    if this_host() != post.host:
        raise _other("processor", f"{this_host()}", f"{post.host}")
    if (operations := _text(wanted.files)) != post.operations:
        files = " ".join(map(str, wanted.files))
        raise _other("text of operations", operations, f"{post.operations}, {files}")
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="kdrv-", dir="/tmp"))
    try:
        subject = prepare(
            ctx, post.request, Path(folder), kinds=tuple(wanted.stands), files=wanted.files
        )
    except KdrvError as error:
        error.detail = (f"on the worker {platform.node()}", *error.detail)
        raise
    if subject.identity != wanted.identity:
        raise _other("driver or kernel", subject.identity.words(), wanted.identity.words())
    return subject


def _text(files: Sequence[Path]) -> str:
    """A digest of what the files say, those that are not there included."""
    return digest([path.read_text() if path.is_file() else None for path in files])


def _other(what: str, there: str, here: str) -> SetupError:
    return SetupError(
        f"a worker on {platform.node()} has another {what}: {there}",
        expected=f"what there is where the campaign was started: {here}",
        remedy="same sources at the same path, same toolchain, same processor (docs/cluster.md)",
    )


@contextmanager
def _settled() -> Iterator[None]:
    """On one processor for so long: a cluster's worker has other work later."""
    before = os.sched_getaffinity(0)
    settle(slot())
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
