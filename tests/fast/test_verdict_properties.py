"""Whatever a console says, reading it never raises and never takes long."""

import re
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from kdrv.machine.reports import Report, judge, parse
from kdrv.machine.reports.kmemleak import parse_kmemleak
from kdrv.machine.verdict import describe, verdict_of

CONSOLES = Path(__file__).parent / "recordings" / "console"
REAL = [line for path in sorted(CONSOLES.glob("*.log")) for line in path.read_text().splitlines()]
UNSTAMPED = [re.sub(r"^\[ *\d+\.\d{6}\](\[ *[TC]\d+\])? ?", "", line) for line in REAL]

noise = st.one_of(
    st.text(max_size=120),
    st.sampled_from(REAL),
    st.sampled_from(UNSTAMPED),
    st.sampled_from(REAL).flatmap(lambda line: st.integers(0, len(line)).map(lambda n: line[:n])),
    st.builds("[    1.000000][{}] {}".format, st.sampled_from(["T1", "C0", "x"]), st.text()),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(noise, max_size=60), st.lists(noise, max_size=5))
def test_noise_never_raises_and_every_report_is_whole(lines, before):
    reports = judge(lines, before)
    assert len({report.fingerprint for report in reports}) == len(reports)
    for report in reports:
        assert isinstance(report, Report)
        assert report.fingerprint.startswith(report.kind)
        assert report.lines
        assert describe(report)
    assert verdict_of(reports).passed == (not reports)


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_any_text_is_accepted_as_kmemleak(text):
    for report in parse_kmemleak(text):
        assert report.fingerprint


def test_a_long_console_is_read_in_one_pass():
    lines = UNSTAMPED * 3
    assert len(parse(lines)) > 50
