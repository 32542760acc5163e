from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdrv.build.diagnostics import Diagnostic, Level, by_file, fresh, ordered, parse

RECORDINGS = Path(__file__).parent / "recordings/build"


def recorded(name: str) -> tuple[Diagnostic, ...]:
    return parse((RECORDINGS / f"{name}.log").read_text().splitlines(), lane="rust")


def brief(name: str) -> list[tuple[str, str, str, str, str]]:
    return [(d.tool, d.level.value, d.place, d.code, d.message) for d in recorded(name)]


def only(name: str, words: str) -> Diagnostic:
    (found,) = [d for d in recorded(name) if words in d.message]
    return found


def test_gcc_warnings() -> None:
    assert [(d.tool, d.level.value, d.place, d.code) for d in recorded("gcc-warnings")] == [
        ("gcc", "warning", "drivers/base/faux.c:6:5", "-Wmissing-prototypes"),
        ("gcc", "warning", "drivers/base/faux.c:22:17", "-Wformat="),
        ("gcc", "warning", "drivers/base/faux.c:18:13", "-Wunused-variable"),
        ("gcc", "warning", "drivers/base/faux.c:29:5", "-Wmissing-prototypes"),
        ("gcc", "warning", "drivers/base/faux.c:22:17", "-Wimplicit-fallthrough="),
        ("gcc", "warning", "drivers/base/faux.c:11:12", "-Wunused-function"),
    ]


def test_what_a_macro_expands_to_is_placed_where_the_macro_is_used() -> None:
    """gcc names include/linux/kern_levels.h:5; the pr_info() stands in faux.c:22."""
    found = only("gcc-warnings", "expects argument of type")
    assert found.place == "drivers/base/faux.c:22:17"
    assert "include/linux/printk.h:483:25: note: in definition of macro" in found.detail


def test_what_an_inline_function_does_is_placed_where_it_is_called() -> None:
    assert only("gcc-inlined", "__bad_copy_to").place == "drivers/base/faux.c:12:9"
    assert only("gcc-inlined", "BUILD_BUG_ON failed").place == "drivers/base/faux.c:11:9"


def test_gcc_errors_keep_their_notes() -> None:
    found = recorded("gcc-errors")
    assert [d.level.value for d in found] == ["error"] * 9 + ["warning"] * 2
    undeclared = only("gcc-errors", "missing_variable")
    assert "reported only once" in undeclared.detail
    assert all("/run/kdrv" not in d.detail + d.file for d in found)


def test_a_missing_header_is_an_error() -> None:
    assert brief("gcc-include") == [
        (
            "gcc",
            "error",
            "drivers/base/faux.c:2:10",
            "",
            "linux/no_such_header.h: No such file or directory",
        )
    ]


def test_clang_is_known_by_its_totals() -> None:
    warnings, errors = recorded("clang-warnings"), recorded("clang-errors")
    assert {d.tool for d in (*warnings, *errors)} == {"clang"}
    assert (len(warnings), len(errors)) == (6, 8)
    fall = only("clang-warnings", "fall-through")
    assert (fall.place, fall.code) == ("drivers/base/faux.c:23:2", "-Wimplicit-fallthrough")
    assert "insert 'break;' to avoid fall-through" in fall.detail


@pytest.mark.parametrize("written", ["-Werror=unused-variable", "-Werror,-Wunused-variable"])
def test_a_warning_made_an_error_keeps_its_name(written: str) -> None:
    (found,) = parse([f"a.c:1:2: error: unused variable 'x' [{written}]"])
    assert (found.level, found.code) == (Level.ERROR, "-Wunused-variable")


def test_the_assembler() -> None:
    assert brief("as") == [
        (
            "as",
            "error",
            "drivers/base/faux.c:10",
            "",
            "no such instruction: `bogus_instruction %eax'",
        )
    ]


def test_rustc_errors() -> None:
    assert [(d.tool, d.level.value, d.place, d.code) for d in recorded("rustc-errors")] == [
        ("rustc", "error", "rusterr.rs:36:13", "E0433"),
        ("rustc", "error", "rusterr.rs:35:17", "E0412"),
        ("rustc", "error", "rusterr.rs:21:26", "E0308"),
        ("rustc", "error", "rusterr.rs:25:9", "E0425"),
        ("rustc", "error", "rusterr.rs:26:32", "E0560"),
        ("rustc", "warning", "rusterr.rs:31:9", "unused_variables"),
    ]
    assert "all struct fields are already assigned" in only("rustc-errors", "`Bad`").detail


def test_rustc_help_belongs_to_its_error() -> None:
    found = only("rustc-borrow", "assign twice")
    assert (found.code, found.place) == ("E0384", "rustborrow.rs:25:9")
    assert "consider making this binding mutable" in found.detail


def test_rustc_notes_after_an_empty_line_belong_to_their_error() -> None:
    (found,) = recorded("rustc-const")
    assert (found.code, found.place) == ("E0080", "rustconst.rs:20:13")
    assert "while instantiating `fn read::<5>`" in found.detail


def test_an_error_in_a_generic_of_the_kernel_is_placed_at_its_use() -> None:
    (found,) = parse(
        """\
error[E0080]: evaluation of `Io::offset_ok::<8>` failed
   --> /run/kdrv/src/rust/kernel/io.rs:300:9
    |
300 |         assert!(ok);
    |         ^^^^^^^^^^^

note: the above error was encountered while instantiating `fn read32`
  --> /run/kdrv/mod/edu.rs:25:26
   |
25 |         bar.read32(9);
   |         ^^^^^^^^^^^^^
""".splitlines()
    )
    assert found.place == "edu.rs:25:26"
    assert "rust/kernel/io.rs:300:9" in found.detail


def test_lints_have_their_names() -> None:
    assert [d.code for d in recorded("rustc-lints")] == [
        "unused_variables",
        "unused_assignments",
        "dead_code",
        "missing_docs",
    ]
    assert [(d.tool, d.code) for d in recorded("clippy") if d.tool == "clippy"] == [
        ("clippy", "clippy::len_zero"),
        ("clippy", "clippy::undocumented_unsafe_blocks"),
        ("clippy", "clippy::needless_return"),
    ]


def test_modpost_and_objtool() -> None:
    found = brief("modpost")
    assert found[1:] == [
        (
            "objtool",
            "warning",
            "cbuild.o",
            "",
            "cbuild_stack+0x5: return with modified stack frame",
        ),
        ("modpost", "error", "cbuild.ko", "", "missing MODULE_LICENSE()"),
        ("modpost", "warning", "cbuild.ko", "", "missing MODULE_DESCRIPTION()"),
        (
            "modpost",
            "error",
            "rustbuild.ko",
            "undefined-symbol",
            "symbol 'rust_build_error' undefined",
        ),
        ("modpost", "error", "cbuild.ko", "undefined-symbol", "symbol 'no_such_export' undefined"),
    ]
    assert found[0][:3] == ("objtool", "warning", "rustbuild.o")


def test_modpost_before_7_3() -> None:
    (found,) = parse(['ERROR: modpost: "no_such_export" [drivers/a/b.ko] undefined!'])
    assert (found.file, found.message) == ("drivers/a/b.ko", "symbol 'no_such_export' undefined")


def test_section_mismatches_that_fail_the_build_are_errors() -> None:
    (found,) = recorded("modpost-section")
    assert (found.level, found.code, found.file) == (Level.ERROR, "section-mismatch", "csect.ko")
    lines = (RECORDINGS / "modpost-section.log").read_text().splitlines()
    (tolerated,) = parse(line for line in lines if line.startswith("WARNING"))
    assert tolerated.level is Level.WARNING


def test_linkers() -> None:
    assert [(d.file, d.code, d.message) for d in recorded("ld")] == [
        ("core.c", "undefined-symbol", "undefined reference to `faux_device_create'"),
        ("core.c", "undefined-symbol", "undefined reference to `faux_device_destroy'"),
        ("", "undefined-symbol", "undefined reference to `faux_bus_init'"),
        ("faux.c", "undefined-symbol", "undefined reference to `not_defined_anywhere'"),
    ]
    assert "in function `ldundef_setup'" in recorded("ld")[-1].detail
    (lld,) = recorded("lld")
    assert (lld.tool, lld.file, lld.code) == ("ld.lld", "faux.c", "undefined-symbol")
    assert "(ldundef_setup)" in lld.detail


def test_kconfig() -> None:
    found = recorded("kconfig")
    assert {d.tool for d in found} == {"kconfig"}
    assert (found[0].place, found[0].message) == (
        "drivers/kdrv/Kconfig:17",
        "'D': number is invalid",
    )
    assert (found[4].place, found[4].message) == (
        ".config:2",
        "override: reassigning to symbol A",
    )
    assert found[-1].code == "unmet-dependencies"
    assert "Selected by [y]:" in found[-1].detail
    assert [d.level.value for d in recorded("kconfig-syntax")] == ["error"] * 3


def test_dtc() -> None:
    found = recorded("dtc")
    assert [(d.level.value, d.place, d.code) for d in found[:2]] == [
        ("warning", "bad.dts:8:4", "reg_format"),
        ("warning", "bad.dts:4:13", "unit_address_vs_reg"),
    ]
    assert (found[-1].level, found[-1].place, found[-1].message) == (
        Level.ERROR,
        "err.dts:5:2",
        "syntax error",
    )


def test_bindgen_says_it_once() -> None:
    assert brief("bindgen") == [
        (
            "bindgen",
            "error",
            "rust/bindings/bindings_helper.h:1:10",
            "",
            "'linux/no_such_bindings.h' file not found",
        )
    ]


def test_a_panic_of_a_build_program() -> None:
    (found,) = parse(
        [
            "  BINDGEN rust/bindings/bindings_generated.rs",
            "thread 'main' panicked at bindgen-cli/main.rs:52:36:",
            "Unable to find libclang",
            "make[2]: *** [rust/Makefile:1: rust/bindings/bindings_generated.rs] Error 101",
        ]
    )
    assert (found.tool, found.code, found.message) == (
        "bindgen",
        "panic",
        "Unable to find libclang",
    )


def test_sparse_and_checksyscalls_and_kbuild() -> None:
    found = parse(
        [
            "drivers/a.c:5:9: sparse: warning: incorrect type in argument 1",
            "drivers/a.c:5:9: sparse:    expected void *",
            "<stdin>:1622:2: warning: #warning syscall clone3 not implemented [-Wcpp]",
            "warning: the compiler differs from the one used to build the kernel",
            "  The kernel was built by: gcc 14",
            "  You are using:           gcc 13",
        ]
    )
    assert [(d.tool, d.level.value) for d in found] == [
        ("sparse", "warning"),
        ("checksyscalls", "warning"),
        ("kbuild", "warning"),
    ]
    assert "expected void *" in found[0].detail
    assert "You are using" in found[2].detail


def test_make_speaks_when_nobody_else_did() -> None:
    (found,) = parse(
        [
            "  GEN     lib/thing.h",
            "awk: cannot open lib/thing.awk",
            "make[3]: *** [/run/kdrv/src/lib/Makefile:12: lib/thing.h] Error 2",
            "make[2]: *** [/run/kdrv/src/scripts/Makefile.build:556: lib] Error 2",
            "make: *** [Makefile:260: __sub-make] Error 2",
        ]
    )
    assert (found.tool, found.place, found.message) == (
        "make",
        "lib/Makefile:12",
        "lib/thing.h: Error 2",
    )
    assert found.detail == "awk: cannot open lib/thing.awk"


def test_make_is_silent_when_a_tool_gave_the_reason() -> None:
    assert {d.tool for d in recorded("gcc-errors")} == {"gcc"}


@pytest.mark.parametrize(
    ("line", "place", "message"),
    [
        (
            "make[1]: *** No rule to make target 'x.o', needed by 'y.o'.  Stop.",
            "",
            "No rule to make",
        ),
        ("/run/kdrv/src/Makefile:12: *** missing separator.  Stop.", "Makefile:12", "missing sep"),
        ("fixdep: error opening file: a.d: No such file or directory", "", "error opening file"),
        ("clang: error: unsupported option '-x'", "", "unsupported option '-x'"),
    ],
)
def test_errors_of_single_lines(line: str, place: str, message: str) -> None:
    (found,) = parse([line])
    assert found.level is Level.ERROR
    assert found.place == place
    assert found.message.startswith(message)


def test_what_says_nothing_makes_no_record() -> None:
    assert (
        parse(
            [
                "  CC      a.o",
                "make[2]: Nothing to be done for 'all'.",
                "make[2]: *** Deleting file 'a.o'",
                "warning: 4 warnings emitted",
                "error: aborting due to 2 previous errors",
                '{"$message_type":"diagnostic","message":"unused"}',
                "#",
                "# configuration written to .config",
                "",
            ]
        )
        == ()
    )


def test_a_header_warns_once() -> None:
    warning = "/run/kdrv/src/include/a.h:5:1: warning: odd [-Wodd]"
    assert len(parse(["  CC      a.o", warning, "  CC      b.o", warning])) == 1


@pytest.mark.parametrize(
    ("written", "file"),
    [
        ("/run/kdrv/src/drivers/a.c", "drivers/a.c"),
        ("/run/kdrv/mod/a.c", "a.c"),
        ("/run/kdrv/modout/a.c", "a.c"),
        ("./include/generated/a.h", "include/generated/a.h"),
        ("../drivers/a.c", "drivers/a.c"),
        ("drivers/../lib/a.c", "lib/a.c"),
        ("<stdin>", "<stdin>"),
        ("/usr/include/stdio.h", "/usr/include/stdio.h"),
    ],
)
def test_paths_are_relative_to_tree_or_module(written: str, file: str) -> None:
    (found,) = parse([f"{written}:1:2: warning: odd"])
    assert found.file == file


MOVED = """\
drivers/a.c:{line}:5: warning: unused variable 'x' [-Wunused-variable]
   {line} |         int {name};
      |             ^
"""


def warned(line: int, name: str = "x") -> tuple[Diagnostic, ...]:
    return parse(MOVED.format(line=line, name=name).splitlines())


def test_a_moved_message_is_not_fresh_and_a_replaced_one_is() -> None:
    assert fresh(warned(10), warned(200)) == ()
    assert len(fresh(warned(10), warned(10, "y"))) == 1


def test_a_second_message_of_the_same_kind_is_fresh() -> None:
    assert len(fresh(warned(10), (*warned(10), *warned(40)))) == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a.o: warning: objtool: f+0x5: odd", "a.o: warning: objtool: f+0x25: odd"),
        (
            "a.o: warning: objtool: _RNvCs68VwUXJ3L1S_1a1f() odd",
            "a.o: warning: objtool: _RNvCsb5MLIFMWygY_1a1f() odd",
        ),
        (
            "a.c:1:2: error: call to '__compiletime_assert_20'",
            "a.c:9:2: error: call to '__compiletime_assert_31'",
        ),
        ("a.c:1:2: warning: see a.h:5:2", "a.c:1:2: warning: see a.h:9:2"),
    ],
)
def test_addresses_and_counters_do_not_make_a_message_fresh(before: str, after: str) -> None:
    assert fresh(parse([before]), parse([after])) == ()


def test_grouped_by_file_and_tool_with_errors_first() -> None:
    found = parse(
        [
            "a.c:9:1: warning: late",
            "a.c:2:1: warning: early",
            "b.c:1:1: error: bad",
            "b.o: warning: objtool: odd",
        ]
    )
    grouped = by_file(found)
    assert list(grouped) == ["b.c", "a.c", "b.o"]
    assert [d.line for d in grouped["a.c"]["gcc"]] == [2, 9]
    assert ordered(found)[0].level is Level.ERROR


def test_the_lane_is_on_every_record() -> None:
    assert {d.lane for d in recorded("gcc-errors")} == {"rust"}


noise = st.lists(
    st.one_of(
        st.text(max_size=80),
        st.sampled_from(
            [
                line
                for log in sorted(RECORDINGS.glob("*.log"))
                for line in log.read_text().splitlines()
            ]
        ),
    )
)


@given(noise)
def test_no_output_breaks_the_parser(lines: list[str]) -> None:
    for found in parse(lines):
        assert found.tool and found.level in Level
        assert found.line >= 0 and found.column >= 0


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_the_key_does_not_know_the_line(one: int, other: int) -> None:
    assert [d.key for d in warned(one)] == [d.key for d in warned(other)]
