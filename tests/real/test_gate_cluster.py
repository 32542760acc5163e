"""A series judged by workers of a cluster, one of which is killed on the way."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kdrv.build.api import LaneBuild, Workbench
from kdrv.core.context import Context
from tests.real import kernel_series as made
from tests.real.conftest import Kdrv

from .test_cluster import DEADLINE, Cluster, cluster, psutil, soon  # noqa: F401

pytestmark = pytest.mark.real


def builders(cluster: Cluster) -> list[subprocess.Popen[bytes]]:  # noqa: F811
    """The workers that are running a compiler now."""
    found = []
    for worker in cluster.workers:
        try:
            names = [one.name() for one in psutil.Process(worker.pid).children(recursive=True)]
        except psutil.Error:
            continue
        if any(name in ("cc1", "rustc", "make") for name in names):
            found.append(worker)
    return found


def plain(judged: dict[str, Any]) -> list[list[tuple[Any, ...]]]:
    keys = ("name", "outcome", "summary", "diagnostics", "detail")
    return [[tuple(map(str, map(one.get, keys))) for one in p["checks"]] for p in judged["patches"]]


def test_a_worker_killed_in_mid_job_loses_nothing(
    kdrv: Kdrv,
    ctx: Context,
    bench: Workbench,
    rust_lane: LaneBuild,
    cluster: Cluster,  # noqa: F811
    tmp_path: Path,
) -> None:
    maker = made.Maker(made.base_repository(ctx, bench.tree), tmp_path / "index")
    now = time.time_ns()  # what was judged before would not be built
    patches = [
        (f"lib: argv_split: Note {n}", {made.BOARD: lambda text, n=n: f"{text}/* {now + n} */\n"})
        for n in range(3)
    ]
    source = maker.series("cluster", *patches)
    words = ("gate", "--json", "--repo", str(maker.path), "--boot", "never")
    argv = [sys.executable, "-c", "from kdrv.cli.main import main; main()", *words]
    argv += ["--cluster", cluster.address, source]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        # Its lanes may be in use by another test, which holds them until its series is judged.
        assert soon(lambda: builders(cluster) or run.poll() is not None, 10 * DEADLINE)
        assert run.poll() is None, run.communicate()
        builders(cluster)[0].kill()
        out, err = run.communicate(timeout=20 * DEADLINE)
    assert run.returncode == 0, err
    away = json.loads(out)
    here = kdrv(*words, source).data
    assert plain(away) == plain(here)
    builds = [one for p in away["patches"] for one in p["checks"] if one["name"] == "build c"]
    assert [one["outcome"] for one in builds] == ["pass"] * 3
