"""Every kind of failure, from consoles of real kernels: recordings/console/*.log."""

import json
import re
from pathlib import Path

import pytest

from kdrv.machine.reports import Kind, judge, parse
from kdrv.machine.reports.frames import culprits

CONSOLES = Path(__file__).parent / "recordings" / "console"
EXPECTED = json.loads((CONSOLES / "expected.json").read_text())


def recording(name):
    return (CONSOLES / f"{name}.log").read_text().splitlines()


@pytest.mark.parametrize("name", EXPECTED)
def test_each_recording_gives_its_reports(name):
    found = [
        {
            "kind": report.kind.value,
            "title": report.title,
            "where": report.where,
            "task": report.task,
            "culprits": [str(frame) for frame in culprits(report.frames)],
            "fingerprint": report.fingerprint,
        }
        for report in judge(recording(name))
    ]
    assert found == EXPECTED[name]


def test_every_recording_has_an_expectation():
    assert {path.stem for path in CONSOLES.glob("*.log")} == set(EXPECTED)


@pytest.mark.parametrize("name", [name for name in EXPECTED if name.endswith("-clean")])
def test_a_clean_boot_gives_no_report(name):
    assert len(recording(name)) > 10
    assert parse(recording(name)) == ()


@pytest.mark.parametrize("name", [name for name in EXPECTED if EXPECTED[name]])
def test_reports_are_the_same_without_time_stamps(name):
    lines = [line for line in recording(name) if re.search(r"\[ *\d+\.\d{6}\]", line)]
    bare = [re.sub(r"^.*?\[ *\d+\.\d{6}\](\[ *[TC]\d+\])? ?", "", line) for line in lines]
    assert _gist(judge(bare)) == _gist(judge(lines))


@pytest.mark.parametrize("name", [name for name in EXPECTED if EXPECTED[name]])
def test_reports_survive_user_output_and_serial_line_ends(name):
    noisy = []
    for line in recording(name):
        noisy += ["ok 1 something # SKIP", line + "\r", "Kernel panic - not syncing: only a joke"]
    noisy[1] = "user text without an end " + noisy[1]
    assert _gist(judge(noisy)) == _gist(judge(recording(name)))


@pytest.mark.parametrize("name", [name for name in EXPECTED if EXPECTED[name]])
def test_what_was_there_before_is_the_baseline(name):
    lines = recording(name)
    assert judge(lines, baseline=lines) == ()


@pytest.mark.parametrize("name", [name for name in EXPECTED if EXPECTED[name]])
def test_another_boot_with_other_addresses_has_the_same_fingerprints(name):
    moved = []
    for line in recording(name):
        line = re.sub(r"\bffff[0-9a-f]{12}\b", "ffff9999abcd1234", line)
        line = re.sub(
            r"(?<=\+0x)[1-9a-f][0-9a-f]*(?=/0x)", lambda m: f"{int(m[0], 16) + 3:x}", line
        )
        moved.append(re.sub(r"\[ *\d+\.(\d{6})\]", r"[  777.\1]", line))
    assert [r.fingerprint for r in judge(moved)] == [e["fingerprint"] for e in EXPECTED[name]]


@pytest.mark.parametrize("name", [name for name in EXPECTED if EXPECTED[name]])
def test_the_raw_excerpt_is_a_part_of_the_console_and_begins_at_the_report(name):
    lines = recording(name)
    for report in parse(lines):
        assert report.lines
        assert set(report.lines) <= set(lines)
        assert len(report.lines) < 600


def test_the_same_fault_has_one_fingerprint_on_two_architectures():
    on_x86 = EXPECTED["x86_64-plain-null"][0]
    on_um = EXPECTED["um-null"][0]
    assert on_x86["fingerprint"] == on_um["fingerprint"]


def test_different_faults_have_different_fingerprints():
    first = {
        name: reports[0]["fingerprint"]
        for name, reports in EXPECTED.items()
        if name.startswith("x86_64-plain") and reports and reports[0]["culprits"]
    }
    assert first.pop("x86_64-plain-oops-panic") == first["x86_64-plain-null"]
    assert first.pop("x86_64-plain-soft1cpu") == first["x86_64-plain-soft"]
    assert len(set(first.values())) == len(first)


def test_a_rust_panic_is_one_report_with_its_own_message():
    (report,) = parse(recording("x86_64-plain-rust1"))
    assert report.kind is Kind.RUST_PANIC
    assert report.title == "index out of bounds: the len is 1 but the index is 5"
    assert report.where == "rboom.rs:25"
    assert report.culprit is not None
    assert report.culprit.module == "rboom"
    assert any("kernel BUG at rust/helpers/bug.c" in line for line in report.lines)


def test_processor_task_and_taint_are_read():
    (report,) = parse(recording("x86_64-plain-null"))
    assert (report.cpu, report.task, report.taint) == (0, "insmod", "GO")


def _gist(reports):
    return [(r.kind, r.title, r.where, r.task, r.frames, r.fingerprint) for r in reports]
