"""A project's tests in the simulator: the same files as in QEMU, and one history for one seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdrv.scaffold.api import ScaffoldRequest, create

from .conftest import Kdrv, Said

pytestmark = pytest.mark.real

SLEEPER = """\
def test_time_is_virtual(guest):
    before = float(guest.read_text("/proc/uptime").split()[0])
    guest.sleep(10)
    assert float(guest.read_text("/proc/uptime").split()[0]) - before >= 10
"""
LOOSE_CONTACT = """
[faults.loose-contact]
description = "a cable with a loose contact"
[[faults.loose-contact.rule]]
kind = "irq_lost"
rate = 1.0
start = "0s"
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("simulated")
    create(ScaffoldRequest(name="twin-worlds", bus="pci", directory=place))
    (place / "twin-worlds/tests/test_time.py").write_text(SLEEPER)
    with (place / "twin-worlds/kdrv.toml").open("a") as file:
        file.write(LOOSE_CONTACT)
    return place / "twin-worlds"


def _history(said: Said) -> str:
    (machine, *_) = said.data["simulated"]
    return str(machine["history"])


def test_the_tests_of_a_project_pass_in_virtual_time(project: Path, kdrv: Kdrv) -> None:
    said = kdrv("test", "--sim", project, "--json")
    assert said.status == 0, said.out + said.err
    cases = {case["name"].split("::")[-1]: case["outcome"] for case in said.data["cases"]}
    assert cases["test_time_is_virtual"] == "passed"
    assert sum(outcome == "passed" for outcome in cases.values()) >= 12
    (machine,) = said.data["simulated"]
    assert machine["seconds"] > 10
    assert machine["fired"] == []


def test_one_seed_has_one_history(project: Path, kdrv: Kdrv) -> None:
    lossy = ("test", "--sim", project, "--profile", "lossy", "--json")
    one, again, other = (kdrv(*lossy, "--seed", seed) for seed in (5, 5, 6))
    assert _history(one) == _history(again) != _history(other)
    assert one.data["simulated"][0]["fired"]


def test_a_profile_of_the_project_decides_what_goes_wrong(project: Path, kdrv: Kdrv) -> None:
    said = kdrv("test", "--sim", project, "--profile", "loose-contact", "--json", "-k", "factorial")
    assert said.status == 1, said.out
    assert {fault["kind"] for fault in said.data["simulated"][0]["fired"]} == {"irq_lost"}
    failed = [case for case in said.data["cases"] if case["outcome"] == "failed"]
    assert failed and "--profile loose-contact" in failed[0]["reproducer"]


def test_memory_runs_out_where_the_profile_says_so(project: Path, kdrv: Kdrv) -> None:
    oom = ("test", "--sim", project, "--profile", "oom", "--seed", 1, "--json")
    said, again = kdrv(*oom), kdrv(*oom)
    assert _history(said) == _history(again)
    fired = {fault["kind"] for machine in said.data["simulated"] for fault in machine["fired"]}
    assert "probe_fail_nth" in fired <= {"probe_fail_nth", "alloc_fail_nth"}
    # A driver that is loaded without memory goes without a trace; a call says that there is none.
    failed = [case for case in said.data["cases"] if case["outcome"] == "failed"]
    assert all("Cannot allocate memory" in case["detail"] for case in failed), failed
    assert len(failed) < len(said.data["cases"]) / 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("test", "--sim", "--profile", "stormy"), "no fault profile 'stormy'"),
        (("test", "--sim", "--arch", "arm64"), "cannot run a kernel for arm64"),
        (("test", "--qemu", "--seed", "3"), "for the simulator"),
    ],
)
def test_wrong_usage_is_one_sentence(
    words: tuple[str, ...], expected: str, project: Path, kdrv: Kdrv
) -> None:
    said = kdrv(*words, cwd=project)
    assert said.status == 2
    assert expected in said.err
