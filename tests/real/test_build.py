"""Lanes and modules, on the real kernel."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from kdrv.build.api import LaneBuild, Workbench
from kdrv.core.context import Context

from .conftest import Kdrv, Said

pytestmark = pytest.mark.real


def test_both_lanes_are_green_and_kept(kdrv: Kdrv, rust_lane: LaneBuild, c_lane: LaneBuild) -> None:
    said = kdrv("build", "--all", "--json")
    assert said.status == 0, said.err
    lanes = {entry["kernel"]["lane"]: entry["kernel"] for entry in said.data}
    assert set(lanes) == {"c", "rust"}
    assert all(lane["cached"] for lane in lanes.values())
    for name, wanted in (("c", "# CONFIG_RUST is not set"), ("rust", "CONFIG_RUST=y")):
        config = (Path(lanes[name]["image"]["build"]) / ".config").read_text()
        # In the C lane the symbol may be invisible, or visible and off; never on.
        assert (wanted in config) or (name == "c" and "CONFIG_RUST=y" not in config)
    assert lanes["rust"]["toolchain"]["versions"]["rustc"]
    assert lanes["rust"]["reproducer"] == "kdrv build --rust"


def test_a_fragment_that_costs_rust_is_explained(
    kdrv: Kdrv, tmp_path: Path, rust_lane: LaneBuild
) -> None:
    fragment = tmp_path / "modversions.config"
    fragment.write_text("CONFIG_MODVERSIONS=y\n")
    said = kdrv("build", "--rust", "--fragment", fragment)
    assert said.status == 1
    assert "CONFIG_RUST" in said.out
    assert "MODVERSIONS" in said.out
    assert "GENDWARFKSYMS" in said.out
    assert "change:" in said.out
    assert f"--fragment {fragment}" in said.out


def test_a_broken_module_gives_records(kdrv: Kdrv, project, rust_lane: LaneBuild) -> None:
    place = project("misc")
    source = place / "widget.rs"
    source.write_text(source.read_text() + '\nfn broken() -> u32 { "no" }\n')
    said = kdrv("build", place, "--json", "--sarif", place / "out.sarif")
    assert said.status == 1
    (lane,) = said.data
    (error,) = [d for d in lane["module"]["diagnostics"] if d["code"] == "E0308"]
    assert error["file"] == "widget.rs"
    assert error["line"] == len(source.read_text().splitlines())
    assert '"E0308"' in (place / "out.sarif").read_text()
    assert sorted(p.name for p in place.iterdir() if p.suffix in (".o", ".ko", ".cmd")) == []


def test_a_users_tree_is_built_where_make_decides(
    ctx: Context, bench: Workbench, kdrv: Kdrv, tmp_path: Path
) -> None:
    """A tree of one's own is never written to, and a second build compiles nothing."""
    tree = tmp_path / "linux"
    shutil.copytree(bench.tree.path, tree, symlinks=True)
    # Of all lanes the one with the fewest objects.
    own = ("--arch", "um", "--kernel", tree)
    before = {path.name for path in tree.iterdir()}
    first = kdrv("build", *own, "--json")
    assert first.status == 0, first.err
    assert {path.name for path in tree.iterdir()} == before
    (lane,) = first.data
    assert lane["kernel"]["objects"] > 500
    again = kdrv("build", *own, "--json")
    (lane,) = again.data
    assert not lane["kernel"]["cached"]
    # What kbuild runs at every call (CALL scripts/checksyscalls.sh, DESCEND objtool).
    assert lane["kernel"]["objects"] < 10
    (tree / "drivers/base/faux.c").write_text(
        (tree / "drivers/base/faux.c").read_text() + "\nint kdrv_broken( {\n"
    )
    broken = kdrv("build", *own, "--json")
    assert broken.status == 1
    (lane,) = broken.data
    assert any(d["file"] == "drivers/base/faux.c" for d in lane["kernel"]["diagnostics"])


def _checks(said: Said) -> dict[str, dict[str, Any]]:
    (lane,) = said.data
    return {check["name"]: check for check in lane["checks"]}


def test_a_driver_of_the_tree_is_checked_where_it_lies(
    kdrv: Kdrv, tmp_path: Path, rust_lane: LaneBuild
) -> None:
    (tmp_path / "kdrv.toml").write_text(
        '[project]\nname = "sample"\n'
        '[driver]\nmodule = "rust_driver_pci"\nsymbol = "SAMPLE_RUST_DRIVER_PCI"\n'
    )
    said = kdrv("build", tmp_path, "--check", "--json")
    assert said.status == 0, said.err + said.out
    checks = _checks(said)
    passed = {name for name, check in checks.items() if check["outcome"] == "pass"}
    assert passed >= {"rustfmt", "clippy", "checkpatch", "rustdoc", "build"}
    assert "rust_driver_pci.o" in checks["clippy"]["reproducer"]


def test_a_c_driver_is_checked_and_a_sparse_too_old_is_told(
    kdrv: Kdrv, bench: Workbench, tmp_path: Path, c_lane: LaneBuild
) -> None:
    (tmp_path / "Kbuild").write_text("obj-m := loose.o\n")
    (tmp_path / "loose.c").write_text(
        "// SPDX-License-Identifier: GPL-2.0\n#include <linux/module.h>\n\n"
        "int loose;\nEXPORT_SYMBOL_GPL(loose);\n\n"
        'MODULE_DESCRIPTION("Loose");\nMODULE_LICENSE("GPL");\n'
    )
    checks = _checks(kdrv("build", tmp_path, "--check", "--json"))
    assert checks["checkpatch"]["outcome"] == "pass"
    sparse = checks["sparse"]
    if "__typeof_unqual__" in (bench.tree.path / "scripts/checker-valid.sh").read_text():
        # Debian 13's sparse 0.6.4 does not know the word, and the tree refuses it.
        assert sparse["outcome"] == "skip"
        assert sparse["reason"] == "the toolchain's sparse is too old for this tree"
    else:
        (told,) = sparse["diagnostics"]
        assert "was not declared" in told["message"]
