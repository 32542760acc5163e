"""The door to workers: the same jobs on threads, processes and a small cluster in this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, wait
from pathlib import Path
from typing import Any

import pytest

from kdrv.core import cluster as clusters
from kdrv.core.errors import SetupError, UsageError, WorkFailed
from kdrv.core.executor import Workers, handed_on, slot, workers
from kdrv.core.release import release
from kdrv.core.stopping import Stopped, stopping, unless_stopped

DEADLINE = 30.0
Door = Callable[..., Any]


def square(number: int) -> int:
    return number * number


def fail() -> None:
    raise WorkFailed("it is bad", expected="good", remedy="mend it", detail=["a line"])


def last_until_stopped(begun: Path) -> str:
    """A job of many minutes that asks now and then."""
    until = time.monotonic() + DEADLINE
    begun.touch()
    while not stopping():
        if time.monotonic() > until:
            return "not stopped"
        time.sleep(0.01)
    begun.with_suffix(".ended").touch()
    return "stopped"


def step_until_stopped(begun: Path) -> None:
    begun.touch()
    for _ in range(int(DEADLINE / 0.01)):
        unless_stopped()
        time.sleep(0.01)


def interrupt() -> None:
    raise KeyboardInterrupt


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def appears(path: Path) -> bool:
    until = time.monotonic() + DEADLINE
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.01)
    return path.exists()


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=2,
        processes=False,
        host="127.0.0.1",
        protocol="tcp",
        dashboard_address=":0",
        memory_limit=0,
        resources={"cores": 3},
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(params=["threads", "processes", "cluster"])
def door(request: pytest.FixtureRequest) -> Door:
    """Opens each kind of workers."""
    if request.param == "cluster":
        address = request.getfixturevalue("scheduler")
        return lambda: workers(2, cluster=address)
    return lambda: workers(2, threads=request.param == "threads")


def test_results_and_errors_come_back_whole(door: Door) -> None:
    with door() as executor:
        assert executor.jobs == 2
        assert [executor.submit(square, n).result(DEADLINE) for n in range(4)] == [0, 1, 4, 9]
        with pytest.raises(WorkFailed, match="it is bad") as raised:
            executor.submit(fail).result(DEADLINE)
    assert raised.value.hints() == (("expected", "good"), ("remedy", "mend it"))
    assert raised.value.detail == ("a line",)


def test_a_stopped_job_still_gives_its_result(door: Door, tmp_path: Path) -> None:
    with door() as executor:
        future = executor.submit(last_until_stopped, tmp_path / "begun")
        assert appears(tmp_path / "begun")
        executor.stop()
        assert future.result(DEADLINE) == "stopped"


def test_a_job_can_end_in_the_middle_of_what_it_does(door: Door, tmp_path: Path) -> None:
    with door() as executor:
        future = executor.submit(step_until_stopped, tmp_path / "begun")
        assert appears(tmp_path / "begun")
        executor.stop()
        with pytest.raises(Stopped):
            future.result(DEADLINE)


def test_a_job_that_exits_does_not_take_its_worker_along(scheduler: str) -> None:
    with workers(cluster=scheduler) as executor:
        with pytest.raises(Stopped, match="KeyboardInterrupt"):
            executor.submit(interrupt).result(DEADLINE)
        assert executor.submit(square, 3).result(DEADLINE) == 9


def test_nothing_runs_when_the_block_is_left(door: Door, tmp_path: Path) -> None:
    futures: list[Future[str]] = []

    def leave(executor: Workers) -> None:
        futures.extend(executor.submit(last_until_stopped, tmp_path / f"{n}") for n in range(9))
        assert appears(tmp_path / "0")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), door() as executor:
        leave(executor)
    assert not wait(futures, timeout=DEADLINE).not_done
    assert any(future.cancelled() for future in futures)
    begun = [path for path in tmp_path.iterdir() if not path.suffix]
    assert len(begun) < 9
    assert all(appears(path.with_suffix(".ended")) for path in begun)


def test_nobody_stops_what_is_no_job() -> None:
    assert not stopping()
    unless_stopped()


def test_a_process_that_is_killed_is_an_error_with_a_remedy() -> None:
    with workers(1) as executor, pytest.raises(SetupError, match="killed") as raised:
        executor.submit(die).result(DEADLINE)
    assert "--jobs 1" in raised.value.remedy


ASKS = """
import multiprocessing, os, time
from concurrent.futures import wait
from kdrv.core.executor import workers

if __name__ == "__main__":
    with workers(2) as executor:
        wait([executor.submit(os.getpid) for _ in range(2)])
        busy = executor.submit(time.sleep, 1)
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        time.sleep(600)
"""


def _runs(pid: int) -> bool:
    """One that has ended and that nobody has waited for yet does not run."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_workers_end_after_the_one_that_asked_was_killed(tmp_path: Path) -> None:
    """Those with a job and those without."""
    script = tmp_path / "asks.py"
    script.write_text(ASKS)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as asks:
        assert asks.stdout
        pids = [int(word) for word in asks.stdout.readline().split()]
        asks.kill()
    assert len(pids) == 2
    until = time.monotonic() + 60
    while any(map(_runs, pids)):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_workers_of_one_machine_have_different_numbers() -> None:
    met = threading.Barrier(2)

    def ask() -> int:
        number = slot()
        met.wait(DEADLINE)
        return number

    with workers(2, threads=True) as executor:
        one, two = executor.submit(ask), executor.submit(ask)
        assert one.result(DEADLINE) != two.result(DEADLINE)


# --- futures


def test_cancelling_a_future_cancels_the_one_behind_it() -> None:
    inner: Future[int] = Future()
    outer = handed_on(inner, lambda error: error)
    assert outer.cancel()
    assert inner.cancelled()


def test_a_future_given_up_on_does_not_mind_what_comes_later() -> None:
    inner: Future[int] = Future()
    outer = handed_on(inner, lambda error: error)
    outer.set_exception(SetupError("lost"))
    inner.set_result(1)
    with pytest.raises(SetupError, match="lost"):
        outer.result(0)


def test_a_lost_job_can_be_told_as_an_error() -> None:
    inner: Future[int] = Future()
    outer = handed_on(inner, lambda error: SetupError(type(error).__name__))
    inner.cancel()
    with pytest.raises(SetupError, match=CancelledError.__name__):
        outer.result(0)


# --- a cluster that is not as it should be


def test_without_distributed_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match="not installed") as raised, workers(cluster="here:1"):
        pass
    assert "pip install -e '.[cluster]'" in raised.value.remedy


@pytest.mark.parametrize("address", ["here", "http://here:1", "here:port"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    pytest.importorskip("distributed")
    with pytest.raises(UsageError, match="no address"), workers(cluster=address):
        pass


def test_a_scheduler_that_does_not_answer_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(clusters, "CONNECT_SECONDS", 0.2)
    with pytest.raises(SetupError, match="127.0.0.1:1 ") as raised, workers(cluster="127.0.0.1:1"):
        pass
    assert "dask scheduler" in raised.value.remedy


def test_a_need_that_no_worker_meets_is_told(
    scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "FIT_SECONDS", 0.0)
    wanted = workers(cluster=scheduler, needs={"cores": 2, "kvm": 1})
    with pytest.raises(SetupError, match="no worker with cores=2, kvm=1") as raised, wanted:
        pass
    assert any("'cores': 3" in line for line in raised.value.detail)
    assert '--resources "cores=2 kvm=1"' in raised.value.remedy


def test_workers_that_all_went_away_are_an_error(
    scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(clusters, "LOST_SECONDS", 0.1)
    with workers(cluster=scheduler) as executor:
        future = executor.submit(last_until_stopped, tmp_path / "begun")
        assert appears(tmp_path / "begun")
        monkeypatch.setattr(clusters, "room", lambda *_: 0)
        with pytest.raises(SetupError, match="no worker at all"):
            future.result(DEADLINE)


@pytest.mark.parametrize(
    ("worker", "needs", "jobs"),
    [
        ({"nthreads": 4, "resources": {}}, {}, 4),
        ({"nthreads": 4, "resources": {"cores": 5}}, {"cores": 2}, 2),
        ({"nthreads": 1, "resources": {"cores": 8, "kvm": 1}}, {"cores": 2, "kvm": 1}, 1),
        ({"nthreads": 4, "resources": {"cores": 8}}, {"kvm": 1}, 0),
        ({"nthreads": 4, "resources": {"cores": 8}}, {"kvm": 0}, 4),
    ],
)
def test_what_a_worker_has_room_for(
    worker: dict[str, Any], needs: dict[str, float], jobs: int
) -> None:
    assert clusters.room(worker, needs) == jobs


class Workforce:
    """A client whose workers have this Python and this kdrv."""

    def __init__(self, python: str, release: object) -> None:
        self.python, self.release = python, release

    def get_versions(self) -> dict[str, Any]:
        return {"workers": {"tcp://there": {"host": {"python": self.python}}}}

    def run(self, *_: object, **__: object) -> dict[str, object]:
        return {"tcp://there": self.release}


OURS = ".".join(map(str, sys.version_info[:2])) + ".0.final.0"


@pytest.mark.parametrize(
    ("python", "release", "said"),
    [
        ("2.7.18.final.0", release(), "Python 2.7"),
        (OURS, "0.0.1 (0123)", "kdrv 0.0.1"),
        (OURS, ModuleNotFoundError("kdrv"), "no kdrv"),
    ],
)
def test_a_worker_that_is_another_is_refused(python: str, release: object, said: str) -> None:
    with pytest.raises(SetupError, match=f"tcp://there has {said}"):
        clusters._require_alike(Workforce(python, release), {"tcp://there": 1})


def test_a_worker_that_is_alike_is_taken() -> None:
    clusters._require_alike(Workforce(OURS, release()), {"tcp://there": 1})
