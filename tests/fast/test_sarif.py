from __future__ import annotations

import json
from pathlib import Path

import kdrv
from kdrv.build.diagnostics import Diagnostic, Level
from kdrv.report.sarif import sarif, sarif_text

ERROR = Diagnostic(
    "rustc", Level.ERROR, "mismatched types", "a b.rs", 21, 26, "E0308", "rust", "21 | let x = 1;"
)
WARNING = Diagnostic("rustc", Level.WARNING, "unused", "c.rs", 3, 0, "unused_variables", "rust")
LINKER = Diagnostic("ld", Level.ERROR, "undefined reference to {x}", lane="c")


def test_one_run_for_each_tool_of_each_lane() -> None:
    log = sarif([ERROR, LINKER, WARNING])
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-schema-2.1.0.json")
    runs = log["runs"]
    assert [run["tool"]["driver"]["name"] for run in runs] == ["rustc", "ld"]
    assert [run["automationDetails"]["id"] for run in runs] == ["kdrv/rust/rustc", "kdrv/c/ld"]
    assert [len(run["results"]) for run in runs] == [2, 1]
    assert runs[0]["conversion"]["tool"]["driver"] == {
        "name": "kdrv",
        "version": kdrv.__version__,
    }


def test_a_result_points_at_its_rule_and_place() -> None:
    (run,) = sarif([ERROR, WARNING], Path("/trees/linux 7.3"))["runs"]
    assert run["originalUriBaseIds"] == {"SRCROOT": {"uri": "file:///trees/linux%207.3/"}}
    first, second = run["results"]
    rules = run["tool"]["driver"]["rules"]
    assert [rules[r["ruleIndex"]]["id"] for r in (first, second)] == ["E0308", "unused_variables"]
    assert (first["ruleId"], first["level"]) == ("E0308", "error")
    assert first["locations"] == [
        {
            "physicalLocation": {
                "artifactLocation": {"uri": "a%20b.rs", "uriBaseId": "SRCROOT"},
                "region": {"startLine": 21, "startColumn": 26},
            }
        }
    ]
    assert second["locations"][0]["physicalLocation"]["region"] == {"startLine": 3}
    assert first["properties"] == {"detail": "21 | let x = 1;"}


def test_what_has_no_place_or_code_says_so_by_absence() -> None:
    (run,) = sarif([LINKER, Diagnostic("ld", Level.NOTE, "x", "<stdin>", 1, lane="c")])["runs"]
    for result in run["results"]:
        assert not {"locations", "ruleId", "ruleIndex", "properties"} & result.keys()


def test_braces_are_not_placeholders() -> None:
    (run,) = sarif([LINKER])["runs"]
    assert run["results"][0]["message"]["text"] == "undefined reference to {{x}}"


def test_a_file_outside_the_tree_has_a_uri_of_its_own() -> None:
    outside = Diagnostic("gcc", Level.WARNING, "x", "/usr/include/a.h", 1)
    (run,) = sarif([outside], Path("/tree"))["runs"]
    location = run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]
    assert location == {"uri": "file:///usr/include/a.h"}


def test_the_fingerprint_survives_a_move() -> None:
    quoted = "{line} | int x;"

    def fingerprint(line: int) -> str:
        moved = Diagnostic(
            "gcc", Level.WARNING, "unused", "a.c", line, detail=quoted.format(line=line)
        )
        (run,) = sarif([moved])["runs"]
        return str(run["results"][0]["partialFingerprints"]["kdrv/v1"])

    assert fingerprint(3) == fingerprint(300)
    assert (
        fingerprint(3) != sarif([LINKER])["runs"][0]["results"][0]["partialFingerprints"]["kdrv/v1"]
    )


def test_nothing_to_say_is_a_run_without_results() -> None:
    (run,) = sarif([])["runs"]
    assert (run["tool"]["driver"]["name"], run["results"]) == ("kdrv", [])


def test_the_text_is_json() -> None:
    assert json.loads(sarif_text([ERROR])) == sarif([ERROR])
