"""The program in front of rustc, with the toolchain's own rustc and Python, in the sandbox."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kdrv.build.api import Workbench
from kdrv.build.make import PROGRAMS, install
from kdrv.core.context import Context
from kdrv.core.process import Completed
from kdrv.gate import rustc_memo
from kdrv.toolchain.base import OUTPUT, Bind

pytestmark = pytest.mark.real

ASK = "rustc --edition=2021 -Zbinary_dep_depinfo=y --crate-type rlib --crate-name {crate} -L. "
ASK += "--emit=dep-info=.{crate}.d --emit=obj={crate}.o --emit=metadata=lib{crate}.rmeta "
LOW, HIGH = (ASK.format(crate=crate) + f"{crate}.rs" for crate in ("low", "high"))
HIGH = HIGH.replace("--edition", "--extern low --edition", 1)


def test_a_crate_is_compiled_again_only_for_what_it_sees(
    bench: Workbench, ctx: Context, tmp_path: Path
) -> None:
    build = tmp_path / "out"
    build.mkdir()
    (build / "low.rs").write_text("#![no_std]\nmod deep;\npub use deep::*;\n")
    (build / "deep.rs").write_text("pub fn low() -> u32 { let unused = 1; 7 }\n")
    (build / "high.rs").write_text("#![no_std]\npub fn high() -> u32 { low::low() }\n")
    install(tmp_path / "bin", "rustc", rustc_memo)

    def ask(words: str) -> Completed:
        toolchain = bench.toolchain
        command = toolchain.command(
            words.split(),
            binds=[Bind(build, OUTPUT, writable=True), Bind(tmp_path / "bin", PROGRAMS)],
            cwd=OUTPUT,
            env={"PATH": f"{PROGRAMS}:{toolchain.path}", "RUSTC_BOOTSTRAP": "1"},
        )
        return ctx.runner.run(command, deadline=120)

    def made() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in build.glob("*.[or]*") if path.is_file()}

    def entries() -> int:
        return len(list(build.glob(f"{rustc_memo.MEMO}/*/*")))

    said = [ask(LOW).output, ask(HIGH).output]
    assert "unused variable" in said[0]
    before = made()
    for source in build.glob("*.rs"):
        os.utime(source)
    (build / "low.o").write_text("as objtool leaves it")
    assert [ask(LOW).output, ask(HIGH).output] == said
    assert (made(), entries()) == (before, 2)
    assert "\nlow.o: " in (build / ".low.d").read_text()
    # What high is made from now is another liblow.rmeta, which only dep-info tells of.
    (build / "deep.rs").write_text("pub fn low() -> u32 { 8 }\npub fn more() {}\n")
    assert "unused" not in ask(LOW).output
    ask(HIGH)
    assert entries() == 4
    assert made()["liblow.rmeta"] != before["liblow.rmeta"]
