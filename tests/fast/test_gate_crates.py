from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from kdrv.build.diagnostics import Diagnostic, Level, fresh
from kdrv.build.lane import Language, make_lane
from kdrv.build.make import Make
from kdrv.core.context import Context
from kdrv.core.limits import LimitExceeded
from kdrv.core.process import Command
from kdrv.gate import crates
from kdrv.gate.crates import Lints, Tool, compiled, content, freeze, reading
from kdrv.gate.lints import MOST_COPIES, Lint, linting
from kdrv.gate.results import Results
from kdrv.gate.step import Place
from kdrv.gate.walk import LaneWalk
from kdrv.kernel.tree import open_tree
from kdrv.toolchain.debian import DebianToolchain
from tests.fast.conftest import FakeRunner

KERNEL = """\
savedcmd_rust/kernel.o :=  OBJTREE=/run/kdrv/out rustc --edition=2021 -Wclippy::all \
--target=./scripts/target.json @./include/generated/rustc_cfg --extern bindings \
--emit=dep-info=rust/.kernel.o.d --emit=obj=rust/kernel.o \
--emit=metadata=rust/libkernel.rmeta --crate-type rlib -L./rust \
--crate-name kernel /run/kdrv/src/rust/kernel/lib.rs --sysroot=/dev/null \
-Zunstable-options    ; ./tools/objtool/objtool rust/kernel.o

source_rust/kernel.o := /run/kdrv/src/rust/kernel/lib.rs

deps_rust/kernel.o := \\
    $(wildcard include/config/RUST) \\
  /run/kdrv/src/rust/kernel/mm/../virt.rs \\
  /run/kdrv/out/rust/libbindings.rmeta \\

rust/kernel.o: $(deps_rust/kernel.o)
"""
SAMPLE = """\
savedcmd_samples/rust/mini.o := OBJTREE=/run/kdrv/out RUST_MODFILE=samples/rust/mini rustc \
--edition=2021 --cfg MODULE @./include/generated/rustc_cfg \
-Zcrate-attr='feature(a,b)' --crate-type rlib -L ./rust/ --sysroot=/dev/null \
--out-dir samples/rust/ --emit=dep-info=samples/rust/.mini.o.d --emit=obj=samples/rust/mini.o \
/run/kdrv/src/samples/rust/mini.rs

source_samples/rust/mini.o := /run/kdrv/src/samples/rust/mini.rs

deps_samples/rust/mini.o := \\
  /run/kdrv/out/rust/libkernel.rmeta \\
"""
MACROS = """\
savedcmd_rust/libmacros.so :=  rustc --edition=2021 --extern syn -Clink-args=' ' \
--emit=dep-info=rust/.libmacros.so.d --emit=link=rust/libmacros.so --crate-type proc-macro \
-L./rust/host --crate-name macros @./include/generated/rustc_cfg /run/kdrv/src/rust/macros/lib.rs

source_rust/libmacros.so := /run/kdrv/src/rust/macros/lib.rs
"""
HOST_PROGRAM = """\
savedcmd_scripts/target := rustc --out-dir scripts/ --emit=link=scripts/target \
/run/kdrv/src/scripts/target.rs
"""
C = "savedcmd_lib/x.o := gcc -Wp,-MMD -c -o lib/x.o /run/kdrv/src/lib/rustc x.c\n"
BROKEN = "savedcmd_lib/y.o := rustc 'never ends --crate-type rlib /run/kdrv/src/lib/y.rs\n"
RECORDS = {
    "rust/.kernel.o.cmd": KERNEL,
    "samples/rust/.mini.o.cmd": SAMPLE,
    "rust/.libmacros.so.cmd": MACROS,
    "scripts/.target.cmd": HOST_PROGRAM,
    "lib/.x.o.cmd": C,
    "lib/.y.o.cmd": BROKEN,
}
MADE = ("rust/kernel.o", "rust/libbindings.rmeta", "rust/libkernel.rmeta", "samples/rust/mini.o")
MADE += ("rust/libmacros.so", "scripts/target", "lib/x.o", "lib/y.o")
MADE += ("include/generated/rustc_cfg", "scripts/target.json")
SOURCES = ("rust/kernel/lib.rs", "rust/kernel/virt.rs", "rust/kernel/other.rs")
SOURCES += ("rust/macros/lib.rs", "samples/rust/mini.rs")


@pytest.fixture
def build(tmp_path: Path) -> Path:
    folder = tmp_path / "build"
    for name in MADE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    for name, text in RECORDS.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def make(build: Path, fake_tree: Path) -> Make:
    for name in SOURCES:
        (fake_tree / name).parent.mkdir(parents=True, exist_ok=True)
        (fake_tree / name).touch()
    toolchain = DebianToolchain(Path("/root-of-debian"), "id", {"rustc": "1.85.1"})
    return Make(open_tree(fake_tree), make_lane(Language.RUST), toolchain, build)


def _message(code: str, text: str, line: int, level: str = "warning") -> str:
    file = "/run/kdrv/src/rust/kernel/virt.rs"
    span = {"is_primary": True, "file_name": file, "line_start": line, "column_start": 5}
    message = {
        "$message_type": "diagnostic",
        "level": level,
        "code": {"code": code} if code else None,
        "message": text,
        "spans": [{**span, "expansion": None}],
        "rendered": f"{level}: {text}\n --> {file}:{line}:5\n  |\n{line} |     the code\n",
    }
    return json.dumps(message) + "\n"


UNSAFE = "clippy::undocumented_unsafe_blocks"


def _lint(lints: Lints, make: Make, files: list[str]) -> dict[str, tuple[Diagnostic, ...]]:
    return {one.target: lints.look(one) for one in reading(make, files)}


def test_the_crates_of_a_build_are_what_rustc_compiled_for_the_kernel(build: Path) -> None:
    found = {one.target: one for one in compiled(build)}
    assert list(found) == ["rust/kernel.o", "rust/libmacros.so", "samples/rust/mini.o"]
    assert found["rust/kernel.o"].sources == {"rust/kernel/lib.rs", "rust/kernel/virt.rs"}
    assert found["samples/rust/mini.o"].crate.env["RUST_MODFILE"] == "samples/rust/mini"


@pytest.mark.parametrize(
    ("missing", "left"),
    [
        ("rust/kernel.o", ["rust/libmacros.so", "samples/rust/mini.o"]),
        ("rust/libkernel.rmeta", ["rust/kernel.o", "rust/libmacros.so"]),
    ],
)
def test_a_crate_that_does_not_compile_is_left_out(
    build: Path, missing: str, left: list[str]
) -> None:
    (build / missing).unlink()
    assert [one.target for one in compiled(build)] == left


def test_a_record_that_is_no_file_is_not_read(build: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(KERNEL)
    (build / "rust/.kernel.o.cmd").unlink()
    (build / "rust/.kernel.o.cmd").symlink_to(secret)
    (build / "rust/.libmacros.so.cmd").unlink()
    os.mkfifo(build / "rust/.libmacros.so.cmd")
    assert [one.target for one in compiled(build)] == ["samples/rust/mini.o"]


def test_clippy_takes_the_place_of_rustc(
    ctx: Context, make: Make, runner: FakeRunner, tmp_path: Path
) -> None:
    def look(command: Command) -> str:
        assert (tmp_path / "lint").is_dir()
        return _message(UNSAFE, "unsafe block missing a safety comment", 9)

    runner.answers = [("clippy-driver", look)]
    lints = Lints(ctx, make, tmp_path / "lint", Tool.CLIPPY)
    found = _lint(lints, make, ["rust/kernel/virt.rs", "x.c"])
    ((target, (lint,)),) = found.items()
    assert target == "rust/kernel.o"
    assert (lint.tool, lint.file, lint.line, lint.code) == (
        "clippy",
        "rust/kernel/virt.rs",
        9,
        UNSAFE,
    )
    assert (lint.lane, "/run/kdrv" in lint.detail) == ("rust", False)
    (command,) = runner.ran
    argv = command.argv
    words = argv[argv.index("--") + 1 :]
    assert words[:2] == ("clippy-driver", "--edition=2021")
    assert words[-5:] == (
        "--emit=metadata",
        "--out-dir",
        "/run/kdrv/modout",
        "--error-format=json",
        "/run/kdrv/src/rust/kernel/lib.rs",
    )
    assert not any(word.startswith(("--emit=obj", "--emit=dep-info")) for word in words)
    assert {"-Zunstable-options", "--sysroot=/dev/null"} < set(words)
    assert words.count("/run/kdrv/src/rust/kernel/lib.rs") == 1
    assert ("--setenv", "CLIPPY_CONF_DIR", "/run/kdrv/src") in zip(
        argv, argv[1:], argv[2:], strict=False
    )
    bound = [(word, argv[at + 2]) for at, word in enumerate(argv) if word.endswith("bind")]
    assert [(how, where) for how, where in bound if where.startswith("/run/kdrv")] == [
        ("--ro-bind", "/run/kdrv/src"),
        ("--ro-bind", "/run/kdrv/out"),
        ("--bind", "/run/kdrv/modout"),
    ]
    assert not (tmp_path / "lint").exists()


def test_rustdoc_looks_at_private_items_of_drivers_only(
    ctx: Context, make: Make, runner: FakeRunner, tmp_path: Path
) -> None:
    runner.answers = [("rustdoc", "")]
    lints = Lints(ctx, make, tmp_path / "lint", Tool.RUSTDOC)
    found = _lint(lints, make, ["samples/rust/mini.rs", "rust/macros/lib.rs", "scripts/target.rs"])
    assert found == {"rust/libmacros.so": (), "samples/rust/mini.o": ()}
    macros, mini = runner.ran
    assert "--document-private-items" not in macros.argv
    assert "--document-private-items" in mini.argv
    assert "--check" in macros.argv
    assert not any(word.startswith(("--emit", "--out-dir")) for word in mini.argv)


def test_what_the_build_has_said_is_not_repeated_but_errors_are(
    ctx: Context, make: Make, runner: FakeRunner, tmp_path: Path
) -> None:
    said = _message("unused_variables", "unused", 3) + _message(UNSAFE, "unsafe", 4)
    said += _message("", "odd", 5) + _message("E0308", "mismatched types", 6, "error")
    runner.answers = [("clippy-driver", (1, said))]
    lints = Lints(ctx, make, tmp_path / "lint", Tool.CLIPPY)
    found = _lint(lints, make, ["rust/kernel/lib.rs"])
    assert [one.line for one in found["rust/kernel.o"]] == [4, 5, 6]


def test_a_tool_that_dies_without_a_word_is_no_pass(
    ctx: Context, make: Make, runner: FakeRunner, tmp_path: Path
) -> None:
    runner.answers = [("rustdoc", (101, "thread 'main' panicked\n"))]
    lints = Lints(ctx, make, tmp_path / "lint", Tool.RUSTDOC)
    found = _lint(lints, make, ["rust/kernel/lib.rs"])
    (record,) = found["rust/kernel.o"]
    assert record.level is Level.ERROR
    assert "status 101" in record.message
    assert "panicked" in record.detail


def test_a_crate_that_asks_too_much_of_a_tool_is_told_so(
    ctx: Context, make: Make, runner: FakeRunner, tmp_path: Path
) -> None:
    def stop(what: str) -> Callable[[Command], str]:
        def run(command: Command) -> str:
            raise LimitExceeded("clippy-driver used more than 1 GB", what=what)

        return run

    lints = Lints(ctx, make, tmp_path / "lint", Tool.CLIPPY)
    (kernel,) = reading(make, ["rust/kernel/lib.rs"])
    runner.answers = [("clippy-driver", stop("memory"))]
    (told,) = lints.look(kernel)
    assert told.level is Level.ERROR
    assert "used more than 1 GB" in told.message
    runner.answers = [("clippy-driver", stop("spare_memory"))]
    with pytest.raises(LimitExceeded):
        lints.look(kernel)
    assert not (tmp_path / "lint").exists()


def test_a_lint_that_moved_is_not_new(
    ctx: Context, make: Make, runner: FakeRunner, tmp_path: Path
) -> None:
    lints = Lints(ctx, make, tmp_path / "lint", Tool.CLIPPY)
    (kernel,) = reading(make, ["rust/kernel/lib.rs"])
    runner.answers = [("clippy-driver", _message(UNSAFE, "unsafe", 4))]
    before = lints.look(kernel)
    runner.answers = [("clippy-driver", _message(UNSAFE, "unsafe", 8) * 2)]
    after = lints.look(kernel)
    assert fresh(before, after) == ()
    runner.answers = [("clippy-driver", _message("clippy::len_zero", "unsafe?", 8))]
    assert len(fresh(before, lints.look(kernel))) == 1


@pytest.mark.parametrize("status", [0, 127])
def test_a_toolchain_may_lack_the_program(
    ctx: Context, make: Make, runner: FakeRunner, tmp_path: Path, status: int
) -> None:
    runner.answers = [("command -v", (status, ""))]
    assert Lints(ctx, make, tmp_path, Tool.CLIPPY).available is (status == 0)


@pytest.mark.parametrize(
    ("where", "changed", "differs"),
    [
        ("tree", "rust/kernel/virt.rs", True),
        ("tree", ".clippy.toml", True),
        ("tree", "rust/kernel/other.rs", True),  # rustdoc may read what rustc does not
        ("tree", "samples/rust/mini.rs", False),
        ("build", "rust/libbindings.rmeta", True),
        ("build", "include/generated/rustc_cfg", True),
        ("build", "scripts/target.json", True),
        ("build", "rust/kernel.o", False),
    ],
)
def test_what_is_said_of_a_crate_depends_on_all_that_it_reads(
    make: Make, where: str, changed: str, differs: bool
) -> None:
    (kernel,) = reading(make, ["rust/kernel/lib.rs"])
    before = content(make, kernel)
    assert before == content(make, kernel) != ""
    ({"tree": make.tree.path, "build": make.output}[where] / changed).write_text("otherwise")
    assert (content(make, kernel) != before) is differs


def test_a_copy_of_a_crate_says_the_same_and_stays_as_it_is(make: Make, tmp_path: Path) -> None:
    (kernel,) = reading(make, ["rust/kernel/lib.rs"])
    source = make.tree.path / "rust/kernel/virt.rs"
    source.write_text("before")
    frozen = freeze(make, [kernel], tmp_path / "copy")
    said = content(make, kernel)
    source.write_text("after")
    assert content(frozen, kernel) == said != content(make, kernel)
    through = frozen.tree.path / "rust/kernel/mm/../virt.rs"
    assert through.read_text() == "before"
    assert not (frozen.tree.path / "samples").exists()
    assert not (frozen.output / "rust/kernel.o").exists()


def test_nothing_is_copied_from_or_to_outside(make: Make, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a key")
    source = make.tree.path / "rust/kernel/virt.rs"
    source.unlink()
    source.symlink_to(tmp_path / "secret")
    (make.output / "a").mkdir()
    (make.output / "link").symlink_to("a")
    (make.output / "out").write_text("")
    (kernel,) = reading(make, ["rust/kernel/lib.rs"])
    arguments = (*kernel.crate.arguments, "@./link/../../out", "@./link/../out")
    outward = replace(kernel, crate=replace(kernel.crate, arguments=arguments))
    freeze(make, [outward], tmp_path / "copy")
    copied = {str(p.relative_to(tmp_path / "copy")) for p in (tmp_path / "copy").rglob("*")}
    assert "tree/rust/kernel/lib.rs" in copied
    assert "tree/rust/kernel/virt.rs" not in copied
    assert {path for path in copied if path.endswith("out")} == {"out", "out/out"}


def test_no_more_is_copied_than_there_is_room_for(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crates, "COPY_LIMIT", 10 << 20)
    for name in SOURCES[:3]:
        with (make.tree.path / name).open("wb") as file:
            file.truncate(6 << 20)  # takes no room
    frozen = freeze(make, reading(make, ["rust/kernel/lib.rs"]), tmp_path / "copy")
    copied = [name for name in SOURCES[:3] if (frozen.tree.path / name).exists()]
    assert len(copied) == 1


def test_a_crate_s_folder_that_leads_elsewhere_is_not_looked_into(
    make: Make, tmp_path: Path
) -> None:
    (make.tree.path / "rust/kernel").rename(make.tree.path / "rust/elsewhere")
    (make.tree.path / "rust/kernel").symlink_to("elsewhere")
    (kernel,) = reading(make, ["rust/kernel/lib.rs"])
    frozen = freeze(make, [kernel], tmp_path / "copy")
    assert (frozen.tree.path / "rust/kernel/virt.rs").exists()
    assert not (frozen.tree.path / "rust/kernel/other.rs").exists()


def test_crates_are_looked_at_as_they_were_while_the_lane_goes_on(
    ctx: Context, make: Make, runner: FakeRunner, tmp_path: Path
) -> None:
    source = make.tree.path / "rust/kernel/virt.rs"
    source.write_text("before")
    gone_on = threading.Event()
    looked = []

    def look(command: Command) -> str:
        assert gone_on.wait(60)
        where = command.argv[command.argv.index("/run/kdrv/src") - 1]
        looked.append(Path(where, "rust/kernel/virt.rs").read_text())
        return ""

    runner.answers = [("command -v", ""), ("clippy-driver", look), ("rustdoc", look)]
    with linting(ctx, _walk(make, tmp_path), make.toolchain) as linter:
        found = linter.lint(Place("1", "1", "patch 1"), ["rust/kernel/virt.rs"])
        source.write_text("after")
        gone_on.set()
        assert found.result(60) == Lint()
        assert linter.lint(Place("1", "1", "again"), ["rust/kernel/virt.rs"]).done()
        assert list((tmp_path / "lint").iterdir()) == []
    assert looked == ["before", "before"]


def test_what_nobody_waits_for_leaves_no_copies(
    ctx: Context, make: Make, runner: FakeRunner, tmp_path: Path
) -> None:
    begun, over = threading.Event(), threading.Event()

    def look(command: Command) -> str:
        begun.set()
        assert over.wait(60)
        return ""

    runner.answers = [("command -v", ""), ("clippy-driver", look), ("rustdoc", look)]
    with linting(ctx, _walk(make, tmp_path), make.toolchain) as linter:
        for number in "12":
            linter.lint(Place(number, number, "patch"), ["rust/kernel/virt.rs"])
        assert begun.wait(60)
        over.set()
    assert not (tmp_path / "lint").exists()


def test_records_that_make_no_sense_are_a_verdict(
    ctx: Context, make: Make, runner: FakeRunner, tmp_path: Path
) -> None:
    record = make.output / "rust/.kernel.o.cmd"
    through = f"/run/kdrv/src/rust/{'n' * 300}/../kernel/virt.rs"
    record.write_text(f"{record.read_text()}  {through} \\\n")
    with linting(ctx, _walk(make, tmp_path), make.toolchain) as linter:
        for number in range(MOST_COPIES + 1):
            place = Place(str(number), str(number), "patch")
            (told,) = linter.lint(place, ["rust/kernel/virt.rs"]).result(60).clippy
            assert told.level is Level.ERROR
            assert "cannot be made sense of" in told.message
    assert runner.ran == []


def _walk(make: Make, folder: Path) -> LaneWalk:
    made = SimpleNamespace(
        folder=folder,
        build=make.output,
        lane=make.lane,
        results=Results(folder / "results"),
        have=lambda place: None,
        tree=lambda commit: make.tree,
    )
    return cast(LaneWalk, made)


def test_what_reads_no_plain_file_is_not_known_again(make: Make) -> None:
    (kernel,) = reading(make, ["rust/kernel/lib.rs"])
    source = make.tree.path / "rust/kernel/virt.rs"
    source.unlink()
    source.symlink_to("/dev/zero")
    assert content(make, kernel) == ""


def test_what_is_left_of_a_removed_driver_is_not_looked_at(make: Make) -> None:
    assert len(reading(make, ["samples/rust/mini.rs"])) == 1
    (make.tree.path / "samples/rust/mini.rs").unlink()
    assert reading(make, ["samples/rust/mini.rs"]) == ()
