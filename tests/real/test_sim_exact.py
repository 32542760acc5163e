"""One seed, one history: console and device trace to the byte, however busy the machine is.

``python -m bench.exact`` is the same with as many seeds as one likes.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.exact import DEVICES, Subject, busy, divergence, run, subject
from kdrv.core.context import Context
from kdrv.sim.faults import FaultKind

pytestmark = pytest.mark.real

SEEDS, RUNS = 4, 3


@pytest.fixture(scope="module", params=DEVICES)
def driven(
    request: pytest.FixtureRequest, ctx: Context, tmp_path_factory: pytest.TempPathFactory
) -> Subject:
    return subject(ctx, request.param, tmp_path_factory.mktemp("exact"), checked=False)


@pytest.fixture(autouse=True)
def busy_machine() -> Iterator[None]:
    with busy():
        yield


def test_one_seed_has_one_history(ctx: Context, driven: Subject) -> None:
    hashes: set[str] = set()
    fired: set[FaultKind] = set()
    for seed in range(SEEDS):
        first, *others = (run(ctx, driven, seed) for _ in range(RUNS))
        for other in others:
            assert other.hash == first.hash, divergence(first, other)
        hashes.add(first.hash)
        fired |= first.fired
    assert len(hashes) > 1
    assert fired
