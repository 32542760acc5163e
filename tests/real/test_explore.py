"""From a campaign to a bug, its replay, its fix and the proof that it is gone."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kdrv.explore import plan as plans
from kdrv.explore.bugbase import BUG, CONSOLE, PLAN, STORY, TRACE, load_all
from kdrv.scaffold.api import ScaffoldRequest, create

from .conftest import Kdrv

pytestmark = pytest.mark.real

TIMEOUT = """\
            if late {
                return Err(ETIMEDOUT);
            }
"""
"""What ends the driver's wait for an interrupt that never comes."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("explore")
    create(ScaffoldRequest(name="seeker", bus="pci", directory=place))
    return place / "seeker"


@pytest.fixture(scope="module")
def broken(project: Path) -> Path:
    """The driver without its timeout."""
    source = project / "seeker.rs"
    text = source.read_text()
    assert text.count(TIMEOUT) == 1
    source.write_text(text.replace(TIMEOUT, ""))
    return project


def mended(project: Path) -> None:
    source = project / "seeker.rs"
    source.write_text(
        source.read_text().replace("            if !busy {\n", TIMEOUT + "            if !busy {\n")
    )


def test_a_correct_driver_is_left_alone(project: Path, kdrv: Kdrv) -> None:
    said = kdrv("explore", project, "--seeds", 60, "--kernels", "plain", "--json")
    assert said.status == 0, said.out + said.err
    campaign = said.data["campaign"]
    assert campaign["runs"] >= 40  # a plan that is drawn twice runs once
    assert said.data["bugs"] == []
    assert sum(campaign["fired"].values()) > 20
    assert campaign["lines_covered"] > 20, "KCOV has seen hardly anything of the driver"
    assert campaign["virtual_seconds"] > campaign["seconds"]


CARELESS = [
    # What was written is more than what there was to write.
    ("        data.truncate(copied);\n", "", "callers-memory", "has changed more"),
    # The interrupt handler wakes nobody: who waits looks again after a while.
    ("                self.0.report.notify_all();\n", "", "prompt", "a timer ends its wait"),
]


@pytest.mark.parametrize(("line", "instead", "broken", "said"), CARELESS)
def test_what_works_all_the_same_is_found(
    line: str, instead: str, broken: str, said: str, tmp_path: Path, kdrv: Kdrv
) -> None:
    create(ScaffoldRequest(name="careless", bus="pci", directory=tmp_path))
    source = tmp_path / "careless" / "careless.rs"
    text = source.read_text()
    assert text.count(line) == 1
    source.write_text(text.replace(line, instead))
    run = kdrv("explore", source.parent, "--seeds", 4, "--kernels", "plain", "--json")
    assert run.status == 1, run.out + run.err
    (bug, *_) = run.data["bugs"]
    assert bug["violation"]["name"] == broken
    assert said in bug["violation"]["words"]


def test_a_driver_of_the_tree_is_explored_with_coverage(tmp_path: Path, kdrv: Kdrv) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "kdrv.toml").write_text(
        '[project]\nname = "sample"\n[driver]\nmodule = "rust_misc_device"\n'
        'symbol = "SAMPLE_RUST_MISC_DEVICE"\n[test]\npaths = ["tests"]\n'
    )
    said = kdrv("explore", tmp_path, "--seeds", 40, "--kernels", "plain", "--json")
    assert said.status == 0, said.out + said.err
    assert said.data["campaign"]["lines_covered"] >= 8


def test_a_bug_is_found_shrunk_and_kept(broken: Path, kdrv: Kdrv) -> None:
    said = kdrv("explore", broken, "--seeds", 96, "--kernels", "plain", "--profile", "lossy")
    assert said.status == 1, said.out + said.err
    assert "Running" not in said.err
    bugs = load_all(broken / "bugs")
    hangs = [bug for bug in bugs if bug.record.property == "returns"]
    assert hangs, said.out
    bug = hangs[0]
    assert len(bug.plan.steps) <= 6, said.out
    assert any(rule.numbers for rule in bug.plan.faults.rules), "the fault is named one by one"
    assert {path.name for path in bug.folder.iterdir()} == {PLAN, BUG, STORY, CONSOLE, TRACE}
    assert f"replay: kdrv replay {bug.folder}" in said.out


def test_a_bug_replays_byte_for_byte_and_can_be_edited(broken: Path, kdrv: Kdrv) -> None:
    (bug, *_) = load_all(broken / "bugs")
    said = kdrv("replay", bug.folder, "--doublecheck", "--trace")
    assert said.status == 1, said.err
    assert "byte for byte" in said.out
    assert "interrupt" in said.out or "BAR0" in said.out
    # A person takes the faults out of the plan: nothing is wrong then.
    calm = bug.folder.parent / "calm"
    calm.mkdir()
    (calm / PLAN).write_text(plans.dump(bug.plan.calm()))
    (calm / BUG).write_text((bug.folder / BUG).read_text())
    said = kdrv("replay", calm, "--json")
    assert said.status == 0, said.out
    assert said.data["exact"] is False


def test_a_mended_driver_is_seen_to_be_mended(broken: Path, kdrv: Kdrv) -> None:
    mended(broken)
    said = kdrv("explore", broken, "--regress", "--kernels", "plain")
    assert said.status == 0, said.out + said.err
    assert "gone" in said.out
    assert "as the driver changed" in said.out


def test_a_campaign_that_is_interrupted_keeps_what_it_has(project: Path) -> None:
    code = "from kdrv.cli.main import main; main()"
    words = ["explore", str(project), "--time", "10m", "--kernels", "plain", "--jobs", "2"]
    child = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert child.stderr
        for line in child.stderr:
            if "runs," in line:
                break
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=120)
    finally:
        child.kill()
    assert "interrupted" in out, out + err
    assert "runs," in out
    assert child.returncode == 0
    deadline = time.monotonic() + 20
    while (left := _kernels(child.pid)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left


def _kernels(session: int) -> list[str]:
    """Processes of a session that ended, which should have gone with it."""
    found = subprocess.run(
        ["ps", "-e", "-o", "sess=,args="], capture_output=True, text=True, check=True
    )
    return [line for line in found.stdout.splitlines() if line.split()[0] == str(session)]
