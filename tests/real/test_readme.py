"""The README shows real output: its console blocks are run and held against what is said now."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from kdrv.build.api import LaneBuild, Workbench
from kdrv.core.context import Context

from . import kernel_series as series
from .conftest import Kdrv

pytestmark = pytest.mark.real

README = Path(__file__).parents[2] / "README.md"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.M | re.S)
NUMBERS = (
    (re.compile(r"\d+ min \d+ s|\d+(?:\.\d+)? ?s\b"), "T s"),
    (re.compile(r"Linux 7\.3\.\d+"), "Linux 7.3.N"),
    (re.compile(r"-{3,}|={3,}"), "---"),
    (re.compile(r"[0-9a-f]{10,}"), "HEX"),
    (re.compile(r"\S*/kdrv/(?=[a-z]+/HEX)"), "CACHE/"),
    (re.compile(r"0x[0-9a-f]+"), "0x"),
    (re.compile(r"\(\d+ targets\)|\(built before\)"), "(built)"),
    (re.compile(r"^\[ *\d+\.\d+\]", re.M), "[T]"),
    (re.compile(r"(python|pytest|pluggy)[- ][\d.]+", re.I), r"\1 V"),
    # Which plugins are there is pytest's business, how many targets kbuild's.
    (re.compile(r"^plugins: .*\n", re.M), ""),
    (re.compile(r", \d+ of \d+ checks known from before"), ""),
    # How far a campaign gets, and in which order it meets things, is not for this page to promise.
    (re.compile(r"^ +\d+ (runs|of \d+ lines)\b.*\n", re.M), ""),
    (re.compile(r"^ +(faults fired|never fired).*\n", re.M), ""),
    (re.compile(r"\(met \d+ times?\)"), "(met)"),
    # Which operation shows the bug, and how far it was shrunk.
    (re.compile(r"\b\w+ waits for ever( in .*)?"), "a call waits for ever"),
    (re.compile(r"^ +T s .*\n", re.M), ""),
    (re.compile(r" +"), " "),
)


def _blocks() -> list[tuple[str, str]]:
    """Commands with the output the README shows for them, in its order."""
    found = []
    for block in BLOCK.findall(README.read_text()):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


def _settled(text: str, place: Path) -> list[str]:
    text = text.replace(str(place), "~")
    for pattern, instead in NUMBERS:
        text = pattern.sub(instead, text)
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def test_the_readme_shows_what_kdrv_says(
    kdrv: Kdrv,
    ctx: Context,
    bench: Workbench,
    tmp_path: Path,
    rust_lane: LaneBuild,
    c_lane: LaneBuild,
) -> None:
    blocks = [block for block in _blocks() if block[0].split()[0] in ("kdrv", "cp", "sed")]
    assert len(blocks) >= 9
    maker = series.Maker(series.base_repository(ctx, bench.tree), tmp_path / "index")
    maker.series("hole", *series.GALLERY[:4])
    (tmp_path / "linux").symlink_to(maker.path)
    (tmp_path / "modversions.config").write_text("CONFIG_MODVERSIONS=y\n")
    for command, output in blocks:
        program, *words = shlex.split(command, comments=True)
        if program != "kdrv":
            subprocess.run([program, *words], cwd=tmp_path, check=True)
            continue
        said = kdrv(*words, cwd=tmp_path)
        now = _settled(said.out, tmp_path)
        shown = _settled(output, tmp_path)
        assert now == shown, command
