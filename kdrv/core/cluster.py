"""Workers on other machines, by Dask's distributed: it knows how to schedule, retry and cancel.

What is ours: that every wait has an end, that all run the same kdrv, and that a job learns when
nobody wants it any more. See docs/cluster.md.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from importlib import import_module
from typing import Any, ParamSpec, TypeVar
from uuid import uuid4

from kdrv.core.errors import KdrvError, SetupError, UsageError
from kdrv.core.executor import Workers, handed_on
from kdrv.core.release import release
from kdrv.core.stopping import Stopped, answer

P = ParamSpec("P")
T = TypeVar("T")

CONNECT_SECONDS = 10.0
FIT_SECONDS = 15.0
"""How long a fit worker may take to show up at the beginning."""
LOST_SECONDS = 60.0
"""How long there may be none later: a worker's nanny starts a dead one again in a few seconds."""
LOOK_SECONDS = 2.0
TELL_SECONDS = 5.0


@contextmanager
def connected(
    address: str, needs: Mapping[str, float], jobs: int | None = None
) -> Iterator[Workers]:
    """Workers of the scheduler at ``address``; see :func:`kdrv.core.executor.workers`."""
    client = _client(address)
    try:
        fit = _wait_for_fit(client, address, needs)
        _require_alike(client, fit)
        cluster = _Cluster(client, address, needs, jobs, fit)
        try:
            yield cluster
        finally:
            cluster.shutdown(cancel_futures=True)
    finally:
        client.close(timeout=TELL_SECONDS)


def start_words(address: str, needs: Mapping[str, float]) -> str:
    """The commands that start a scheduler and a worker with these resources."""
    has = " ".join(f"{name}={amount:g}" for name, amount in needs.items())
    resources = f' --resources "{has}"' if has else ""
    return f"dask scheduler; dask worker {address} --nworkers 2 --nthreads 1{resources}"


def _distributed() -> Any:
    """The library, which nobody needs who has one machine."""
    try:
        return import_module("distributed")
    except ImportError:
        raise UsageError(
            "a cluster needs Dask's distributed, which is not installed",
            remedy="pip install -e '.[cluster]' in kdrv's own clone",
        ) from None


def _client(address: str) -> Any:
    distributed = _distributed()
    try:
        distributed.comm.get_address_host_port(address)
    except ValueError as error:
        raise UsageError(
            f"{address!r} is no address of a scheduler: {error}",
            expected="HOST:PORT, as dask scheduler prints it",
        ) from None
    # What it has to say about lost workers is said by our errors, and would tear a live display.
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            # Versions that differ are an error of ours below.
            warnings.simplefilter("ignore")
            return distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, TypeError, ValueError, RuntimeError) as error:
        raise SetupError(
            f"no scheduler answers at {address} within {CONNECT_SECONDS:.0f} s",
            detail=[str(error)],
            expected="a scheduler of Dask's distributed that can be reached from here",
            remedy=start_words(address, {}),
        ) from error


# --- who is fit


def _workers(client: Any) -> dict[str, dict[str, Any]]:
    """What the scheduler says of each worker, by address."""
    # Without the argument some versions of distributed tell only of the first five.
    return dict(client.scheduler_info(n_workers=-1)["workers"])


def room(worker: Mapping[str, Any], needs: Mapping[str, float]) -> int:
    """How many jobs a worker can run at once, by what it declares."""
    has = worker.get("resources") or {}
    shares = [int(has.get(name, 0.0) / amount) for name, amount in needs.items() if amount > 0]
    return min([int(worker["nthreads"]), *shares])


def _fit(client: Any, needs: Mapping[str, float]) -> dict[str, int]:
    rooms = {address: room(one, needs) for address, one in _workers(client).items()}
    return {address: jobs for address, jobs in rooms.items() if jobs > 0}


def _wait_for_fit(client: Any, address: str, needs: Mapping[str, float]) -> dict[str, int]:
    until = time.monotonic() + FIT_SECONDS
    while not (fit := _fit(client, needs)):
        if time.monotonic() > until:
            raise _no_worker(_workers(client), address, needs)
        time.sleep(0.2)
    return fit


def _no_worker(
    there: Mapping[str, Mapping[str, Any]], address: str, needs: Mapping[str, float]
) -> SetupError:
    wanted = ", ".join(f"{name}={amount:g}" for name, amount in needs.items())
    what = f"with {wanted}" if wanted else "at all"
    return SetupError(
        f"the scheduler at {address} has no worker {what}",
        detail=[
            f"{one}: {worker['nthreads']} threads, resources {worker.get('resources') or 'none'}"
            for one, worker in there.items()
        ],
        expected="a worker that declares what the jobs need",
        remedy=start_words(address, needs).split("; ")[1],
    )


# --- the same kdrv everywhere


def _require_alike(client: Any, fit: Mapping[str, int]) -> None:
    """Refuse workers that would not understand our jobs, or do others."""
    ours = ".".join(map(str, sys.version_info[:2]))
    facts = client.get_versions()["workers"]
    for address in fit.keys() & facts.keys():
        theirs = ".".join(facts[address]["host"]["python"].split(".")[:2])
        if theirs != ours:
            raise _unlike(address, f"Python {theirs}", f"Python {ours}")
    releases = client.run(release, workers=list(fit), on_error="return")
    for address, found in releases.items():
        if isinstance(found, OSError):
            # Gone in the meantime; whoever comes instead is asked with each job.
            continue
        if found != release():
            theirs = "no kdrv" if isinstance(found, BaseException) else f"kdrv {found}"
            raise _unlike(address, theirs, f"kdrv {release()}")


def _unlike(address: str, theirs: str, ours: str) -> SetupError:
    return SetupError(
        f"the worker {address} has {theirs}, here it is {ours}",
        expected="the same Python and the same kdrv on every machine",
        remedy="install the same there and start its workers again",
    )


# --- in the process that asks


class _Cluster(Workers):
    """Jobs that were handed to a scheduler."""

    def __init__(
        self,
        client: Any,
        address: str,
        needs: Mapping[str, float],
        jobs: int | None,
        fit: Mapping[str, int],
    ) -> None:
        self._client = client
        self._address = address
        self._needs = needs
        self._fixed = jobs
        self._room = sum(fit.values())
        self._ticket = uuid4().hex
        # No retries: those are for jobs that raise. One whose worker died is always run again, by
        # the scheduler, until that has happened "allowed-failures" times (KilledWorker).
        self._inner = client.get_executor(pure=False, resources=dict(needs) or None)
        self._open: set[Future[Any]] = set()
        self._closing = threading.Event()
        self._watch = threading.Thread(target=self._look, name="kdrv-cluster", daemon=True)
        self._watch.start()

    @property
    def jobs(self) -> int:
        return self._fixed or max(1, self._room)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        inner: Future[T] = self._inner.submit(_carry_out, self._ticket, release(), fn, args, kwargs)
        future = handed_on(inner, self._words)
        self._open.add(future)
        future.add_done_callback(self._open.discard)
        return future

    def stop(self) -> None:
        # A worker that does not answer must not hold us up.
        telling = threading.Thread(target=self._dismiss, daemon=True)
        telling.start()
        telling.join(TELL_SECONDS)

    def _dismiss(self) -> None:
        with contextlib.suppress(Exception):
            self._client.run(_dismiss, self._ticket, on_error="ignore")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if self._open and wait and not cancel_futures:
            self._inner.shutdown(wait=True)
        self._closing.set()
        if self._open:
            # First what has not begun: a worker that is free takes the next job.
            for future in tuple(self._open):
                future.cancel()
            self.stop()
        with contextlib.suppress(Exception):
            self._inner.shutdown(wait=False)
        self._watch.join(TELL_SECONDS)

    def _look(self) -> None:
        """Follow the workers; give up on all jobs when none is left for long."""
        seen = time.monotonic()
        while not self._closing.wait(LOOK_SECONDS):
            try:
                self._room = sum(_fit(self._client, self._needs).values())
                there = _workers(self._client)
            except Exception:
                # If the connection is gone for good the futures learn it by themselves.
                continue
            if self._room:
                seen = time.monotonic()
            elif time.monotonic() - seen > LOST_SECONDS:
                self._give_up(_no_worker(there, self._address, self._needs))
                seen = time.monotonic()

    def _give_up(self, error: KdrvError) -> None:
        for future in tuple(self._open):
            with contextlib.suppress(Exception):
                future.set_exception(error)

    def _words(self, error: BaseException) -> BaseException:
        if isinstance(error, _distributed().KilledWorker):
            return SetupError(
                f"one job has ended {error.allowed_failures + 1} workers, and was given up",
                detail=[str(error)],
                expected="workers that live through a job (enough memory, nobody kills them)",
                remedy="look into the worker's log on its machine: dmesg | grep -i killed",
            )
        if isinstance(error, CancelledError) and not self._closing.is_set():
            return SetupError(
                f"the connection to the scheduler at {self._address} was lost",
                expected="a scheduler that lives as long as its jobs",
                remedy=start_words(self._address, self._needs),
            )
        return error


# --- in the workers

_dismissed: set[str] = set()


def _dismiss(ticket: str) -> None:
    _dismissed.add(ticket)


def _carry_out(
    ticket: str,
    wanted: str,
    function: Callable[..., T],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> T:
    """Run a job, which asks :func:`~kdrv.core.stopping.stopping`."""
    worker = _distributed().get_worker()
    if release() != wanted:
        # It came after the others had been asked.
        raise _unlike(worker.address, f"kdrv {release()}", f"kdrv {wanted}")
    key = worker.get_current_task()

    def unwanted() -> bool:
        task = worker.state.tasks.get(key)
        # Cancelled, or whoever asked is gone: the scheduler takes the task back and its thread
        # is the only one that does not know yet.
        return ticket in _dismissed or task is None or task.state in ("cancelled", "resumed")

    answer(unwanted)
    try:
        return function(*args, **kwargs)
    except (KeyboardInterrupt, SystemExit) as error:
        # These would end the whole worker.
        raise Stopped(f"the job ended itself: {type(error).__name__}") from error
