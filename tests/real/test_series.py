"""The older of the proven series: its templates build and run on its kernel.

That is a whole kernel more to build, some five minutes of the 60 that CI has on two processors:
built only where KDRV_TEST_SERIES names the series, and used wherever it is in the cache.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kdrv.build.api import Workbench
from kdrv.build.kernel import CACHED_KIND
from kdrv.core.context import Context
from kdrv.core.store import Store
from kdrv.kernel.source import PROVEN

from .conftest import Kdrv

pytestmark = pytest.mark.real

OLDER = PROVEN[1]
VARIABLE = "KDRV_TEST_SERIES"


@pytest.fixture
def affordable(ctx: Context, bench: Workbench) -> None:
    alike = {"lane": "rust", "toolchain_id": bench.toolchain.identity}
    there = any(
        entry.kind == CACHED_KIND
        and alike.items() <= entry.facts.items()
        and entry.facts["version"].startswith(f"{OLDER}.")
        for entry in Store(ctx).entries()
    )
    if not there and os.environ.get(VARIABLE) != OLDER:
        pytest.skip(f"no Linux {OLDER} in the cache; {VARIABLE}={OLDER} builds it")


@pytest.mark.usefixtures("affordable")
def test_a_pci_driver_on_the_older_series(kdrv: Kdrv, tmp_path: Path) -> None:
    made = kdrv("new", "older", "--bus", "pci", "--kernel", OLDER, cwd=tmp_path)
    assert made.status == 0, made.err
    # The project remembers its series: nobody has to say it again.
    said = kdrv("test", "--qemu", tmp_path / "older", "--json")
    assert said.status == 0, said.err + said.out
    assert said.data["kernel"]["version"].startswith(f"{OLDER}.")
    assert len(said.data["cases"]) >= 10
    assert {case["outcome"] for case in said.data["cases"]} == {"passed"}
