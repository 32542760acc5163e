"""Messages, links and the tools that read a patch's files."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kdrv.build.diagnostics import Level
from kdrv.core.context import Context
from kdrv.core.errors import DeadlineExceeded
from kdrv.core.process import Command, Completed, LocalRunner
from kdrv.gate.files import judge_files
from kdrv.gate.message import judge_message, trailers
from kdrv.gate.policy import load_policy
from kdrv.gate.result import Check, Outcome
from kdrv.gate.series import Patch
from kdrv.toolchain.base import MODULE, SOURCE, Bind

from .gate_repo import AUTHOR, SIGNED, History

OTHER = "Other One <other@example.com>"


@pytest.fixture
def history(tmp_path: Path) -> History:
    history = History(tmp_path / "linux")
    history.commit({"drivers/a.c": "int a;\n"}, f"driver: begin\n\nWhy not.\n\n{SIGNED}\n")
    return history


def _checks(history: History) -> dict[str, Check]:
    return {one.name: one for one in judge_message(history.repo, history.last)}


def _said(history: History, message: str, **env: str) -> dict[str, Check]:
    history.commit({"drivers/a.c": f"int a{len(history.commits)};\n"}, message, **env)
    return _checks(history)


def test_a_good_patch(history: History) -> None:
    checks = _said(history, f"driver: go on\n\nBecause.\n\nReviewed-by: {OTHER}\n{SIGNED}\n")
    assert {name: one.outcome for name, one in checks.items()} == {
        "signed-off-by": Outcome.PASS,
        "trailers": Outcome.PASS,
        "fixes": Outcome.SKIP,
        "links": Outcome.PASS,
    }


@pytest.mark.parametrize(
    ("tags", "env", "outcome", "says"),
    [
        ("", {}, Outcome.FAIL, "no Signed-off-by"),
        (f"Signed-off-by: {OTHER}", {}, Outcome.FAIL, "has not signed it off"),
        (f"Signed-off-by: {AUTHOR[0]} <dev@home.org>", {}, Outcome.WARN, "another address"),
        (f"Signed-off-by: A. D. <{AUTHOR[1]}>", {}, Outcome.PASS, ""),
        ("Signed-off-by: A Developer <Dev+kernel@Example.org>", {}, Outcome.PASS, ""),
        (f"{SIGNED}\nSigned-off-by: {OTHER}", {}, Outcome.WARN, "last sign-off is another's"),
        (
            SIGNED,
            {"GIT_COMMITTER_NAME": "M", "GIT_COMMITTER_EMAIL": "m@tree.org"},
            Outcome.WARN,
            "M <m@tree.org> committed it and has not",
        ),
        (
            f"{SIGNED}\nSigned-off-by: M <m@tree.org>",
            {"GIT_COMMITTER_NAME": "M", "GIT_COMMITTER_EMAIL": "m@tree.org"},
            Outcome.PASS,
            "",
        ),
    ],
)
def test_sign_offs(
    history: History, tags: str, env: dict[str, str], outcome: Outcome, says: str
) -> None:
    check = _said(history, f"driver: go on\n\nBecause.\n\n{tags}\n", **env)["signed-off-by"]
    assert (check.outcome, says in check.summary) == (outcome, True)
    assert bool(check.reproducer) == (outcome is not Outcome.PASS)


@pytest.mark.parametrize(
    ("tags", "outcome", "says"),
    [
        ("Cc: stable@vger.kernel.org # 6.1+", Outcome.PASS, ""),
        ("Cc: <stable@vger.kernel.org> # 3.3.x", Outcome.PASS, ""),
        ("Cc: <stable@vger.kernel.org> and thanks", Outcome.WARN, "after the address"),
        ("Reported-by: syzbot+0123456789abcdef@syzkaller.appspotmail.com", Outcome.PASS, ""),
        ("Tested-by: A B <a@b.org> # on hardware", Outcome.PASS, ""),
        ("Acked-by: A B <a@b.org> [arm64]", Outcome.PASS, ""),
        ("Some-custom-tag: whatever it is", Outcome.PASS, ""),
        (f"Co-developed-by: {OTHER}\nSigned-off-by: {OTHER}", Outcome.PASS, ""),
        (f"Co-developed-by: {OTHER}", Outcome.FAIL, "is not followed by that person's"),
        (
            f"Co-developed-by: {OTHER}\nAcked-by: A <a@b.org>\nSigned-off-by: {OTHER}",
            Outcome.FAIL,
            "is not followed by that person's",
        ),
        (SIGNED.replace("Signed-off", "Co-developed"), Outcome.WARN, "names the author"),
        (SIGNED, Outcome.WARN, "stands twice"),
        ("reviewed-by: A <a@b.org>", Outcome.WARN, "is written Reviewed-by"),
        ("Reveiwed-by: A <a@b.org>", Outcome.FAIL, "meant is Reviewed-by"),
        ("Reviewed-by: Somebody", Outcome.WARN, "as Name <address>"),
        ("Reviewed-by: a@b.org", Outcome.WARN, "as Name <address>"),
        ("Signed-off-by: nobody", Outcome.FAIL, "as Name <address>"),
        ("Reviewed-by: A <a@b.org> and thanks", Outcome.WARN, "after the address"),
        ("Breaks-Rust:", Outcome.FAIL, "gives no reason"),
        ("Breaks-Rust: mended by the next", Outcome.PASS, ""),
    ],
)
def test_trailers(history: History, tags: str, outcome: Outcome, says: str) -> None:
    check = _said(history, f"driver: go on\n\nBecause.\n\n{tags}\n{SIGNED}\n")["trailers"]
    assert (check.outcome, says in check.summary) == (outcome, True)


def test_a_tag_above_the_last_paragraph_is_no_trailer(history: History) -> None:
    message = f"driver: go on\n\nBecause.\nLink: to nothing\n\nAcked-by: {OTHER}\n\n{SIGNED}\n"
    check = _said(history, message)["trailers"]
    assert check.outcome is Outcome.WARN
    assert [one.detail for one in check.diagnostics] == [f"Acked-by: {OTHER}"]


def test_trailers_are_gits(history: History) -> None:
    for notes in ("", f"---\nv2: new\n\nAcked-by: {OTHER}\n"):
        found = trailers(history.repo, f"s\n\nFixes: no\n\nLink: a\n  b\n{SIGNED}\n{notes}")
        assert [str(one) for one in found] == ["Link: a b", SIGNED]


def test_notes_below_the_line_are_no_part_of_the_message(history: History) -> None:
    notes = f"---\nv2: asked for by\n\nAcked-by: {OTHER}\n\nand others\n"
    checks = _said(history, f"driver: go on\n\nBecause.\n\n{SIGNED}\n{notes}")
    assert checks["signed-off-by"].outcome is checks["trailers"].outcome is Outcome.PASS


def _fixes(history: History, value: str) -> Check:
    return _said(history, f"driver: mend\n\nBecause.\n\nFixes: {value}\n{SIGNED}\n")["fixes"]


def test_fixes_names_a_commit_of_the_history(history: History) -> None:
    commit = history.commits[0]
    for digits in (12, 40):
        check = _fixes(history, f'{commit[:digits]} ("driver: begin")')
        assert (check.outcome, check.summary) == (Outcome.PASS, "")
    short = _fixes(history, f'{commit[:11]} ("driver: begin")')
    assert (short.outcome, f'Fixes: {commit[:12]} ("driver: begin")' in short.summary) == (
        Outcome.FAIL,
        True,
    )
    wrong = _fixes(history, f'{commit[:12]} ("driver: start")')
    assert (wrong.outcome, 'subject is "driver: begin"' in wrong.summary) == (Outcome.FAIL, True)
    for value in (f"{commit[:12]}", f"commit {commit[:12]} (driver: begin)", "the first one"):
        assert "is not of the form" in _fixes(history, value).summary
    nowhere = _fixes(history, '123456789abc ("driver: begin")')
    assert (nowhere.outcome, "no commit here" in nowhere.summary) == (Outcome.FAIL, True)


def test_a_fixes_tag_above_the_last_paragraph_is_looked_up_too(history: History) -> None:
    message = 'driver: mend\n\nBecause.\n\nFixes: 123456789abc ("x")\n\n'
    check = _said(history, f"{message}{SIGNED}\n")["fixes"]
    assert (check.outcome, "no commit here" in check.summary) == (Outcome.FAIL, True)


def test_fixes_of_a_commit_on_another_branch(history: History) -> None:
    history.git("checkout", "--quiet", "-b", "side")
    side = history.commit({"drivers/b.c": "int b;\n"}, f"driver: aside\n\nIt.\n\n{SIGNED}\n")
    history.commits.pop()
    history.git("checkout", "--quiet", "main")
    check = _fixes(history, f'{side[:12]} ("driver: aside")')
    assert (check.outcome, "not in the history" in check.summary) == (Outcome.FAIL, True)


def test_fixes_of_a_later_commit_is_not_in_the_history(history: History) -> None:
    history.commit({"drivers/b.c": "int b;\n"})
    later = history.commit({"drivers/b.c": "int c;\n"}, f"driver: later\n\nIt.\n\n{SIGNED}\n")
    tag = f'Fixes: {later[:12]} ("driver: later")'
    history.git("checkout", "--quiet", "-B", "main", history.commits[0])
    del history.commits[1:]
    check = _said(history, f"driver: mend\n\nBecause.\n\n{tag}\n{SIGNED}\n")["fixes"]
    assert check.outcome is Outcome.FAIL


def test_fixes_cannot_be_told_where_the_history_is_not_here(tmp_path: Path) -> None:
    tree = {"MAINTAINERS": "\n", "Makefile": "\n", "kernel/fork.c": "\n"}
    history = History(tmp_path / "imported")
    history.commit(tree, "Linux 7.3.4\n")
    check = _fixes(history, '123456789abc ("driver: begin")')
    assert (check.outcome, "imported without its history" in check.summary) == (Outcome.SKIP, True)
    assert _fixes(history, '123456789ab ("driver: begin")').outcome is Outcome.FAIL


def test_fixes_cannot_be_told_in_a_shallow_clone(history: History, tmp_path: Path) -> None:
    history.commit({"drivers/b.c": "int b;\n"})
    tag = f'Fixes: {history.commits[0][:12]} ("driver: begin")'
    history.commit({"drivers/b.c": "int c;\n"}, f"driver: mend\n\nIt.\n\n{tag}\n{SIGNED}\n")
    shallow = History(tmp_path / "shallow")
    shallow.git("fetch", "--quiet", "--depth=2", f"file://{history.path}", "main")
    shallow.commits = shallow.git("rev-list", "--reverse", "FETCH_HEAD").splitlines()
    check = _checks(shallow)["fixes"]
    assert (check.outcome, "shallow" in check.summary) == (Outcome.SKIP, True)


def test_a_merge_is_not_asked_for_trailers(history: History) -> None:
    history.git("checkout", "--quiet", "-b", "side")
    history.commit({"drivers/b.c": "int b;\n"})
    history.git("checkout", "--quiet", "main")
    history.git("merge", "--quiet", "--no-ff", "-m", "Merge it", "side")
    history.commits[1:] = [history.git("rev-parse", "HEAD")]
    outcomes = [one.outcome for one in _checks(history).values()]
    assert outcomes == [Outcome.SKIP] * 3 + [Outcome.PASS]


@pytest.mark.parametrize(
    ("name", "target", "says"),
    [
        ("drivers/l", "a.c", ""),
        ("drivers/x/y/l", "../../a.c", ""),
        ("drivers/l", "nowhere/at/all", ""),
        ("drivers/l", "/etc/passwd", "absolute path"),
        ("drivers/l", "../../secret", "out of the tree"),
        ("l", "..", "out of the tree"),
        ("drivers/l", "x/x/x/../../../etc", "goes up after going down"),
        ("drivers/l", "../.git/config", "git's own files"),
        ("drivers/l", "a\x1b[2Jc", "control or invisible character"),
    ],
)
def test_links(history: History, name: str, target: str, says: str) -> None:
    history.commit({name: Path(target)})
    check = _checks(history)["links"]
    assert (check.outcome, says in check.summary) == (
        Outcome.FAIL if says else Outcome.PASS,
        True,
    )
    assert "\x1b" not in check.summary


@pytest.mark.parametrize(
    "name", ["drivers/a\x1b]0;x\x07.c", "drivers/a\nb.c", "drivers/\u202ec.rs"]
)
def test_names_that_are_not_what_they_seem(history: History, name: str) -> None:
    history.commit({name: "int b;\n"})
    check = _checks(history)["links"]
    assert check.outcome is Outcome.FAIL
    assert check.diagnostics[0].file.isprintable()


def test_a_submodule_and_a_link_made_of_a_file(history: History) -> None:
    commit = history.commits[0]
    history.git("update-index", "--add", "--cacheinfo", f"160000,{commit},drivers/sub")
    history.git("commit", "--quiet", "-m", "driver: sub")
    history.commits.append(history.git("rev-parse", "HEAD"))
    assert "a submodule" in _checks(history)["links"].summary
    (history.path / "drivers/a.c").unlink()
    history.commit({"drivers/a.c": Path("/dev/zero")})
    assert _checks(history)["links"].outcome is Outcome.FAIL
    history.commit({"drivers/a.c": None})
    assert _checks(history)["links"].outcome is Outcome.PASS


# The tools of these tests: each does what its real one does, for lines with certain words.
CHECKPATCH = """
import sys
mail = sys.stdin.read().splitlines()
open(__file__ + ".args", "w").write(" ".join(sys.argv[1:]))
known = {"ERROR": "error", "WARNING": "warning", "CHECK": "check"}
found = [(level, line) for line in mail for level, word in known.items() if f"+{word} " in line]
for level, line in found:
    print(f"drivers/a.c:7: {level}:SPACING: {line[1:]}")
if "a long line" in mail:
    print(":1: WARNING:COMMIT_LOG_LONG_LINE: Prefer less")
if "+crash" in mail:
    sys.exit("Died at line 1")
sys.exit(bool(found))
"""
RUSTFMT = """
import sys
for number, line in enumerate(sys.stdin, 1):
    if line.startswith("bad"):
        print(f"Diff in <stdin>:{number}:")
        print(f"-{line}+good{line[3:]}", end="")
"""
KERNEL_DOC = """
import sys
for name in sys.argv[2:]:
    for number, line in enumerate(open(name), 1):
        if line.startswith("bad"):
            print(f"Warning: /run/kdrv/mod/{name.split('/')[-1]}:{number} {line}", end="")
"""


@dataclass
class Bench:
    """A toolchain whose sandbox is a shell with those tools, and nothing else in its PATH."""

    tree: Path
    programs: Path
    starts: list[Sequence[Bind]] = field(default_factory=list)
    name = "fake"
    identity = "fake"
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tools = {
            self.tree / "scripts/checkpatch.pl": CHECKPATCH,
            self.tree / "scripts/kernel-doc": KERNEL_DOC,
            self.programs / "rustfmt": RUSTFMT,
            self.programs / "perl": "",
            self.programs / "python3": "",
        }
        for path, text in tools.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"#!{sys.executable} -IS\n{text}")
            path.chmod(0o755)

    def command(
        self, argv: Sequence[str], *, binds: Sequence[Bind] = (), cwd: str = "/", **_: object
    ) -> Command:
        self.starts.append(binds)
        assert cwd == SOURCE
        places = {bind.target: bind.source for bind in binds}
        assert set(places) == {SOURCE, MODULE}
        assert not any(bind.writable for bind in binds)
        script = Path(argv[-1].replace(MODULE, str(places[MODULE])))
        text = script.read_text()
        for target, source in places.items():
            text = text.replace(target, str(source))
        script.write_text(text)
        return Command(("/bin/sh", str(script)), env={"PATH": str(self.programs)}, clean=True)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "tree", tmp_path / "bin")


def _files(history: History, bench: Bench, patch: Patch | None = None) -> dict[str, Check]:
    ctx = Context(cache=bench.tree / "cache")
    policy = load_policy()
    patch = patch or history.last
    found = judge_files(ctx, bench, bench.tree, history.repo, patch, policy)
    return {one.name: one for one in found}


def test_checkpatch_speaks_of_the_patch(history: History, bench: Bench) -> None:
    history.commit({"drivers/a.c": "error one\nwarning two\ncheck three\n"})
    check = _files(history, bench)["checkpatch"]
    assert (check.outcome, check.summary) == (Outcome.FAIL, "1 error, 1 warning, 1 check")
    levels = [one.level for one in check.diagnostics]
    assert levels == [Level.ERROR, Level.WARNING, Level.NOTE]
    assert check.diagnostics[0].place == "drivers/a.c:7"
    assert check.policy == 'preset default: severity.checkpatch-error = "fail"'
    commit = history.last.commit
    assert check.reproducer.startswith(
        f"git format-patch -1 --stdout {commit} | scripts/checkpatch.pl --strict --ignore="
    )
    arguments = (bench.tree / "scripts/checkpatch.pl.args").read_text()
    assert "FILE_PATH_CHANGES" in arguments
    history.commit({"drivers/a.c": "check three\n"})
    check = _files(history, bench)["checkpatch"]
    assert (check.outcome, check.diagnostics, check.reproducer) == (Outcome.PASS, (), "")
    history.commit({"drivers/a.c": "check four\n"})
    check = _files(history, bench)["checkpatch"]
    assert (check.outcome, check.summary) == (Outcome.PASS, "1 check")


def test_checkpatch_speaks_of_the_message(history: History, bench: Bench) -> None:
    history.commit({"drivers/a.c": "int b;\n"}, f"driver: it\n\na long line\n\n{SIGNED}\n")
    check = _files(history, bench)["checkpatch"]
    assert check.outcome is Outcome.WARN
    (found,) = check.diagnostics
    assert (found.file, found.line, found.code) == ("", 0, "COMMIT_LOG_LONG_LINE")


def test_checkpatch_that_dies_is_no_verdict(history: History, bench: Bench) -> None:
    history.commit({"drivers/a.c": "crash\n"})
    check = _files(history, bench)["checkpatch"]
    assert (check.outcome, check.detail) == (Outcome.UNKNOWN, ("Died at line 1",))


def test_rustfmt_is_asked_for_what_is_new(history: History, bench: Bench) -> None:
    history.commit({"drivers/a.rs": "ok\nbad one\nok\n", "drivers/b.rs": "bad three\n"})
    check = _files(history, bench)["rustfmt"]
    assert (check.outcome, check.summary) == (Outcome.FAIL, "2 new messages")
    history.git("mv", "drivers/b.rs", "drivers/c.rs")
    history.commit({"drivers/a.rs": "ok\nbad two\nok\nok\nbad one\n"})
    check = _files(history, bench)["rustfmt"]
    assert [(one.file, one.line) for one in check.diagnostics] == [("drivers/a.rs", 2)]
    assert check.policy == 'preset default: severity.rustfmt = "fail"'
    commit = history.last.commit
    assert check.reproducer == (
        f"git show {commit}:drivers/a.rs | rustfmt --check --config-path .rustfmt.toml"
    )
    history.commit({"drivers/a.rs": "bad one\n"})
    assert _files(history, bench)["rustfmt"].outcome is Outcome.PASS
    history.commit({"drivers/a.rs": None})
    assert _files(history, bench)["rustfmt"].outcome is Outcome.SKIP


def test_kernel_doc_is_asked_for_what_is_new(history: History, bench: Bench) -> None:
    history.commit({"drivers/a.c": "bad one\n", "drivers/a.h": "bad one\n"})
    check = _files(history, bench)["kernel-doc"]
    assert (check.outcome, len(check.diagnostics)) == (Outcome.WARN, 2)
    history.commit({"drivers/a.c": "ok\nbad one\n", "drivers/a.h": "bad one\nbad one\n"})
    check = _files(history, bench)["kernel-doc"]
    assert [(one.file, one.line) for one in check.diagnostics] == [("drivers/a.h", 2)]
    commit = history.last.commit
    assert check.reproducer == (
        f"git show {commit}:drivers/a.h >/tmp/kernel-doc.h"
        " && scripts/kernel-doc -none /tmp/kernel-doc.h"
    )


def test_all_tools_share_one_start_and_the_names_stay_outside(
    history: History, bench: Bench, tmp_path: Path
) -> None:
    trap = f"drivers/$(>{str(tmp_path).replace('/', '_')}) `x`'.rs"
    history.commit({trap: "bad one\n", "drivers/-n.c": "bad one\n", "drivers/a.c": "error it\n"})
    checks = _files(history, bench)
    assert len(bench.starts) == 1
    assert checks["rustfmt"].diagnostics[0].file == trap
    assert checks["kernel-doc"].diagnostics[0].file == "drivers/-n.c"
    assert checks["checkpatch"].outcome is Outcome.FAIL
    quoted = trap.replace("'", "'\"'\"'")
    assert f"'{history.last.commit}:{quoted}'" in checks["rustfmt"].reproducer


def test_a_missing_program_is_told(history: History, bench: Bench) -> None:
    for name in ("perl", "rustfmt", "python3"):
        (bench.programs / name).unlink()
    history.commit({"drivers/a.c": "error\n", "drivers/a.rs": "bad\n"})
    checks = _files(history, bench)
    assert {name: (one.outcome, one.summary) for name, one in checks.items()} == {
        "checkpatch": (Outcome.SKIP, "the toolchain has no perl"),
        "rustfmt": (Outcome.SKIP, "the toolchain has no rustfmt"),
        "kernel-doc": (Outcome.SKIP, "the toolchain has no python3"),
    }


def test_files_of_other_kinds_and_merges(history: History, bench: Bench) -> None:
    history.commit({"README": "x\n", "rust/syn/a.rs": "bad\n", "l.rs": Path("README")})
    checks = _files(history, bench)
    assert [one.outcome for one in checks.values()] == [Outcome.PASS, Outcome.SKIP, Outcome.SKIP]
    history.git("checkout", "--quiet", "-b", "side", history.commits[0])
    history.commit({"OTHER": "y\n"})
    history.git("merge", "--quiet", "-m", "Merge it", "main")
    history.commits[1:] = [history.commits[-1], history.git("rev-parse", "HEAD")]
    checks = _files(history, bench)
    assert checks["checkpatch"].outcome is Outcome.SKIP


class Stuck(LocalRunner):
    """The sandbox does not end."""

    def run(self, command: Command, **options: object) -> Completed:
        raise DeadlineExceeded("sh did not finish within 3600 s")


def test_a_tool_that_never_ends_is_no_verdict(history: History, bench: Bench) -> None:
    history.commit({"drivers/a.c": "int b;\n"})
    ctx = Context(cache=bench.tree / "cache", runner=Stuck())
    found = judge_files(ctx, bench, bench.tree, history.repo, history.last, load_policy())
    assert [one.outcome for one in found] == [Outcome.UNKNOWN, Outcome.SKIP, Outcome.UNKNOWN]
    assert found[0].detail == ("sh did not finish within 3600 s",)
