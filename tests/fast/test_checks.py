from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from kdrv.build.check_bench import Crate, Driver
from kdrv.build.checks import CHECKS, CheckResult, Outcome, run_checks
from kdrv.build.diagnostics import Level
from kdrv.build.lane import Language, make_lane
from kdrv.build.make import Make
from kdrv.core.context import Context
from kdrv.core.errors import UsageError
from kdrv.core.process import Command
from kdrv.kernel.arch import Arch
from kdrv.kernel.tree import open_tree
from kdrv.toolchain.debian import DebianToolchain
from tests.fast.conftest import FakeRunner

RECORDINGS = Path(__file__).parent / "recordings/checks"
PROBE = "command -v"
MODPOST = "  MODPOST Module.symvers\n"


def _said(name: str) -> str:
    return (RECORDINGS / name).read_text()


@dataclass
class Desk:
    """A driver and a kernel to check it against."""

    ctx: Context
    make: Make
    driver: Path
    scratch: Path

    def check(self, *names: str, objects: tuple[str, ...] = ()) -> dict[str, CheckResult]:
        driver = Driver(self.driver, objects)
        results = run_checks(self.ctx, driver, self.make, self.scratch, names or None)
        return {result.name: result for result in results}


def _make(tree: Path, language: Language = Language.RUST, arch: Arch = Arch.X86_64) -> Make:
    toolchain = DebianToolchain(Path("/root-of-debian"), "id", {"rustc": "1.85.1"})
    return Make(open_tree(tree), make_lane(language, arch), toolchain, tree.parent / "build")


@pytest.fixture
def desk(ctx: Context, fake_tree: Path, tmp_path: Path) -> Desk:
    driver = tmp_path / "driver"
    (driver / "tests").mkdir(parents=True)
    (driver / "tests/helper.c").touch()
    (driver / "kbad.rs").touch()
    (driver / "kbad.mod.c").touch()
    (driver / "Makefile").touch()
    return Desk(ctx, _make(fake_tree), driver, tmp_path / "scratch")


def _ran(runner: FakeRunner, word: str) -> Command:
    return next(command for command in runner.ran if word in command.argv)


def test_sources_are_the_driver_not_its_tests_nor_what_a_build_left(desk: Desk) -> None:
    assert Driver(desk.driver).sources == (Path("Makefile"), Path("kbad.rs"))


def test_the_clippy_of_a_rust_driver(desk: Desk, runner: FakeRunner) -> None:
    runner.answers = [(PROBE, ""), ("modules", (2, _said("build-rust.txt")))]
    results = desk.check("clippy", "build", "modpost", "sparse")
    clippy = results["clippy"]
    assert clippy.outcome is Outcome.FAIL
    assert {d.code for d in clippy.diagnostics} >= {
        "clippy::undocumented_unsafe_blocks",
        "clippy::unwrap_used",
    }
    assert "missing_docs" not in {d.code for d in clippy.diagnostics}
    assert {d.file for d in clippy.diagnostics} == {"kbad.rs"}
    assert all("/run/kdrv/mod/" not in d.detail for d in clippy.diagnostics)
    assert {d.lane for d in clippy.diagnostics} == {"rust"}
    assert results["build"].outcome is Outcome.PASS
    assert results["modpost"].outcome is Outcome.FAIL
    assert any("kdrv_no_such_symbol" in d.message for d in results["modpost"].diagnostics)
    assert (results["sparse"].outcome, results["sparse"].reason) == (Outcome.SKIP, "no C sources")
    assert sum("make" in command.argv for command in runner.ran) == 1


def test_no_check_can_touch_the_kernel_or_the_sources(desk: Desk, runner: FakeRunner) -> None:
    runner.answers = [("", MODPOST)]
    desk.check()
    for command in runner.ran:
        words = list(command.argv)
        writable = [words[i + 1] for i, word in enumerate(words) if word == "--bind"]
        assert writable == [str(desk.scratch / "out")]


def test_the_command_to_repeat_prints_for_people(desk: Desk, runner: FakeRunner) -> None:
    runner.answers = [(PROBE, ""), ("modules", MODPOST)]
    result = desk.check("clippy")["clippy"]
    assert result.outcome is Outcome.PASS
    assert "CLIPPY=1" in result.reproducer
    assert "error-format" not in result.reproducer
    assert any("--error-format=json" in word for word in _ran(runner, "make").argv)


def test_the_flags_of_the_lane_stay(desk: Desk, runner: FakeRunner, fake_tree: Path) -> None:
    desk.make = _make(fake_tree, arch=Arch.UM)
    runner.answers = [(PROBE, ""), ("modules", MODPOST)]
    desk.check("clippy")
    last = [w for w in _ran(runner, "make").argv if w.startswith("KRUSTFLAGS=")][-1]
    assert "-Crelocation-model=static" in last
    assert "-Wclippy::unwrap_used" in last


def test_what_the_toolchain_lacks_is_skipped(desk: Desk, runner: FakeRunner) -> None:
    runner.answers = [(PROBE, "clippy-driver\nsparse\nrustfmt\n"), ("modules", MODPOST)]
    results = desk.check("clippy", "rustfmt", "build")
    assert results["clippy"].reason == "the toolchain has no clippy-driver"
    assert results["rustfmt"].reason == "the toolchain has no rustfmt"
    assert results["build"].outcome is Outcome.PASS
    argv = _ran(runner, "make").argv
    assert not any(word.startswith(("CLIPPY=", "C=")) for word in argv)


def test_without_clippy_rustc_is_heard_by_the_build(desk: Desk, runner: FakeRunner) -> None:
    runner.answers = [(PROBE, "clippy-driver\n"), ("modules", (2, _said("build-macro.txt")))]
    build = desk.check("build")["build"]
    assert [d.code for d in build.diagnostics] == ["E0308"]


def test_a_driver_that_does_not_compile(desk: Desk, runner: FakeRunner) -> None:
    runner.answers = [(PROBE, ""), ("modules", (2, _said("build-macro.txt")))]
    results = desk.check("clippy", "modpost", "rustdoc", "build")
    assert results["clippy"].outcome is Outcome.FAIL
    assert results["build"].outcome is Outcome.PASS
    for name in ("modpost", "rustdoc"):
        assert results[name].reason == "the driver does not compile"


def test_a_build_that_fails_without_a_diagnostic_is_not_passed(
    desk: Desk, runner: FakeRunner
) -> None:
    runner.answers = [(PROBE, ""), ("modules", (2, "something odd\nmake: nothing works\n"))]
    results = desk.check("clippy", "build")
    assert results["clippy"].outcome is Outcome.SKIP
    (only,) = results["build"].diagnostics
    assert only.level is Level.ERROR
    assert "status 2" in only.message
    assert "nothing works" in only.detail


def test_a_c_driver(desk: Desk, runner: FakeRunner) -> None:
    (desk.driver / "kbad.rs").rename(desk.driver / "cbad.c")
    old = "Makefile:1311: C=2 specified, but sparse is not available or not up to date\n"
    runner.answers = [
        (PROBE, ""),
        ("kernel-doc", (0, _said("kernel-doc.txt"))),
        ("checkpatch.pl", (1, _said("checkpatch.txt"))),
        ("modules", (2, old + _said("build-c.txt"))),
    ]
    results = desk.check()
    outcomes = {name: result.outcome.value for name, result in results.items()}
    assert outcomes == {
        "rustfmt": "skip",
        "checkpatch": "fail",
        "clippy": "skip",
        "build": "fail",
        "sparse": "skip",
        "kernel-doc": "fail",
        "modpost": "fail",
        "rustdoc": "skip",
    }
    assert {d.line for d in results["build"].diagnostics} >= {14, 16}
    assert "sparse" in results["sparse"].reason


def test_sparse_and_the_compiler_share_a_build(desk: Desk, runner: FakeRunner) -> None:
    (desk.driver / "kbad.rs").rename(desk.driver / "cbad.c")
    compiler = _said("build-c.txt").replace("sparse is not available", "")
    runner.answers = [(PROBE, ""), ("modules", _said("sparse.txt") + compiler)]
    results = desk.check("sparse", "build")
    assert [d.line for d in results["sparse"].diagnostics] == [1174, 1371, 1373, 1373, 1435]
    assert not {1174, 1371} & {d.line for d in results["build"].diagnostics}


def test_an_undefined_symbol_is_placed(desk: Desk, runner: FakeRunner) -> None:
    def build(_: Command) -> tuple[int, str]:
        (desk.scratch / "out/cbad.o").write_bytes((RECORDINGS / "undefined.o").read_bytes())
        return 2, MODPOST + "ERROR: modpost: cbad.ko: symbol 'kdrv_no_such_symbol' undefined!\n"

    demangled = "<kbad[36a5c3af2d4ce1f9]::Bad as kernel::Module>::init\n"
    runner.answers = [(PROBE, ""), ("modules", build), ("c++filt cbad_read", demangled)]
    (undefined,) = desk.check("modpost")["modpost"].diagnostics
    assert undefined.detail == "used by <kbad::Bad as kernel::Module>::init"


def test_checkpatch_wants_no_binding_of_a_driver_outside(
    desk: Desk, runner: FakeRunner, fake_tree: Path
) -> None:
    runner.answers = [("", "")]
    desk.check("checkpatch")
    assert "--ignore=UNDOCUMENTED_DT_STRING" in runner.ran[-1].argv
    desk.driver = fake_tree / "drivers/foo"
    desk.driver.mkdir(parents=True)
    (desk.driver / "foo.c").touch()
    desk.check("checkpatch")
    assert "--ignore=UNDOCUMENTED_DT_STRING" not in runner.ran[-1].argv
    assert runner.ran[-1].argv[-1] == "/run/kdrv/src/drivers/foo/foo.c"


def test_a_driver_of_the_tree(desk: Desk, runner: FakeRunner, fake_tree: Path) -> None:
    build = fake_tree.parent / "build"
    (build / "drivers/foo").mkdir(parents=True)
    (build / "drivers/foo/foo.mod").write_text("drivers/foo/core.o\ndrivers/foo/io.o\nlib/x.o\n")
    (fake_tree / "drivers/foo").mkdir(parents=True)
    for name in ("core.rs", "io.c", "unrelated.c"):
        (fake_tree / "drivers/foo" / name).touch()
    driver = Driver.of_module(fake_tree, build, build / "drivers/foo/foo.ko")
    assert driver.sources == (Path("core.rs"), Path("io.c"))
    runner.answers = [(PROBE, ""), ("core.o", "")]
    results = run_checks(desk.ctx, driver, desk.make, desk.scratch, {"clippy", "modpost"})
    assert [result.outcome for result in results] == [Outcome.PASS, Outcome.SKIP]
    argv = _ran(runner, "make").argv
    assert "M=/run/kdrv/src/drivers/foo" in argv
    assert argv[-2:] == ("core.o", "io.o")


def test_a_c_lane_has_no_rust_checks(desk: Desk, runner: FakeRunner, fake_tree: Path) -> None:
    desk.make = _make(fake_tree, Language.C)
    runner.answers = [(PROBE, "")]
    results = desk.check("clippy", "rustdoc")
    assert {result.reason for result in results.values()} == {"the lane has no Rust"}


def test_rustdoc_gets_the_flags_of_the_compile(desk: Desk, runner: FakeRunner) -> None:
    def build(_: Command) -> str:
        (desk.scratch / "out/.kbad.o.cmd").write_text(_said("kbad.o.cmd"))
        return MODPOST

    runner.answers = [(PROBE, ""), ("modules", build), ("rustdoc", _said("rustdoc.txt"))]
    result = desk.check("rustdoc")["rustdoc"]
    assert result.outcome is Outcome.FAIL
    assert len(result.diagnostics) == 4
    argv = _ran(runner, "--check").argv
    assert "--cfg" in argv
    assert "-Zcrate-attr=no_std" in argv
    assert argv[-1] == "/run/kdrv/mod/kbad.rs"
    assert not any(word.startswith(("--emit", "--out-dir")) for word in argv)
    assert ("--setenv", "OBJTREE", "/run/kdrv/out") in zip(argv, argv[1:], argv[2:], strict=False)


def test_a_command_of_c_is_no_crate() -> None:
    assert Crate.saved("savedcmd_x.o := gcc -DX=1 -c -o x.o x.c\n") is None


def test_an_unknown_check(desk: Desk) -> None:
    with pytest.raises(UsageError, match="no check named lint") as error:
        desk.check("lint")
    assert "rustfmt" in error.value.expected


def test_a_kernel_before_mo_builds_a_copy(desk: Desk, runner: FakeRunner, fake_tree: Path) -> None:
    (fake_tree / "Makefile").write_text("VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 1\n")
    desk.make = _make(fake_tree)
    runner.answers = [(PROBE, ""), ("modules", MODPOST)]
    desk.check("build")
    assert (desk.scratch / "out/kbad.rs").exists()
    assert not any(word.startswith("MO=") for word in _ran(runner, "make").argv)
    desk.driver = fake_tree / "scripts"
    with pytest.raises(UsageError, match="no MO="):
        desk.check("build")


def test_the_checks_run_in_their_order(desk: Desk, runner: FakeRunner) -> None:
    runner.answers = [("", MODPOST)]
    assert list(desk.check()) == list(CHECKS)
