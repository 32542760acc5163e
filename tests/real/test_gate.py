"""``kdrv gate`` on series of a real kernel: what each patch is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.real import kernel_series as made
from tests.real.conftest import Kdrv, Said

pytestmark = pytest.mark.real

Judged = dict[str, Any]


def judge(kdrv: Kdrv, maker: made.Maker, source: str, *words: str | Path) -> tuple[Said, Judged]:
    said = kdrv("gate", "--json", "--repo", maker.path, *words, source)
    assert said.out, said.err
    return said, said.data


def check(judged: Judged, patch: int, name: str) -> dict[str, Any]:
    """A check of a patch, by the patch's number."""
    found = [one for one in judged["patches"][patch - 1]["checks"] if one["name"] == name]
    assert len(found) == 1, [one["name"] for one in judged["patches"][patch - 1]["checks"]]
    return dict(found[0])


@pytest.fixture(scope="module")
def judged(kdrv: Kdrv, maker: made.Maker) -> Judged:
    """The gallery's verdict."""
    source = maker.series("gallery", *made.GALLERY)
    said, judged = judge(kdrv, maker, source, "--boot", "never")
    assert said.status == 1
    assert judged["outcome"] == "fail"
    return judged


class TestGallery:
    """One long series with a patch of each kind; each is judged against the one before it."""

    @staticmethod
    def number(patch: made.Patch) -> int:
        return made.GALLERY.index(patch) + 1

    def builds(self, judged: Judged, patch: made.Patch) -> tuple[str, str]:
        number = self.number(patch)
        lanes = (check(judged, number, f"build {lane}")["outcome"] for lane in ("c", "rust"))
        return tuple(lanes)  # type: ignore[return-value]

    @pytest.mark.parametrize(
        ("patch", "outcomes"),
        [
            (made.HARMLESS, ("pass", "pass")),
            (made.HEADER, ("pass", "fail")),
            (made.ELSEWHERE, ("pass", "fail")),
            (made.MENDED, ("pass", "pass")),
            (made.WARNS, ("pass", "pass")),
            (made.ONLY_C, ("fail", "pass")),
            (made.NOT_ONLY_C, ("pass", "pass")),
            (made.NO_HELPER, ("pass", "fail")),
            (made.HELPER_AGAIN, ("pass", "pass")),
            (made.NO_RUST, ("pass", "fail")),
            (made.RUST_AGAIN, ("pass", "pass")),
            (made.NEW_DRIVER[0], ("pass", "pass")),
            (made.NEW_DRIVER[1], ("pass", "pass")),
            (made.HEADER_NEVER_MENDED, ("pass", "fail")),
        ],
        ids=lambda value: value[0] if isinstance(value[0], str) and len(value[0]) > 4 else "",
    )
    def test_each_lane_of_each_patch(
        self, judged: Judged, patch: made.Patch, outcomes: tuple[str, str]
    ) -> None:
        assert self.builds(judged, patch) == outcomes

    def test_a_break_names_symbol_use_and_mending(self, judged: Judged) -> None:
        broken = {one["patch"]: one for one in judged["breaks"] if one["lane"] == "rust"}
        header = broken[self.number(made.HEADER)]
        assert header["mended"] == self.number(made.MENDED)
        symbol = header["symbols"][0]
        assert (symbol["name"], symbol["changed"]) == ("misc_deregister", "changed")
        assert "sync" in symbol["after"]
        assert "sync" not in symbol["before"]
        assert {use["file"] for use in symbol["uses"]} == {"rust/kernel/miscdevice.rs"}
        assert header["maintainers"]
        assert broken[self.number(made.NO_HELPER)]["symbols"][0]["name"] == "signal_pending"
        assert broken[self.number(made.HEADER_NEVER_MENDED)]["mended"] is None

    def test_what_only_stays_broken_is_said_to(self, judged: Judged) -> None:
        later = check(judged, self.number(made.ELSEWHERE), "build rust")
        assert f"as since patch {self.number(made.HEADER)}" in later["summary"]
        assert later["diagnostics"] == []

    def test_a_lane_that_reads_nothing_of_a_patch_is_not_built(self, judged: Judged) -> None:
        assert "reads nothing" in check(judged, self.number(made.ELSEWHERE), "build c")["summary"]
        assert "reads nothing" in check(judged, self.number(made.MENDED), "build c")["summary"]
        assert "target" in check(judged, self.number(made.MENDED), "build rust")["summary"]

    def test_warnings_are_compared_one_by_one(self, judged: Judged) -> None:
        first = check(judged, self.number(made.WARNS), "warnings c")
        other = check(judged, self.number(made.WARNS_OTHERWISE), "warnings c")
        assert "kdrv_first" in first["diagnostics"][0]["message"]
        assert len(other["diagnostics"]) == 1
        assert "kdrv_second" in other["diagnostics"][0]["message"]
        assert check(judged, self.number(made.MOVED), "warnings c")["outcome"] == "pass"

    def test_the_loss_of_rust_is_explained(self, judged: Judged) -> None:
        lost = check(judged, self.number(made.NO_RUST), "build rust")
        assert lost["summary"].startswith("RUST can no longer be configured")
        assert any("BUG" in line for line in lost["detail"])
        assert check(judged, self.number(made.NO_RUST), "build c")["outcome"] == "pass"

    def test_a_new_driver_is_built_and_counted(self, judged: Judged) -> None:
        number = self.number(made.NEW_DRIVER[1])
        assert check(judged, number, "rustfmt")["outcome"] == "pass"
        assert judged["patches"][number - 1]["blast"]["symbols"] == []

    def test_every_failure_says_how_to_see_it_again(self, judged: Judged) -> None:
        failed = [
            one
            for patch in judged["patches"]
            for one in patch["checks"]
            if one["outcome"] == "fail"
        ]
        assert failed
        assert [one["name"] for one in failed if not one["reproducer"]] == []

    def test_a_second_run_builds_nothing(
        self, judged: Judged, kdrv: Kdrv, maker: made.Maker
    ) -> None:
        _, again = judge(kdrv, maker, "base..gallery", "--boot", "never")
        for patch in again["patches"]:
            for one in patch["checks"]:
                assert one["reused"] or not one["name"].startswith("build"), one
        strip = ("reused", "seconds")
        plain = [
            [{k: v for k, v in one.items() if k not in strip} for one in patch["checks"]]
            for result in (judged, again)
            for patch in result["patches"]
        ]
        half = len(plain) // 2
        assert plain[:half] == plain[half:]


def test_a_boot_that_only_the_rust_lane_loses(kdrv: Kdrv, maker: made.Maker) -> None:
    source = maker.series("no-boot", made.NO_BOOT)
    said, judged = judge(kdrv, maker, source)
    assert said.status == 1
    assert check(judged, 1, "build rust")["outcome"] == "pass"
    assert check(judged, 1, "boot c")["outcome"] == "pass"
    lost = check(judged, 1, "boot rust")
    assert lost["outcome"] == "fail"
    assert "panic" in " ".join([lost["summary"], *lost["detail"]]).lower()


def test_a_conflict_is_named_with_its_hunk(kdrv: Kdrv, maker: made.Maker, tmp_path: Path) -> None:
    maker.series(
        "rewritten",
        (
            "lib: argv_split: Say it otherwise",
            {made.BOARD: made.swap("splitting a string", "taking a string apart")},
        ),
    )
    theirs = maker.series(
        "conflict",
        (
            "lib: argv_split: Say more",
            {made.BOARD: made.swap("splitting a string", "splitting a long string")},
        ),
    )
    mbox = tmp_path / "series.mbox"
    mbox.write_text(maker.git("format-patch", "--stdout", theirs) + "\n")
    said, judged = judge(kdrv, maker, str(mbox), "--base", "rewritten")
    assert said.status == 1
    applies = check(judged, 1, "applies")
    assert applies["outcome"] == "fail"
    assert applies["detail"][0].startswith(f"{made.BOARD}:1:")
    assert any("+ * Helper function for splitting a long" in line for line in applies["detail"])


def test_an_empty_series_cannot_be_judged(kdrv: Kdrv, maker: made.Maker) -> None:
    said = kdrv("gate", "--repo", maker.path, "base..base")
    assert said.status == 2
    assert "base..base holds no patch" in said.err


def test_a_merge_in_the_range_is_one_step(kdrv: Kdrv, maker: made.Maker) -> None:
    base = maker.git("rev-parse", "base")
    side = maker.commit(base, *made.ELSEWHERE)
    tree = maker.git("rev-parse", f"{side}^{{tree}}")
    ours = maker.commit(base, "docs: Say nothing", {"Documentation/kdrv.txt": "Nothing.\n"})
    maker.git("read-tree", tree)
    merge = maker.git("commit-tree", tree, "-p", ours, "-p", side, text="Merge branch 'side'\n")
    maker.git("update-ref", "refs/heads/merge", merge)
    _, judged = judge(kdrv, maker, "base..merge", "--boot", "never")
    assert [one["patch"]["subject"] for one in judged["patches"]] == [
        "docs: Say nothing",
        "Merge branch 'side'",
    ]
    assert check(judged, 2, "applies")["outcome"] == "warn"


def test_forty_patches(kdrv: Kdrv, maker: made.Maker) -> None:
    # What a build directory holds does not matter: here one that could not be built to its end.
    now = time.time_ns()
    broken = ("lib: argv_split: Break", {made.BOARD: lambda text: f"{text}#error {now}\n"})
    said, _ = judge(kdrv, maker, maker.series("broken", broken), "--boot", "never")
    assert said.status == 1
    patches = [
        (f"docs: Line {number}", {f"Documentation/kdrv-{number}.txt": f"{number}\n"})
        for number in range(1, 41)
    ]
    source = maker.series("forty", *patches)
    _, judged = judge(kdrv, maker, source, "--boot", "never")
    assert len(judged["patches"]) == 40
    for number in range(1, 41):
        for lane in ("c", "rust"):
            assert "reads nothing" in check(judged, number, f"build {lane}")["summary"]


def test_a_killed_run_goes_on_where_it_stopped(kdrv: Kdrv, maker: made.Maker) -> None:
    now = time.time_ns()  # what was judged before would not be built
    patches = [
        (f"lib: argv_split: Count {n}", {made.BOARD: lambda text, n=n: f"{text}/* {now + n} */\n"})
        for n in range(4)
    ]
    source = maker.series("killed", *patches)
    argv = [sys.executable, "-c", "from kdrv.cli.main import main; main()", "gate"]
    argv += ["--repo", str(maker.path), "--boot", "never", source]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stderr
        for line in run.stderr:
            if "building patch 2, lane c" in line:
                break
        else:
            pytest.fail("patch 2 was never built")
        time.sleep(2.0)
        os.kill(run.pid, signal.SIGKILL)
    _, judged = judge(kdrv, maker, source, "--boot", "never")
    outcomes = [check(judged, n, "build c")["outcome"] for n in range(1, 5)]
    assert outcomes == ["pass"] * 4
    assert check(judged, 1, "build c")["reused"]
    assert not check(judged, 4, "build c")["reused"]


def test_the_users_repository_is_left_alone(kdrv: Kdrv, maker: made.Maker) -> None:
    def everything() -> dict[str, int]:
        files = (path for path in sorted(maker.path.rglob("*")) if path.is_file())
        return {str(path): path.stat().st_mtime_ns for path in files}

    source = maker.series("alone", made.ELSEWHERE)
    with maker.alone():
        before = everything()
        judge(kdrv, maker, source, "--boot", "never")
        assert everything() == before
