"""arm64: scaffolded projects on QEMU's ``virt``, shell tests included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Kdrv

pytestmark = [pytest.mark.real, pytest.mark.late("rust-arm64")]


@pytest.mark.parametrize("bus", ["platform", "misc"])
def test_a_project_on_arm64(kdrv: Kdrv, project: Callable[..., Path], bus: str) -> None:
    place = project(bus, name=f"arm-{bus}")
    said = kdrv("test", "--qemu", "--arch", "arm64", place, "--json")
    assert said.status == 0, said.err + said.out
    assert said.data["lane"] == "rust-arm64"
    assert {case["outcome"] for case in said.data["cases"]} == {"passed"}
    ran = {case["name"].split("::")[-1] for case in said.data["cases"]}
    scripts = {path.name for path in (place / "tests").glob("*.sh")}
    assert scripts <= ran
    assert bool(scripts) == (bus == "misc")
