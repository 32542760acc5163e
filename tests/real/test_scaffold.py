"""Every bus and device of ``kdrv new``: clean for a maintainer, and green on its hardware."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kdrv.build.api import LaneBuild
from kdrv.scaffold.catalog import bus_names, device_names

from .conftest import Kdrv

pytestmark = pytest.mark.real

MUST_PASS = {"rustfmt", "clippy", "checkpatch", "rustdoc", "modpost", "build"}


@pytest.mark.parametrize("bus", bus_names())
def test_a_project_is_clean_and_its_tests_pass(
    kdrv: Kdrv, project: Callable[..., Path], rust_lane: LaneBuild, bus: str
) -> None:
    place = project(bus, name=f"my-{bus}")
    check(kdrv, place)
    assert run_tests(kdrv, "--qemu", place) == {"passed"}


def check(kdrv: Kdrv, place: Path) -> None:
    """All checks, without a word from any."""
    built = kdrv("build", place, "--check", "--json")
    (lane,) = built.data
    assert built.status == 0, [d["message"] for c in lane["checks"] for d in c["diagnostics"]]
    assert lane["module"]["diagnostics"] == []
    outcomes = {check["name"]: check["outcome"] for check in lane["checks"]}
    assert {name for name, outcome in outcomes.items() if outcome == "pass"} >= MUST_PASS


def run_tests(kdrv: Kdrv, world: str, place: Path) -> set[str]:
    """How the project's tests ended."""
    tested = kdrv("test", world, place, "--json")
    assert tested.status == 0, [case["detail"] for case in tested.data["cases"]]
    assert len(tested.data["cases"]) >= 3
    return {case["outcome"] for case in tested.data["cases"]}


EVERY_OPERATION = """
import types

import operations
import pytest

from kdrv.explore.declare import OPERATION

DECLARED = [getattr(v, OPERATION) for v in vars(operations).values() if hasattr(v, OPERATION)]


@pytest.mark.parametrize("operation", DECLARED, ids=lambda operation: operation.name)
def test_operation(operation, driver, guest):
    call = types.SimpleNamespace(guest=guest, memory={})
    try:
        operation.run(call, **operation.simplest)
    except OSError:
        assert not operation.serves
"""


@pytest.mark.parametrize("device", device_names("pci"))
def test_a_driver_and_its_twin_do_the_same_in_the_simulator(
    kdrv: Kdrv, project: Callable[..., Path], rust_lane: LaneBuild, device: str
) -> None:
    place = project("pci", device=device, twin=True)
    check(kdrv, place)
    (place / "tests/test_operations.py").write_text(EVERY_OPERATION)
    rust = run_tests(kdrv, "--sim", place)
    assert "passed" in rust
    toml = (place / "kdrv.toml").read_text()
    both = 'module = "widget"\ntwin = "widget_c"\n'
    assert both in toml
    (place / "kdrv.toml").write_text(toml.replace(both, 'module = "widget_c"\ntwin = "widget"\n'))
    assert run_tests(kdrv, "--sim", place) == rust


@pytest.mark.parametrize("device", ["testdev", "ringdev"])
def test_a_driver_runs_on_emulated_hardware(
    kdrv: Kdrv, project: Callable[..., Path], rust_lane: LaneBuild, device: str
) -> None:
    assert run_tests(kdrv, "--qemu", project("pci", device=device)) == {"passed"}


@pytest.mark.late("rust-debug")
def test_the_same_tests_on_the_debug_kernel(
    kdrv: Kdrv, project: Callable[..., Path], rust_lane: LaneBuild
) -> None:
    said = kdrv("test", "--qemu", "--debug", project("pci"), "-k", "identifies or dma", "--json")
    assert said.status == 0, [case["detail"] for case in said.data["cases"]]
    assert said.data["lane"] == "rust-debug"
    assert len(said.data["cases"]) >= 2
    assert said.data["cases"][-1]["name"].endswith("kmemleak")


def test_a_driver_of_the_tree_named_by_its_symbol(
    kdrv: Kdrv, tmp_path: Path, rust_lane: LaneBuild
) -> None:
    place = tmp_path / "sample"
    (place / "tests").mkdir(parents=True)
    (place / "kdrv.toml").write_text(
        '[project]\nname = "sample"\n'
        '[driver]\nmodule = "rust_driver_pci"\nsymbol = "SAMPLE_RUST_DRIVER_PCI"\n'
        '[[machine.device]]\nkind = "pci-testdev"\n'
    )
    (place / "tests/test_sample.py").write_text(
        "def test_binds(driver):\n    assert len(driver.devices) == 1\n"
    )
    (place / "tests/smoke.sh").write_text(
        "#!/bin/sh\necho KTAP version 1\necho 1..1\n"
        "grep -q rust_driver_pci /proc/modules && echo ok 1 loaded || echo not ok 1 loaded\n"
    )
    said = kdrv("test", "--qemu", place, "--json")
    assert said.status == 0, said.err + said.out
    names = sorted(Path(case["name"]).name for case in said.data["cases"])
    assert names == ["smoke.sh::smoke.sh", "test_sample.py::test_binds"]
    assert said.data["kernel"]["cached"], "the symbol is in the default lane already"


def test_a_bad_file_is_told_in_a_sentence(
    kdrv: Kdrv, project: Callable[..., Path], rust_lane: LaneBuild
) -> None:
    place = project("misc")
    (place / "tests/test_typo.py").write_text("def test_x(:\n")
    said = kdrv("test", "--qemu", place)
    assert said.status == 1
    assert "a test file cannot be read: SyntaxError" in said.err
    toml = place / "kdrv.toml"
    toml.write_text(toml.read_text() + '[[machine.device]]\nkind = "edoo"\n')
    (place / "tests/test_typo.py").unlink()
    said = kdrv("test", "--qemu", place)
    assert said.status == 2
    assert "edoo" in said.out + said.err
