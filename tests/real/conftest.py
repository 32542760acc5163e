"""Real kernels: built once in the user's own cache, shared by all tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kdrv.build.api import BuildRequest, LaneBuild, Workbench, build, prepare
from kdrv.build.kernel import CACHED_KIND
from kdrv.build.lane import Language
from kdrv.core.context import Context
from kdrv.core.store import Store
from kdrv.machine.contract import KernelImage
from kdrv.scaffold.api import ScaffoldRequest, create
from tests.real.kernel_series import Maker, base_repository

# What a shell starts in the background ignores Ctrl-C, and so do its children; tests press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

DEADLINE = 3600
BEGAN = time.monotonic()
MINUTES = float(os.environ.get("KDRV_TEST_MINUTES", "40"))
"""After so many no test begins that may have to build one more kernel."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs kernels of its own comes last."""
    items.sort(key=lambda item: item.get_closest_marker("late") is not None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """When time is short, nothing is begun that has to build one more kernel.

    As a hook, and not as a fixture: those of modules, which build it, come before a test's own.
    """
    late = item.get_closest_marker("late")
    if late and time.monotonic() - BEGAN > MINUTES * 60 and not _built(*late.args):
        pytest.skip(
            f"{MINUTES:g} minutes are over and its kernel is missing; "
            "give more: KDRV_TEST_MINUTES=90 make test"
        )


def _built(lane: str = "") -> bool:
    entries = Store(Context()).entries() if lane else []
    return any(one.kind == CACHED_KIND and one.facts["lane"] == lane for one in entries)


@dataclass(frozen=True)
class Said:
    """How a kdrv command ended."""

    status: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


Kdrv = Callable[..., Said]


@pytest.fixture(scope="session")
def ctx() -> Context:
    return Context()


@pytest.fixture(scope="session")
def kdrv() -> Kdrv:
    """Runs the command line in a process of its own, as a user does."""

    def run(*words: str | Path, cwd: Path | None = None) -> Said:
        argv = [sys.executable, "-c", "from kdrv.cli.main import main; main()", *map(str, words)]
        done = subprocess.run(
            argv,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            stdin=subprocess.DEVNULL,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Said(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def bench(ctx: Context) -> Workbench:
    return prepare(ctx, BuildRequest(languages=(Language.RUST,)))


def _lane(ctx: Context, bench: Workbench, **options: Any) -> LaneBuild:
    (lane,) = build(ctx, BuildRequest(**options), bench)
    assert lane.kernel.ok, [d.message for d in lane.kernel.diagnostics] + [
        e.summary for e in lane.kernel.missing
    ]
    return lane


@pytest.fixture(scope="session")
def rust_lane(ctx: Context, bench: Workbench) -> LaneBuild:
    return _lane(ctx, bench, languages=(Language.RUST,))


@pytest.fixture(scope="session")
def c_lane(ctx: Context, bench: Workbench, rust_lane: LaneBuild) -> LaneBuild:
    """After the Rust lane, whose compilation fills the compiler cache."""
    return _lane(ctx, bench, languages=(Language.C,))


@pytest.fixture(scope="session")
def rust_image(rust_lane: LaneBuild) -> KernelImage:
    assert rust_lane.kernel.image
    return rust_lane.kernel.image


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Makes a scaffolded project of a bus."""

    def make(bus: str, name: str = "widget", **options: Any) -> Path:
        return create(ScaffoldRequest(name, bus, directory=tmp_path, **options)).path

    return make


@pytest.fixture(scope="module")
def maker(
    ctx: Context, bench: Workbench, rust_lane: LaneBuild, tmp_path_factory: pytest.TempPathFactory
) -> Maker:
    """Makes patch series on the kernel of the package, with a warm Rust lane."""
    base = base_repository(ctx, bench.tree)
    return Maker(base, tmp_path_factory.mktemp("gate") / "index")
