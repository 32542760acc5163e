"""rustc is asked once for each content, as a program in front of a compiler that counts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kdrv.build.make import install
from kdrv.gate import rustc_memo

COMPILER = """\
#!/bin/sh
# Makes an object of lib.rs, util.rs and the metadata that it uses; util.rs has the warnings.
echo asked >> asked
case "$*" in
*-Zbinary*--crate-type*--emit=dep-info=.x.o.d*) ;;
*) echo "as it is: $*"; exit 0 ;;
esac
grep -q killed src/lib.rs && kill -9 $$
grep -q broken src/lib.rs && { echo "error: broken" >&2; exit 1; }
grep warning src/util.rs >&2
cat src/lib.rs src/util.rs lib.rmeta cfg > x.o
chmod 755 x.o
printf 'x.o: src/lib.rs src/util.rs lib.rmeta\\n\\nsrc/lib.rs:\\n\\n# env-dep:A=%s\\n' "$A" > .x.o.d
"""
ASK = (
    "-Zbinary_dep_depinfo=y",
    "--crate-type",
    "rlib",
    "@./cfg",
    "--emit=dep-info=.x.o.d",
    "--emit=obj=x.o",
    "src/lib.rs",
)
Ask = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def build(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    (folder / "src").mkdir(parents=True)
    for name in ("src/lib.rs", "src/util.rs", "lib.rmeta", "cfg"):
        (folder / name).write_text(f"{name}\n")
    return folder


@pytest.fixture
def ask(tmp_path: Path, build: Path) -> Ask:
    """Runs what the lane puts before rustc as make would."""
    install(tmp_path / "first", "rustc", rustc_memo)
    compiler = tmp_path / "second/rustc"
    compiler.parent.mkdir()
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    python = Path(sys.executable).parent

    def run(*argv: str, **env: str) -> subprocess.CompletedProcess[str]:
        places = (tmp_path / "first", tmp_path / "second", python, *os.defpath.split(":"))
        env = {"PATH": ":".join(map(str, places)), "A": "1", **env}
        words = ("rustc", *(argv or ASK))
        found = shutil.which("rustc", path=env["PATH"])
        return subprocess.run(
            words, executable=found, cwd=build, env=env, capture_output=True, text=True
        )

    return run


def _asked(build: Path) -> int:
    file = build / "asked"
    return file.read_text().count("asked") if file.exists() else 0


def _is_whole(build: Path) -> bool:
    parts = ("src/lib.rs", "src/util.rs", "lib.rmeta", "cfg")
    made = "".join((build / name).read_text() for name in parts)
    return (build / "x.o").read_text() == made and (build / ".x.o.d").exists()


def test_what_is_newer_but_the_same_is_not_compiled_again(ask: Ask, build: Path) -> None:
    (build / "src/util.rs").write_text("warning: unused\n")
    first = ask()
    (build / "x.o").write_text("changed by objtool")
    (build / ".x.o.d").unlink()  # by fixdep
    again = ask(MAKEFLAGS="-j7", MAKELEVEL="3")
    assert _asked(build) == 1
    assert _is_whole(build)
    assert (build / "x.o").stat().st_mode & 0o111
    assert (first.returncode, first.stderr) == (again.returncode, again.stderr)
    assert first.stderr == "warning: unused\n"


@pytest.mark.parametrize("name", ["src/lib.rs", "src/util.rs", "lib.rmeta", "cfg"])
def test_what_differs_is_compiled(ask: Ask, build: Path, name: str) -> None:
    ask()
    (build / name).write_text("otherwise\n")
    assert ask().returncode == 0
    assert _asked(build) == 2
    assert _is_whole(build)
    (build / name).write_text(f"{name}\n")
    ask()
    assert _asked(build) == 2  # both are known now
    assert _is_whole(build)


def test_macros_may_read_the_environment(ask: Ask, build: Path) -> None:
    ask(RUST_MODFILE="drivers/one")
    ask(RUST_MODFILE="drivers/two")
    assert _asked(build) == 2


def test_another_compiler_is_asked(ask: Ask, build: Path, tmp_path: Path) -> None:
    ask()
    (tmp_path / "second/rustc").write_text(f"{COMPILER}# a newer one\n")
    ask()
    assert _asked(build) == 2


def test_a_compiler_that_was_killed_is_told_as_a_shell_does(ask: Ask, build: Path) -> None:
    (build / "src/lib.rs").write_text("killed\n")
    assert ask().returncode == 128 + signal.SIGKILL


def test_a_module_that_could_lie_in_two_files_is_left_to_rustc(ask: Ask, build: Path) -> None:
    ask()
    (build / "src/util").mkdir()
    (build / "src/util/mod.rs").write_text("")
    ask()
    assert _asked(build) == 2


def test_errors_are_not_kept(ask: Ask, build: Path) -> None:
    (build / "src/lib.rs").write_text("broken\n")
    for _ in range(2):
        done = ask()
        assert (done.returncode, done.stderr) == (1, "error: broken\n")
    assert _asked(build) == 2


@pytest.mark.parametrize(
    "argv",
    [
        ("--version",),
        ("--print", "sysroot"),
        ("--emit=metadata", "--emit=dep-info=x.d", "src/lib.rs"),
        ("--emit=obj=x.o", "src/lib.rs"),
        ("--emit=dep-info=.x.o.d", "--emit=obj=x.o", "src/lib.rs"),
        ("-Zbinary_dep_depinfo=y", "-Zunpretty=expanded", "--emit=dep-info=.x.o.d", "src/lib.rs"),
        ("-Zbinary_dep_depinfo=y", "--emit=dep-info=.x.o.d", "--emit=obj=x.o", "-"),
    ],
)
def test_anything_else_is_handed_on(ask: Ask, build: Path, argv: tuple[str, ...]) -> None:
    for _ in range(2):
        assert ask(*argv).stdout == f"as it is: {' '.join(argv)}\n"
    assert _asked(build) == 2
    assert not (build / rustc_memo.MEMO).exists()


HARMS = ("no json", "other json", "a list", "made from nothing", "no end", "leads to nowhere")
HARMS += ("a copy gone", "a copy leads to nowhere", "another copy")


@pytest.mark.parametrize("harm", HARMS)
def test_an_entry_that_was_tampered_with_is_none(ask: Ask, build: Path, harm: str) -> None:
    ask()
    (entry,) = build.glob(f"{rustc_memo.MEMO}/*/*")
    match harm:
        case "no json":
            (entry / rustc_memo.ENTRY).write_text("{")
        case "other json":
            (entry / rustc_memo.ENTRY).write_text(json.dumps({"inputs": 7}))
        case "a list":
            (entry / rustc_memo.ENTRY).write_text("[]")
        case "made from nothing":
            known = json.loads((entry / rustc_memo.ENTRY).read_text())
            (entry / rustc_memo.ENTRY).write_text(json.dumps(known | {"inputs": {}}))
        case "no end":
            (entry / rustc_memo.ENTRY).unlink()
            os.mkfifo(entry / rustc_memo.ENTRY)
        case "leads to nowhere":
            (entry / rustc_memo.ENTRY).unlink()
            (entry / rustc_memo.ENTRY).symlink_to("nowhere")
        case "a copy gone":
            (entry / "1").unlink()
        case "a copy leads to nowhere":
            (entry / "1").unlink()
            (entry / "1").symlink_to("nowhere")
        case "another copy":
            (entry / "1").write_text("")
    assert ask().returncode == 0
    assert _asked(build) == 2
    assert _is_whole(build)


def test_a_source_that_is_gone_is_no_match(ask: Ask, build: Path) -> None:
    ask()
    (build / "lib.rmeta").unlink()
    ask()
    assert _asked(build) == 2


def test_the_last_answers_are_kept(ask: Ask, build: Path) -> None:
    for number in range(rustc_memo.ENTRIES + 2):
        (build / "src/util.rs").write_text(f"{number}\n")
        ask()
    (folder,) = build.glob(f"{rustc_memo.MEMO}/*")
    (folder / ".new-killed").mkdir()
    (build / "src/util.rs").write_text("the last\n")
    ask()
    assert len(list(folder.iterdir())) == rustc_memo.ENTRIES
    asked = _asked(build)
    ask()
    assert _asked(build) == asked


def test_old_command_lines_are_forgotten(ask: Ask, build: Path) -> None:
    ask()
    (old,) = build.glob(f"{rustc_memo.MEMO}/*")
    past = time.time() - (rustc_memo.DAYS + 1) * 86400
    for path in (*old.glob("*/*"), old):
        os.utime(path, (past, past))
    ask(RUST_MODFILE="other")
    (new,) = build.glob(f"{rustc_memo.MEMO}/*")
    assert new != old
