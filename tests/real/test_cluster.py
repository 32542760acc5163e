"""A campaign on a real scheduler and two workers: as on one machine, whoever dies on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import kdrv as package
from kdrv.core.context import default_cache
from kdrv.explore.bugbase import PLAN, load_all
from kdrv.explore.campaign import EXAMPLES
from kdrv.scaffold.api import ScaffoldRequest, create
from kdrv.sim.world import LINUX

from .conftest import Kdrv, Said

distributed = pytest.importorskip("distributed")
psutil = pytest.importorskip("psutil")
pytestmark = pytest.mark.real

DEADLINE = 300.0
TIMEOUT = """\
            if late {
                return Err(ETIMEDOUT);
            }
"""
"""What ends the driver's wait for an interrupt that never comes."""
CAMPAIGN = ("--kernels", "plain", "--profile", "lossy", "--json", "--seeds")
BATCH = EXAMPLES[False]
# Three batches, each drawn from what those before have shown:
IN_TURN = (*CAMPAIGN, 2 * BATCH + 8, "--jobs", 1)
# Two that are given out at once and know nothing of each other:
AT_ONCE = (*CAMPAIGN, 2 * BATCH, "--jobs", 2)


@dataclass
class Cluster:
    """A scheduler's address and the processes of its workers."""

    address: str
    workers: list[subprocess.Popen[bytes]]

    def kernels(self) -> list[Any]:
        """The simulated kernels that run in the workers now."""
        return [kernel for worker in self.workers for kernel in kernels_of(worker.pid)]

    def tasks(self) -> int:
        """How many tasks the scheduler knows."""
        with distributed.Client(self.address, timeout=DEADLINE, set_as_default=False) as client:
            return int(client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)))


def kernels_of(pid: int) -> list[Any]:
    found = []
    try:
        for child in psutil.Process(pid).children(recursive=True):
            try:
                if child.cmdline()[:1] == [LINUX]:
                    found.append(child)
            except psutil.Error:
                continue
    except psutil.Error:
        return []
    return found


def soon(holds: Callable[[], object], within: float = DEADLINE) -> bool:
    until = time.monotonic() + within
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


@contextmanager
def dask(log: Path, *words: str | Path, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as file:
        child = subprocess.Popen(
            [sys.executable, "-m", "dask", *map(str, words)],
            cwd=Path(package.__file__).parents[1],
            env={**os.environ, **env},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait(10)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Its workers know the cache by another path: what they make ready they make by themselves."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "kdrv").symlink_to(default_cache())
    here = tmp_path / "scheduler.json"
    common = ("--host", "127.0.0.1", "--no-dashboard")
    with ExitStack() as stack:
        words = ("scheduler", *common, "--port", "0", "--scheduler-file", here)
        stack.enter_context(dask(tmp_path / "scheduler.log", *words))
        assert soon(lambda: here.exists() and here.read_text().endswith("}"))
        with distributed.Client(scheduler_file=str(here), set_as_default=False) as client:
            address = client.scheduler.address
            words = ("worker", address, *common, "--no-nanny", "--nthreads", "1")
            limits = ("--memory-limit", "0", "--local-directory", tmp_path)
            cache = str(tmp_path / "cache")
            workers = [
                stack.enter_context(
                    dask(tmp_path / f"worker{n}.log", *words, *limits, XDG_CACHE_HOME=cache)
                )
                for n in range(2)
            ]
            client.wait_for_workers(2, timeout=DEADLINE)
        yield Cluster(address, workers)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A driver that waits for ever where an interrupt is lost."""
    place = tmp_path_factory.mktemp("cluster")
    create(ScaffoldRequest(name="seeker", bus="pci", directory=place))
    source = place / "seeker" / "seeker.rs"
    text = source.read_text()
    assert text.count(TIMEOUT) == 1
    source.write_text(text.replace(TIMEOUT, ""))
    return place / "seeker"


@dataclass(frozen=True)
class Outcome:
    """What a campaign showed, without what tells of time and place.

    ``plans`` and ``hashes`` are those of the bugs that were kept, by name.
    """

    figures: dict[str, Any]
    samples: list[tuple[int, ...]]
    met: dict[str, int]
    plans: dict[str, str]
    hashes: dict[str, str]


def outcome(said: Said, base: Path) -> Outcome:
    assert said.status == 1, said.out + said.err
    figures = said.data["campaign"]
    del figures["seconds"]
    samples = figures.pop("samples")
    kept = {bug.name: bug for bug in load_all(base)}
    return Outcome(
        figures,
        [tuple(one[name] for name in ("runs", "covered", "bugs")) for one in samples],
        {bug["fingerprint"]: bug["met"] for bug in said.data["bugs"]},
        {name: (bug.folder / PLAN).read_text() for name, bug in kept.items()},
        {name: bug.record.hash for name, bug in kept.items()},
    )


def test_a_campaign_on_a_cluster_shows_what_it_shows_here(
    broken: Path, kdrv: Kdrv, cluster: Cluster, tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    local = outcome(kdrv("explore", broken, *AT_ONCE, "--bugs", here), here)
    words = ("--cluster", cluster.address, "--bugs", there)
    away = outcome(kdrv("explore", broken, *AT_ONCE, *words), there)
    assert away.figures == local.figures
    assert away.met == local.met
    # Which one is kept of a bug that both have found is chance, and the only thing that is.
    if set(local.met.values()) == {1}:
        assert (away.plans, away.hashes) == (local.plans, local.hashes)
    assert cluster.tasks() == 0


@contextmanager
def exploring(*words: str | Path | int) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, "-c", "from kdrv.cli.main import main; main()", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait(10)


def test_a_worker_killed_in_mid_job_loses_nothing(
    broken: Path, kdrv: Kdrv, cluster: Cluster, tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    local = outcome(kdrv("explore", broken, *IN_TURN, "--bugs", here), here)
    words = ("explore", broken, *IN_TURN, "--cluster", cluster.address, "--bugs", there)
    with exploring(*words) as campaign:
        assert soon(cluster.kernels)
        one, other = sorted(cluster.workers, key=lambda worker: not kernels_of(worker.pid))
        orphans = kernels_of(one.pid)
        one.kill()
        out, err = campaign.communicate(timeout=10 * DEADLINE)
    assert outcome(Said(campaign.returncode, out, err), there) == local
    assert local.hashes
    assert other.poll() is None
    assert not psutil.wait_procs(orphans, timeout=DEADLINE)[1], "its kernels outlived it"


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGKILL])
def test_nothing_runs_on_for_a_campaign_that_has_ended(
    broken: Path, cluster: Cluster, tmp_path: Path, by: signal.Signals
) -> None:
    words = ("--time", "10m", "--kernels", "plain", "--cluster", cluster.address)
    with exploring("explore", broken, *words, "--bugs", tmp_path / "bugs") as campaign:
        assert soon(lambda: all(kernels_of(worker.pid) for worker in cluster.workers))
        campaign.send_signal(by)
        out, err = campaign.communicate(timeout=DEADLINE)
    if by is signal.SIGINT:
        assert "interrupted" in out, out + err
        assert campaign.returncode in (0, 1)
    assert soon(lambda: cluster.tasks() == 0)
    assert soon(lambda: not cluster.kernels())
    assert all(worker.poll() is None for worker in cluster.workers)


def test_what_is_wrong_with_a_cluster_is_said_before_anything_is_built(
    broken: Path, kdrv: Kdrv
) -> None:
    said = kdrv("explore", broken, "--cluster", "127.0.0.1:1")
    assert said.status == 2
    assert "no scheduler answers at 127.0.0.1:1" in said.err
    assert "dask scheduler" in said.err
    assert "building" not in said.err
