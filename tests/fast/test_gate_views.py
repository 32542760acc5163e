"""A judged series, in every view: what it says, and that nobody else can say anything in it."""

from __future__ import annotations

import io
import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from email import message_from_bytes
from email.policy import default

import pytest
from junitparser import Error, Failure, JUnitXml, Skipped
from rich.console import Console

from kdrv.core.show import clean
from kdrv.gate.result import Blast, Check, GateResult, Outcome, PatchResult
from kdrv.report.gate.annotations import MOST, github, gitlab_text, show_github
from kdrv.report.gate.data import gate_data
from kdrv.report.gate.junit import junit_text
from kdrv.report.gate.mail import WIDTH, gate_mail
from kdrv.report.gate.page import gate_page
from kdrv.report.gate.patchwork import b4_checks, b4_lines, nipa
from kdrv.report.gate.sarif import gate_sarif
from kdrv.report.gate.terminal import show_gate
from kdrv.report.gate.words import change_lines, exit_code, first
from tests.fast.gate_results import (
    E0308,
    MODPOST,
    NAMES,
    PCI_DEV,
    PCI_ENABLE,
    UNUSED,
    bad,
    bisect_hole,
    checks,
    conflict,
    empty,
    forty,
    green,
    hostile,
    judged,
    patch,
    unknown,
)
from tests.fast.test_html import Page

EVERY = (bisect_hole, green, conflict, unknown, empty, forty, hostile)
REPRODUCER = "kdrv gate b..t --patch 2 --only 'build rust'"
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def terminal(result: GateResult, width: int = 80) -> str:
    file = io.StringIO()
    show_gate(result, Console(file=file, force_terminal=True, color_system=None, width=width))
    return file.getvalue()


def plain(result: GateResult) -> str:
    file = io.StringIO()
    show_gate(result, Console(file=file, highlight=False))
    return file.getvalue()


VIEWS: dict[str, Callable[[GateResult], str]] = {
    "terminal": terminal,
    "plain": plain,
    "json": lambda result: json.dumps(gate_data(result), ensure_ascii=False),
    "junit": junit_text,
    "sarif": gate_sarif,
    "github": lambda result: "\n".join(github(result)),
    "gitlab": gitlab_text,
    "b4": lambda result: json.dumps(b4_checks(result), ensure_ascii=False),
    "b4-lines": lambda result: "\n".join(b4_lines(result)),
    "nipa": lambda result: nipa(result)[1],
    "mail": lambda result: bytes(gate_mail(result)).decode(),
    "page": gate_page,
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("make", EVERY)
def test_no_view_passes_on_what_a_terminal_obeys(view: str, make: Callable[[], GateResult]) -> None:
    shown = VIEWS[view](make())
    assert not CONTROLS.search(shown)
    shown.encode()


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a\tb\nc", "a\tb\nc"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x9b31mred", "red"),
        ("\x1b]0;title\x07x\x1b]8;;file:///etc\x1b\\y", "xy"),
        ("\x1b]0;never ends\nnext line", "\nnext line"),
        ("\x1bP1;2qpicture\x1b\\x\x1b(0y\x1bcz", "xyz"),
        ("\x1b\x1b[31m[31m", "[31m"),
        ("\x1b[", ""),
        ("a\rb\x08\x7f\x85c\r\n", "abc\n"),
        ("a\u202eb\u2066c\u200f", "a\\u202eb\\u2066c\\u200f"),
        ("a\u2028b\udc80\ufffe", "a\\u2028b\\udc80\\ufffe"),
        ("Gr\N{LATIN SMALL LETTER U WITH DIAERESIS}n \N{CHECK MARK}", "Grün ✓"),
    ],
)
def test_clean(text: str, left: str) -> None:
    assert clean(text) == left
    assert clean(left) == left


def test_the_first_thing_to_fix_is_on_top() -> None:
    lines = terminal(bisect_hole(), 120).splitlines()
    assert lines[0] == (
        "Fix first: patch 2/3 (PCI: give pci_enable() flags) breaks lane rust: "
        "C function pci_enable changed"
    )
    assert lines[1].strip() == "rust/kernel/pci.rs:112:31: mismatched types"
    assert lines[3].strip() == f"reproduce: {REPRODUCER}"


def test_a_break_is_told_in_words() -> None:
    shown = " ".join(plain(bisect_hole()).split())
    for words in (
        "patch 2 breaks lane rust; green again at patch 3",
        "from pub fn pci_enable(dev: *mut pci_dev) -> ffi::c_int;",
        "to pub fn pci_enable(dev: *mut pci_dev, flags: ffi::c_uint) -> ffi::c_int;",
        "used in rust/kernel/pci.rs:112, rust/kernel/pci.rs:140, rust/kernel/pci/id.rs:9 and 1",
        "ask: Danilo K <dk@example.org>, R L <l@example.org>",
        "blast radius of patch 2/3: 2 C symbols changed, 1 gone; 1 of them used by Rust files",
        "policy: churn.core = 80 (kdrv.toml:12)",
    ):
        assert words in shown
    never = replace(bisect_hole().breaks[0], mended=None)
    assert "lane rust; never green again" in plain(replace(bisect_hole(), breaks=(never,)))


def test_of_a_long_symbol_the_lines_that_differ_are_told() -> None:
    assert [word for word, _ in change_lines(PCI_ENABLE)] == ["from", "to"]
    assert change_lines(PCI_DEV) == [
        ("-", "pub vendor: u16,"),
        ("+", "pub vendor: u32,"),
        ("+", "pub more: u8,"),
    ]


def test_the_last_line_is_the_verdict() -> None:
    last = plain(bisect_hole()).splitlines()[-1]
    assert last == (
        "FAILED 3 patches on Linux 7.3.4, policy default: 1 check failed, 2 checks warned"
        "  3 min 20 s"
    )


def test_where_there_is_no_terminal_every_line_stands_by_itself() -> None:
    lines = plain(forty()).splitlines()
    assert any(len(line) > 100 for line in lines)
    (row,) = [line for line in lines if line.startswith("   17  ")]
    assert row.endswith("...: FAILED build c, 13 checks passed")
    assert " 1-16  (16 patches): 14 checks passed" in lines


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize("width", [80, 132])
def test_a_terminal_s_lines_fit_but_for_commands(
    make: Callable[[], GateResult], width: int
) -> None:
    for line in terminal(make(), width).splitlines():
        assert len(line) <= width or line.strip().startswith("reproduce:")


def test_a_wide_terminal_shows_every_check() -> None:
    shown = terminal(bisect_hole(), 200)
    header = shown[: shown.index("1  PCI")]
    assert set(" ".join(NAMES).split()) <= set(header.split())
    assert "wherever they ran" not in shown


def test_a_narrow_one_shows_those_that_fail_and_names_the_others() -> None:
    shown = terminal(bisect_hole())
    (row,) = [line for line in shown.splitlines() if line.startswith("2  PCI")]
    assert row.split()[-4:] == ["✗", "FAIL", "!", "warn"]
    rest = shown[shown.index("green wherever they ran") :].split("\n\n")[0]
    assert "build c," in rest and "build rust" not in rest


def test_failing_checks_that_do_not_fit_side_by_side_make_several_tables() -> None:
    every = tuple(bad(1, name, Outcome.FAIL, "no") for name in NAMES)
    shown = terminal(judged(PatchResult(patch(1), every)))
    rows = [line for line in shown.splitlines() if line.startswith("1  PCI")]
    assert len(rows) > 1
    assert sum(row.count("FAIL") for row in rows) == len(NAMES)


def test_a_check_that_a_patch_has_not_leaves_its_cell_empty() -> None:
    result = conflict()
    (row,) = [line for line in terminal(result, 200).splitlines() if line.startswith("2  PCI")]
    assert row.split()[-2:] == ["✗", "FAIL"]
    assert "hunk 2 at line 40" in terminal(result)


@pytest.mark.parametrize("number", [1, 2, 40])
def test_green_is_short(number: int) -> None:
    lines = terminal(green(number)).splitlines()
    assert len(lines) <= 5
    assert "14 of " in " ".join(lines) and "checks known from before" in " ".join(lines)
    assert plain(green(number)).splitlines()[-1].startswith("ok ")


def test_a_green_series_still_says_what_rust_will_see() -> None:
    result = green()
    told = replace(result.patches[1], blast=Blast((PCI_ENABLE,)))
    shown = plain(replace(result, patches=(result.patches[0], told)))
    assert "blast radius of patch 2/2: 1 C symbol changed; 1 of them used by Rust files" in shown


def test_an_empty_series_says_so() -> None:
    assert plain(empty()).startswith("ok main..topic holds no patch: there is nothing to judge")


def test_what_could_not_be_judged_is_no_failure_and_no_success() -> None:
    lines = plain(unknown()).splitlines()
    assert lines[0] == (
        "Not judged: patch 1/1 (PCI: patch number 1), build rust could not be judged: "
        "the sandbox ran out of disk"
    )
    assert lines[-1].startswith("NOT JUDGED 1 patch")
    assert "?      build rust: the sandbox ran out of disk" in plain(unknown())


def test_many_diagnostics_are_counted_not_shown() -> None:
    shown = plain(forty())
    assert shown.count(" error error ") == 20
    assert "and 80 more new ones (--json shows all)" in shown


def test_a_patch_that_does_not_apply_is_counted_too() -> None:
    result = conflict()
    less = replace(result, series=replace(result.series, patches=result.series.patches[:1]))
    assert plain(less).startswith("Fix first: patch 2/2 (PCI: patch number 2), applies failed")


def test_a_place_is_told_once() -> None:
    summary = f"1 new warning: {UNUSED.place}: {UNUSED.message}"
    check = bad(1, "warnings c", Outcome.FAIL, summary, UNUSED)
    lines = plain(judged(PatchResult(patch(1), (check,)))).splitlines()
    assert UNUSED.place in lines[0] and lines[1].startswith("  reproduce:")


def test_the_order_of_urgency() -> None:
    style = bad(1, "checkpatch", Outcome.FAIL, "a")
    build = bad(3, "build c", Outcome.FAIL, "b", UNUSED)
    apply = bad(4, "applies", Outcome.FAIL, "c")
    lost = bad(1, "build c", Outcome.UNKNOWN, "d")
    warned = bad(1, "sparse", Outcome.WARN, "e")

    def told(*found: tuple[int, Check]) -> str:
        result = judged(*(PatchResult(patch(n), checks(n, check)) for n, check in found))
        finding = first(result)
        return finding.check.summary if finding else ""

    assert told((1, style), (3, build), (4, apply)) == "c"
    assert told((1, style), (3, build)) == "b"
    assert told((1, lost), (3, style)) == "a"
    assert told((1, warned), (2, lost)) == "d"
    assert told((1, warned)) == "e"


@pytest.mark.parametrize(
    ("make", "outcome", "code"),
    [(green, "pass", 0), (bisect_hole, "fail", 1), (unknown, "unknown", 2), (empty, "pass", 0)],
)
def test_json_has_the_outcome_and_the_exit_code(
    make: Callable[[], GateResult], outcome: str, code: int
) -> None:
    data = json.loads(json.dumps(gate_data(make())))
    assert (data["outcome"], data["exit_code"]) == (outcome, code)
    assert exit_code(make()) == code
    assert len(data["patches"]) == len(make().patches)


def test_json_has_all_of_it() -> None:
    data = gate_data(bisect_hole())
    assert [told["outcome"] for told in data["patches"]] == ["pass", "fail", "pass"]
    assert data["breaks"][0]["symbols"][0]["uses"][3]["line"] == 77
    assert data["patches"][1]["checks"][2]["diagnostics"][0]["detail"] == E0308.detail
    assert data["patches"][0]["patch"]["message"].endswith("It is better so.\n")


def test_warnings_alone_pass() -> None:
    warned = bad(1, "checkpatch", Outcome.WARN, "1 new warning", UNUSED)
    result = judged(PatchResult(patch(1), checks(1, warned)))
    assert exit_code(result) == 0
    assert plain(result).startswith("Look at first: patch 1/1 (PCI: patch number 1), checkpatch")
    assert plain(result).splitlines()[-1].startswith("ok ")


def test_junit() -> None:
    lost = bad(1, "build c", Outcome.UNKNOWN, "no disk")
    left = Check("sparse", Outcome.SKIP, "no C file")
    result = bisect_hole()
    one = replace(result.patches[0], checks=checks(1, lost, left))
    xml = JUnitXml.fromstring(
        junit_text(replace(result, patches=(one, *result.patches[1:]))).encode()
    )
    suites = list(xml)
    assert [suite.name for suite in suites][1:] == [
        "patch 2/3: PCI: give pci_enable() flags",
        "patch 3/3: rust: pci: pass flags",
        "series",
    ]
    assert (xml.tests, xml.failures, xml.errors, xml.skipped) == (44, 1, 1, 1)
    cases = {(suite.name[:7], case.name): case for suite in suites for case in suite}
    (failure,) = cases["patch 2", "build rust"].result
    assert isinstance(failure, Failure)
    assert failure.message == "1 new error"
    assert f"reproduce: {REPRODUCER}" in str(failure.text)
    assert "rust/kernel/pci.rs:112:31: error: mismatched types [E0308]" in str(failure.text)
    (error,) = cases["patch 1", "build c"].result
    assert isinstance(error, Error)
    (skipped,) = cases["patch 1", "sparse"].result
    assert isinstance(skipped, Skipped)
    warned = cases["patch 2", "checkpatch"]
    assert warned.is_passed and "line length of 112" in str(warned.system_out)


def test_sarif_names_the_patch() -> None:
    runs = json.loads(gate_sarif(bisect_hole()))["runs"]
    assert [run["tool"]["driver"]["name"] for run in runs] == ["rustc", "checkpatch"]
    (result,) = runs[0]["results"]
    assert result["properties"] == {
        "detail": E0308.detail,
        "patch": 2,
        "commit": "2" * 40,
        "check": "build rust",
        "reproducer": REPRODUCER,
    }


def parse(line: str) -> tuple[str, dict[str, str], str]:
    """A workflow command as the runner takes it apart."""
    head, _, text = line.removeprefix("::").partition("::")
    kind, _, rest = head.partition(" ")

    def plain_of(escaped: str) -> str:
        for code, character in (("3A", ":"), ("2C", ","), ("0D", "\r"), ("0A", "\n"), ("25", "%")):
            escaped = escaped.replace(f"%{code}", character)
        return escaped

    properties = dict(each.split("=", 1) for each in rest.split(",") if each)
    return kind, {name: plain_of(value) for name, value in properties.items()}, plain_of(text)


def test_github_annotations() -> None:
    commands = [parse(line) for line in github(bisect_hole())]
    assert [kind for kind, _, _ in commands] == ["error", "warning", "warning"]
    _, properties, text = commands[0]
    assert properties == {
        "title": "patch 2/3: build rust",
        "file": "rust/kernel/pci.rs",
        "line": "112",
        "col": "31",
    }
    assert text.splitlines() == [
        "mismatched types [E0308]",
        "patch 2/3 (PCI: give pci_enable() flags) breaks lane rust: C function pci_enable changed",
        f"reproduce: {REPRODUCER}",
    ]
    assert "file" not in commands[2][1]


def test_github_properties_are_escaped_as_documented() -> None:
    odd = replace(UNUSED, file="a,b:c%d.c", message="100% of\tit")
    check = bad(1, "build c", Outcome.FAIL, "1 new", odd)
    (line,) = github(judged(PatchResult(patch(1), (check,))))
    assert line.startswith(
        "::error title=patch 1/1%3A build c,file=a%2Cb%3Ac%25d.c,line=40,col=6::"
    )
    assert "::100%25 of it [-Wunused-variable]%0Areproduce: " in line


def test_github_shows_ten_of_a_kind_and_counts_the_others() -> None:
    lines = github(forty())
    assert sum(line.startswith("::error ") for line in lines) == MOST
    assert lines[-1] == "::notice::and 92 more, which the report has"


def test_nobody_else_commands_the_runner(capsys: pytest.CaptureFixture[str]) -> None:
    show_github(hostile())
    lines = capsys.readouterr().out.splitlines()
    word = lines[0].removeprefix("::stop-commands::")
    end = lines.index(f"::{word}::")
    assert len(word) == 32 and end > 10
    # From there on, commands count again: each line is one of ours.
    ours = lines[end + 1 :]
    assert ours and all(line.startswith("::error title=") for line in ours)
    for line in ours:
        _, properties, _ = parse(line)
        assert set(properties) == {"title", "file", "line", "col"}
    show_github(hostile())
    assert word not in capsys.readouterr().out


def test_gitlab_report() -> None:
    twice = bad(1, "build c", Outcome.FAIL, "2 new", UNUSED, UNUSED, MODPOST)
    result = judged(PatchResult(patch(1), checks(1, twice)))
    found = json.loads(gitlab_text(result))
    assert [one["severity"] for one in found] == ["major"] * 3
    assert [one["location"]["path"] for one in found].count("drivers/pci/pci.c") == 3
    assert all(one["location"]["lines"]["begin"] >= 1 for one in found)
    assert len({one["fingerprint"] for one in found}) == 3
    assert "build c: -Wunused-variable" in {one["check_name"] for one in found}
    moved = replace(UNUSED, line=400)
    again = bad(1, "build c", Outcome.FAIL, "2 new", moved, moved, MODPOST)
    other = json.loads(gitlab_text(judged(PatchResult(patch(1), checks(1, again)))))
    assert [one["fingerprint"] for one in other] == [one["fingerprint"] for one in found]
    assert json.loads(gitlab_text(green())) == []


def test_b4_review_takes_what_we_say() -> None:
    found = b4_checks(bisect_hole())
    for one in found:
        # b4/review/checks.py: _run_external_cmd
        assert set(one) == {"tool", "status", "summary", "url", "details"}
        assert one["status"] in ("pass", "warn", "fail")
        assert all(isinstance(value, str) for value in one.values())
    by_tool = {one["tool"]: one for one in found}
    # b4 keeps one answer for each tool: of three patches the worst.
    assert len(by_tool) == len(found) == len(NAMES) + 2
    assert by_tool["kdrv build rust"]["status"] == "fail"
    assert REPRODUCER in by_tool["kdrv build rust"]["details"]
    assert by_tool["kdrv checkpatch"]["status"] == "warn"
    assert by_tool["kdrv build c"] == {
        "tool": "kdrv build c",
        "status": "pass",
        "summary": "passed",
        "url": "",
        "details": "",
    }
    (lost,) = [one for one in b4_checks(unknown()) if one["tool"] == "kdrv build rust"]
    assert (lost["status"], lost["summary"]) == ("warn", "not judged: the sandbox ran out of disk")
    skipped = judged(PatchResult(patch(1), (Check("sparse", Outcome.SKIP, "no C"),)))
    assert b4_checks(skipped) == []


def flags(lines: list[str]) -> list[str]:
    """As b4's LoreMessage.run_local_check judges lines."""
    return ["fail" if "ERROR:" in line else "warning" for line in lines]


def test_b4_prep_takes_lines() -> None:
    lines = b4_lines(bisect_hole())
    assert flags(lines) == ["fail", "fail", "warning", "warning", "warning"]
    assert lines[0] == f"ERROR: build rust: 1 new error (reproduce: {REPRODUCER})"
    assert b4_lines(green()) == []
    assert flags(b4_lines(unknown())) == ["warning"]
    shouted = bad(1, "checkpatch", Outcome.WARN, "ERROR:trailing whitespace")
    assert flags(b4_lines(judged(PatchResult(patch(1), (shouted,))))) == ["warning"]


def test_nipa() -> None:
    code, line = nipa(bisect_hole())
    assert code not in (0, 250)
    assert line.startswith("patch 2/3 (PCI: give pci_enable() flags) breaks lane rust")
    assert nipa(green()) == (0, "all pass")
    code, line = nipa(unknown())
    assert (code, "could not be judged" in line) == (250, True)
    assert len(nipa(forty())[1]) <= 200


def body(result: GateResult) -> list[str]:
    parsed = message_from_bytes(bytes(gate_mail(result)), policy=default)
    content = parsed.get_content()
    assert isinstance(content, str)
    return content.splitlines()


@pytest.mark.parametrize("make", EVERY)
def test_a_mail_s_lines_are_short(make: Callable[[], GateResult]) -> None:
    lines = body(make())
    assert max(len(line) for line in lines) <= WIDTH
    assert lines[-2] == "-- "
    # Nothing that mail tools take for the start of a patch or of another mail.
    assert not any(re.match("(From |---|diff |@@ )", line) for line in lines)


def test_a_mail_answers_the_patch_at_fault_or_the_cover() -> None:
    mail = gate_mail(bisect_hole())
    assert mail["Subject"] == "Re: PCI: give pci_enable() flags"
    assert mail["In-Reply-To"] == mail["References"] == "<p2@example.org>"
    assert not {"To", "From", "Cc", "Date"} & set(mail.keys())
    mail = gate_mail(bisect_hole(), cover_id="c0@example.org", subject="[PATCH v2 0/3] PCI: flags")
    assert mail["Subject"] == "Re: [PATCH v2 0/3] PCI: flags"
    assert mail["In-Reply-To"] == "<c0@example.org>"
    assert gate_mail(green())["In-Reply-To"] is None


def test_a_mail_says_what_and_how_to_see_it() -> None:
    text = "\n".join(body(bisect_hole()))
    assert "To see it:\n\n  " + REPRODUCER in text
    assert "breaks lane rust: C function\npci_enable changed." in text
    assert "Patch 2 breaks lane rust; green again at patch 3." in text
    assert "The other 41 checks passed." in text
    assert "everything passes" in " ".join(body(green()))
    assert len(body(green())) < 12


def test_a_long_command_is_continued_as_a_shell_takes_it() -> None:
    command = "kdrv gate " + " ".join(f"--option-{n} 'a value of {n}'" for n in range(12))
    lines = body(replace(green(), reproducer=command))
    start = lines.index("To run all of it again:") + 2
    shown = "\n".join(lines[start : lines.index("", start)])
    assert shown.count("\\\n") > 2
    # What a shell makes of a backslash before the end of a line.
    assert shlex.split(shown.replace("\\\n", "")) == shlex.split(command)


def test_a_mail_s_headers_hold_what_they_should() -> None:
    long_id = f"<{'x' * 120}@example.org>"
    named = patch(1, "rust: Gr\N{LATIN SMALL LETTER U WITH DIAERESIS}n", long_id)
    raw = bytes(gate_mail(judged(PatchResult(named, checks(1)))))
    assert f"In-Reply-To: {long_id}\n".encode() in raw
    assert message_from_bytes(raw, policy=default)["Subject"] == f"Re: {named.subject}"
    for odd in ("<a@b>\nBcc: <everybody@example.org>", "<a@b> <c@d>", "no id"):
        mail = gate_mail(judged(PatchResult(patch(1, "x", odd), checks(1))))
        assert mail["In-Reply-To"] is None and mail["Bcc"] is None


@pytest.mark.parametrize("make", EVERY)
def test_a_page_is_whole_and_needs_nothing_else(make: Callable[[], GateResult]) -> None:
    text = gate_page(make())
    page = Page(text)
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "img", "link", "iframe", "object", "form"}
    assert not any({"onclick", "src", "style"} & attributes.keys() for _, attributes in page.tags)
    hrefs = {attributes["href"] for tag, attributes in page.tags if tag == "a"}
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert all(href and href.startswith("#") and href[1:] in ids for href in hrefs)
    assert "default-src 'none'" in text
    assert "<b>\\u202e" not in text and "url(" not in text


def test_the_page_shows_table_breaks_checks_and_blast_radius() -> None:
    page = Page(gate_page(bisect_hole()))
    assert page.count("td", "cell") == 3 * len(NAMES)
    assert (page.count("td", "bad"), page.count("td", "warn")) == (1, 1)
    assert page.count("g", "stop") == 6
    assert page.count("g", "bad") == 1 and page.count("line", "bad") == 1
    for words in (
        "Fix first",
        "patch 2/3 (PCI: give pci_enable() flags) breaks lane rust: C function pci_enable changed",
        REPRODUCER,
        "patch 2 breaks lane rust; green again at patch 3",
        "lane c, patch by patch",
        "pub fn pci_enable(dev: *mut pci_dev, flags: ffi::c_uint) -> ffi::c_int;",
        "drivers/gpu/nova-core/driver.rs:77",
        "helper rust_helper_pci_name is gone",
        "policy: churn.core = 80 (kdrv.toml:12)",
        "expected `u32`, found `i32`",
    ):
        assert words in page.text
    opened = [attributes for tag, attributes in page.tags if tag == "details"]
    assert sum("open" in attributes for attributes in opened) == 2


def test_a_green_page_has_no_breaks() -> None:
    page = Page(gate_page(green()))
    assert "Fix first" not in page.text and page.count("svg", "lane-way") == 0
    assert "There is no patch in this series." in Page(gate_page(empty())).text
