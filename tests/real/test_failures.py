"""Drivers that do wrong, and kernels that die: each is named, and nothing is left running."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from kdrv.build.api import LaneBuild
from kdrv.core.context import Context
from kdrv.core.project import load_project
from kdrv.testing.prepare import TestRequest, prepare_project
from kdrv.testing.room import Condemned, Room
from kdrv.testing.worlds import make_world

from .conftest import Kdrv, Said

pytestmark = pytest.mark.real

DRIVER = """\
// SPDX-License-Identifier: GPL-2.0

//! A driver that does wrong.

use kernel::prelude::*;

module! {{
    type: Wrong,
    name: "wrong",
    authors: ["kdrv"],
    description: "Does wrong",
    license: "GPL",
}}

struct Wrong;

impl kernel::Module for Wrong {{
    fn init(_module: &'static ThisModule) -> Result<Self> {{
        {init}
    }}
}}
"""
LEAK = "core::mem::forget(KBox::new([0u8; 100], GFP_KERNEL)?); Ok(Wrong)"
PANIC = 'let none: Option<Self> = None; Ok(none.expect("no hardware"))'
LOOP = "loop { core::hint::spin_loop(); }"
TEST = "def test_it_loads(driver):\n    assert driver.name == 'wrong'\n"


def _project(place: Path, init: str) -> Path:
    (place / "tests").mkdir(parents=True)
    (place / "wrong.rs").write_text(DRIVER.format(init=init))
    (place / "Kbuild").write_text("obj-m := wrong.o\n")
    (place / "tests/test_wrong.py").write_text(TEST)
    (place / "kdrv.toml").write_text(
        '[project]\nname = "wrong"\n[driver]\nmodule = "wrong"\npath = "."\n'
        f'[machine]\ncmdline = ["{_mark(place)}"]\n[test]\ndeadline = 20.0\n'
    )
    return place


def _no_emulator_left(place: Path) -> bool:
    """No program whose command line has this project's mark: QEMU's, with the kernel's in it."""
    return subprocess.run(["pgrep", "-f", _mark(place)], capture_output=True).returncode == 1


def _mark(place: Path) -> str:
    return f"kdrv_case={place.parent.name}"


def _verdict(said: Said) -> str:
    (case,) = said.data["cases"]
    assert case["outcome"] == "failed"
    assert case["reproducer"].startswith("kdrv test --qemu ")
    return str(case["verdict"])


def test_a_panic_in_probe(kdrv: Kdrv, tmp_path: Path, rust_lane: LaneBuild) -> None:
    said = kdrv("test", "--qemu", _project(tmp_path / "p", PANIC), "--json")
    assert said.status == 1
    assert _verdict(said) == "rust-panic"
    (case,) = said.data["cases"]
    assert "no hardware" in case["detail"]
    assert re.search(r"wrong\.rs:\d+", case["detail"])
    assert case["fingerprint"]
    assert _no_emulator_left(tmp_path / "p")


def test_an_endless_loop_in_probe(kdrv: Kdrv, tmp_path: Path, rust_lane: LaneBuild) -> None:
    said = kdrv("test", "--qemu", _project(tmp_path / "p", LOOP), "--json")
    assert said.status == 1
    assert _verdict(said) in ("soft-lockup", "agent-silence")
    (case,) = said.data["cases"]
    assert "wrong" in case["detail"]
    assert _no_emulator_left(tmp_path / "p")


def test_a_leak_on_unload(kdrv: Kdrv, tmp_path: Path, rust_lane: LaneBuild) -> None:
    said = kdrv("test", "--qemu", _project(tmp_path / "p", LEAK), "--json")
    assert said.status == 1
    (case,) = said.data["cases"]
    assert "memory leaked: 1 object allocated by init_module (kmalloc-128)" in case["detail"]
    assert _no_emulator_left(tmp_path / "p")


def test_a_kernel_that_dies_before_its_console(
    ctx: Context, tmp_path: Path, rust_lane: LaneBuild
) -> None:
    request = TestRequest(load_project(_project(tmp_path / "p", "Ok(Wrong)")), "qemu")
    prepared = prepare_project(ctx, request, tmp_path)
    dead = tmp_path / "vmlinux"
    dead.write_bytes(_halting(prepared.spec.kernel.vmlinux))
    spec = replace(prepared.spec, kernel=replace(prepared.spec.kernel, image=dead))
    room = Room(make_world(ctx, request, prepared.bench), spec, reproducer=request.command())
    with pytest.raises(Condemned) as caught:
        _ = room.guest
    assert caught.value.verdict.outcome == "silent-early-hang"
    assert "died or hangs before its console" in caught.value.message
    assert caught.value.exit_code == 1
    assert _no_emulator_left(tmp_path / "p")


def _halting(vmlinux: Path) -> bytes:
    """The kernel with "cli; hlt" for its first instructions (arch/x86/platform/pvh/head.S)."""
    data = bytearray(vmlinux.read_bytes())
    with vmlinux.open("rb") as file:
        elf = ELFFile(file)
        (symbol,) = elf.get_section_by_name(".symtab").get_symbol_by_name("pvh_start_xen")
        section = elf.get_section(symbol["st_shndx"])
        at = section["sh_offset"] + symbol["st_value"] - section["sh_addr"]
    data[at : at + 4] = b"\xfa\xf4\xeb\xfd"
    return bytes(data)
