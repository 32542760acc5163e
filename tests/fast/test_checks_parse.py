"""What the real tools said of drivers written to displease them (recordings/checks)."""

from __future__ import annotations

from pathlib import Path

from kdrv.build import check_parse
from kdrv.build.check_undefined import users
from kdrv.build.diagnostics import Level

RECORDINGS = Path(__file__).parent / "recordings/checks"
PLACE = "/run/kdrv/mod"


def _said(name: str) -> str:
    return (RECORDINGS / name).read_text()


def test_rustfmt_counts_a_place_once_and_points_at_the_change() -> None:
    found = check_parse.rustfmt(_said("rustfmt.txt"))
    places = [(d.file, d.line, d.column, d.level) for d in found]
    assert places == [
        (f"{PLACE}/inner.rs", 3, 0, Level.WARNING),
        (f"{PLACE}/kbad.rs", 42, 20, Level.ERROR),
        (f"{PLACE}/kbad.rs", 33, 0, Level.WARNING),
    ]
    assert found[0].detail.splitlines()[2:4] == [
        "-pub(crate) fn f(x: i32)   -> i32 { x }",
        "+pub(crate) fn f(x: i32) -> i32 {",
    ]
    assert "unclosed delimiter" in found[1].message
    assert "error" not in found[0].detail


def test_every_clippy_warning_has_its_code() -> None:
    found = check_parse.rust_json(_said("build-rust.txt"), "clippy", PLACE)
    assert {(d.line, d.code) for d in found} == {
        (20, "missing_docs"),
        (21, "missing_docs"),
        (32, "clippy::unnecessary_literal_unwrap"),
        (32, "clippy::unwrap_used"),
        (33, "clippy::panic"),
        (34, "clippy::expect_used"),
        (34, "clippy::unnecessary_literal_unwrap"),
        (35, "unused_variables"),
        (37, "clippy::undocumented_unsafe_blocks"),
        (39, "clippy::needless_return"),
    }
    assert all(d.level is Level.WARNING and d.tool == "clippy" for d in found)
    assert all(d.file == f"{PLACE}/kbad.rs" for d in found)


def test_an_error_inside_a_kernel_macro_is_where_the_driver_calls_it() -> None:
    (error,) = check_parse.rust_json(_said("build-macro.txt"), "clippy", PLACE)
    assert (error.file, error.line, error.code) == (f"{PLACE}/kmisc.rs", 152, "E0308")
    assert error.level is Level.ERROR


def test_rustdoc() -> None:
    found = check_parse.rust_json(_said("rustdoc.txt"), "rustdoc", PLACE)
    assert [(d.line, d.column, d.code) for d in found] == [
        (20, 1, "missing_docs"),
        (21, 5, "missing_docs"),
        (17, 16, "rustdoc::broken_intra_doc_links"),
        (17, 39, "rustdoc::unescaped_backticks"),
    ]


def test_a_broken_line_of_json_is_passed_over() -> None:
    said = '{"$message_type":"diagnostic",\n' + _said("build-macro.txt")
    assert len(check_parse.rust_json(said, "clippy", PLACE)) == 1


def test_checkpatch() -> None:
    found = check_parse.checkpatch(_said("checkpatch.txt"))
    assert [(d.line, d.code) for d in found] == [
        (17, "UNSPECIFIED_INT"),
        (19, "SUSPECT_CODE_INDENT"),
        (19, "BRACES"),
    ]
    assert found[0].message == "Prefer 'unsigned int' to bare use of 'unsigned'"


def test_checkpatch_of_strict_is_a_warning_and_an_error_an_error() -> None:
    said = "/run/kdrv/mod/a.c:3: CHECK:CAMELCASE: Avoid\n/run/kdrv/mod/a.c:4: ERROR:SPACING: Bad\n"
    levels = [d.level for d in check_parse.checkpatch(said)]
    assert levels == [Level.WARNING, Level.ERROR]


def test_kernel_doc_repeats_itself_and_is_heard_once() -> None:
    (warning,) = check_parse.kernel_doc(_said("kernel-doc.txt"))
    assert (warning.line, warning.level) == (14, Level.WARNING)
    assert warning.message == "function parameter 'b' not described in 'cbad_sum'"


def test_who_uses_an_undefined_symbol(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/x.o").write_bytes((RECORDINGS / "undefined.o").read_bytes())
    (tmp_path / "empty.o").touch()
    (tmp_path / "text.o").write_text("no ELF at all")
    assert users(tmp_path, "kdrv_no_such_symbol") == ("cbad_read",)
    assert users(tmp_path, "another_symbol") == ()
