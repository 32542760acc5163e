"""One door to workers: threads, processes of this machine, or other machines.

A job is a function of a module; it, its arguments and what it returns can be pickled (between
threads they need not). Whoever gives jobs out sees an :class:`concurrent.futures.Executor` and does
not know which kind it is. A job of many minutes asks :func:`kdrv.core.stopping.stopping` now and
then.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import (
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache
from multiprocessing.process import BaseProcess
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar

from kdrv.core.errors import SetupError
from kdrv.core.stopping import answer

P = ParamSpec("P")
T = TypeVar("T")
NOTHING: Mapping[str, float] = MappingProxyType({})
MOST_SLOTS = 4096
END_SECONDS = 120.0
"""How long a job may take to end once nobody wants it any more."""


class Workers(Executor):
    """An executor that knows how many jobs it can run at once and can ask them to end."""

    @property
    @abstractmethod
    def jobs(self) -> int:
        """How many jobs run at once; on a cluster this changes as workers come and go."""

    @abstractmethod
    def stop(self) -> None:
        """Make :func:`~kdrv.core.stopping.stopping` true in every job. Their results still come."""


@contextmanager
def workers(
    jobs: int | None = None,
    *,
    cluster: str | None = None,
    needs: Mapping[str, float] = NOTHING,
    threads: bool = False,
) -> Iterator[Workers]:
    """Workers for the length of a block; at its end jobs are stopped, and none is left running.

    Without ``cluster`` there are ``jobs`` processes (default: one for each processor), each a fresh
    interpreter, or as many ``threads`` of this one, for jobs that only wait for programs and want
    to emit events. ``cluster`` is the address of a scheduler of Dask's distributed; ``needs`` says
    what a worker there must have for each job (``{"cores": 2, "kvm": 1}``).

    Raises :class:`UsageError` when distributed is not installed, :class:`SetupError` when the
    scheduler cannot be reached or has no fit worker. A future raises :class:`SetupError` when the
    workers were lost.
    """
    if cluster is not None:
        from kdrv.core.cluster import connected

        with connected(cluster, needs, jobs) as away:
            yield away
        return
    jobs = jobs or len(os.sched_getaffinity(0))
    local = _threads(jobs) if threads else _processes(jobs)
    before = frozenset(multiprocessing.active_children())
    try:
        yield local
    finally:
        local.stop()
        if not threads:
            _end_processes(local, before)
        local.shutdown(cancel_futures=True)


def _end_processes(local: Workers, before: frozenset[BaseProcess]) -> None:
    """Let the jobs of a pool of processes end, and kill those that do not."""
    local.shutdown(wait=False, cancel_futures=True)
    until = time.monotonic() + END_SECONDS
    for child in frozenset(multiprocessing.active_children()) - before:
        child.join(max(0.0, until - time.monotonic()))
        if child.is_alive():
            child.kill()


class _Local(Workers):
    """Workers of this machine; ``stop`` is what they look at."""

    def __init__(self, inner: Executor, jobs: int, stop: Callable[[], None]) -> None:
        self._inner = inner
        self._jobs = jobs
        self._stop = stop

    @property
    def jobs(self) -> int:
        return self._jobs

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        return handed_on(self._inner.submit(fn, *args, **kwargs), _local_words)

    def stop(self) -> None:
        self._stop()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._inner.shutdown(wait, cancel_futures=cancel_futures)


def _threads(jobs: int) -> Workers:
    stop = threading.Event()
    inner = ThreadPoolExecutor(jobs, "kdrv-job", initializer=answer, initargs=(stop.is_set,))
    return _Local(inner, jobs, stop.set)


def _processes(jobs: int) -> Workers:
    # A fresh interpreter each: this process may have threads (a live display).
    spawn = multiprocessing.get_context("spawn")
    stop = spawn.Event()
    begin = (stop.is_set,)
    inner = ProcessPoolExecutor(jobs, mp_context=spawn, initializer=_begin, initargs=begin)
    return _Processes(inner, jobs, stop.set)


class _Processes(_Local):
    """Workers that know whether they have a job."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        return super().submit(_carry_out, fn, args, kwargs)


_at_work = threading.Lock()
"""In a worker process: held while it has a job."""


def _carry_out(fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
    with _at_work:
        return fn(*args, **kwargs)


def _begin(stopped: Callable[[], bool]) -> None:
    """In a new process. Ctrl-C is for the one that asked; when that one is gone, nobody waits."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asked = multiprocessing.parent_process()
    assert asked
    answer(lambda: stopped() or not asked.is_alive())
    threading.Thread(target=_outlive_nobody, args=(asked,), daemon=True).start()


def _outlive_nobody(asked: BaseProcess) -> None:
    """End this process after the one that asked, with or without a job.

    Without one it would wait for ever: a worker has both ends of the pipe that jobs come by.
    """
    asked.join()
    _at_work.acquire(timeout=END_SECONDS)
    os._exit(1)


def _local_words(error: BaseException) -> BaseException:
    if isinstance(error, BrokenProcessPool):
        return SetupError(
            "a worker process was killed from outside",
            expected="enough memory for all jobs at once",
            remedy="run fewer at once: --jobs 1",
        )
    return error


def handed_on(inner: Future[T], words: Callable[[BaseException], BaseException]) -> Future[T]:
    """A future that ends as ``inner`` does, an error put into our own ``words``.

    That it was cancelled is such an error too. Cancelling the new one cancels ``inner``.
    """
    outer: Future[T] = Future()

    def end(_: Future[T]) -> None:
        if outer.done():
            # Nobody waits for it any more: it was cancelled, or given up on.
            if outer.cancelled():
                outer.set_running_or_notify_cancel()
            return
        try:
            outer.set_result(inner.result())
        except BaseException as error:
            told = words(error)
            if isinstance(told, CancelledError):
                outer.cancel()
                outer.set_running_or_notify_cancel()
            else:
                outer.set_exception(told)

    def cancel(_: Future[T]) -> None:
        if outer.cancelled():
            inner.cancel()

    outer.add_done_callback(cancel)
    inner.add_done_callback(end)
    return outer


class _Slot(threading.local):
    """A number nobody else on this machine has, for as long as the thread lives."""

    def __init__(self) -> None:
        self.number = os.getpid()
        self.socket = socket.socket(socket.AF_UNIX)
        for number in range(MOST_SLOTS):
            try:
                # A name in the abstract space (unix(7)): it is gone when its holder is.
                self.socket.bind(f"\0kdrv-worker-{number}")
            except OSError:
                continue
            self.number = number
            return


@cache
def _slots() -> _Slot:
    return _Slot()


def slot() -> int:
    """Which of all the workers on this machine this thread is, whoever asked them.

    The lowest number that is free, from 0 on; some large one where names cannot be had.
    """
    return _slots().number
