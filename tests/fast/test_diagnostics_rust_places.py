from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kdrv.build.callers import callers
from kdrv.build.diagnostics import parse
from kdrv.build.diagnostics.rust_places import demangled, placed
from kdrv.core.context import Context
from kdrv.core.inside import UntrustedFile
from kdrv.core.process import Command
from tests.fast.conftest import FakeRunner

OBJECT = Path(__file__).parent / "recordings/build/rust_build_error.o"
MANGLED = "_RNvCs68VwUXJ3L1S_9rustbuild7checked"
UNDEFINED = "ERROR: modpost: rustbuild.ko: symbol 'rust_build_error' undefined!"


class BareToolchain:
    name = identity = "bare"
    versions: dict[str, str] = {}  # noqa: RUF012

    def command(self, argv: Sequence[str], **_: Any) -> Command:
        return Command(tuple(argv))


def test_the_function_that_calls_rust_build_error_is_found() -> None:
    assert callers(OBJECT, "rust_build_error") == (MANGLED,)
    assert callers(OBJECT, "no_such_symbol") == ()


def test_what_is_no_object_is_said(tmp_path: Path) -> None:
    text = tmp_path / "text.o"
    text.write_text("not an object\n")
    with pytest.raises(UntrustedFile, match=r"text\.o"):
        callers(text, "rust_build_error")
    with pytest.raises(UntrustedFile, match="No such file"):
        callers(tmp_path / "none.o", "rust_build_error")


def test_the_diagnostic_tells_the_function(
    tmp_path: Path, ctx: Context, runner: FakeRunner
) -> None:
    (tmp_path / "rustbuild.o").write_bytes(OBJECT.read_bytes())
    runner.answers.append(("llvm-cxxfilt", "rustbuild::checked\n"))
    other = "ERROR: modpost: a.ko: symbol 'other' undefined!"
    found, untouched = placed(ctx, BareToolchain(), parse([UNDEFINED, other]), tmp_path)
    assert found.message.endswith("(called in rustbuild::checked)")
    assert "build_assert!" in found.detail
    assert untouched.message == "symbol 'other' undefined"


def test_without_the_object_the_diagnostic_stays(tmp_path: Path, ctx: Context) -> None:
    diagnostics = parse([UNDEFINED])
    assert placed(ctx, BareToolchain(), diagnostics, tmp_path) == diagnostics


def test_another_demangler_is_tried_and_then_none(ctx: Context, runner: FakeRunner) -> None:
    runner.answers += [("llvm-cxxfilt", (127, "")), ("c++filt", (127, ""))]
    assert demangled(ctx, BareToolchain(), [MANGLED]) == (MANGLED,)
    assert len(runner.ran) == 2
