from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kdrv.build.lane import Fragment, Language, make_lane, shipped
from kdrv.core.errors import UsageError
from kdrv.kernel.arch import TRAITS, Arch


def test_lanes_of_one_command_have_names_of_their_own() -> None:
    lanes = [
        make_lane(language, arch, debug=debug)
        for language in Language
        for arch in Arch
        for debug in (False, True)
    ]
    assert len({lane.name for lane in lanes}) == len(lanes)
    assert make_lane(Language.C).name == "c"
    assert make_lane(Language.RUST, Arch.ARM64, debug=True).name == "rust-arm64-debug"


def test_the_lanes_differ_in_rust_only() -> None:
    c, rust = make_lane(Language.C).requested, make_lane(Language.RUST).requested
    assert "CONFIG_RUST=n" in c
    assert "CONFIG_RUST=y" in rust
    own = set(shipped("rust").text.splitlines()) | {"# from rust.config", "CONFIG_RUST=y"}
    assert set(rust.splitlines()) - own == set(c.splitlines()) - {"CONFIG_RUST=n"} - own


def test_identity_follows_everything_that_is_asked() -> None:
    def lane(**options: object) -> str:
        return make_lane(Language.RUST, **options).identity  # type: ignore[arg-type]

    assert lane() == lane()
    assert lane() != lane(debug=True)
    assert lane() != lane(arch=Arch.ARM64)
    assert lane() != lane(base="defconfig")
    assert lane() != lane(extra=(Fragment("x", "CONFIG_X=y"),))


def test_identity_follows_what_make_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    before = make_lane(Language.RUST, Arch.UM).identity
    told = replace(TRAITS[Arch.UM], variables=("KCFLAGS=-O1",))
    monkeypatch.setitem(TRAITS, Arch.UM, told)
    assert make_lane(Language.RUST, Arch.UM).identity != before


def test_headers_are_part_of_a_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    lane = make_lane(Language.RUST, Arch.UM, debug=True)
    assert not make_lane(Language.RUST, Arch.UM).headers
    assert [name for name, _ in lane.headers] == ["um-checked.h"]
    assert "CFLAGS_stacktrace.o=-include /run/kdrv/out/um-checked.h" in lane.make_variables()
    before = lane.identity
    monkeypatch.setattr("kdrv.build.lane._shipped", lambda name: f"CONFIG_X=y # {name}")
    assert lane.identity != before


def test_later_fragments_come_last() -> None:
    extra = (Fragment("mine", "CONFIG_PCI=n"),)
    requested = make_lane(Language.C, extra=extra).requested
    assert requested.rindex("CONFIG_PCI=n") > requested.rindex("CONFIG_PCI=y")


def test_llvm_where_it_must_be() -> None:
    assert "LLVM=1" not in make_lane(Language.RUST).make_variables()
    assert "LLVM=1" in make_lane(Language.RUST, debug=True).make_variables()
    assert "LLVM=1" in make_lane(Language.C, Arch.ARM64).make_variables()


def test_a_config_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the configuration"):
        make_lane(Language.C, base=str(tmp_path / "nothing"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="it is not text"):
        make_lane(Language.C, base=str(tmp_path / "binary"))
