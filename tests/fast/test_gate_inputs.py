"""A file is an input of a lane when a record of the build names it, or make may read it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kdrv.build.vetting import HOST_FILES, vet
from kdrv.core.inside import UntrustedFile
from kdrv.gate.inputs import Inputs, Reader
from kdrv.gate.series import Change, Status

STRING = """savedcmd_lib/string.o := gcc -I/run/kdrv/src/include -c /run/kdrv/src/lib/string.c

source_lib/string.o := /run/kdrv/src/lib/string.c

deps_lib/string.o := \\
    $(wildcard include/config/X86_64) \\
  /run/kdrv/src/include/linux/string.h \\
  /run/kdrv/src/arch/x86/include/asm/../asm/string_64.h \\
"""
RECORDS = {
    "lib/.string.o.cmd": STRING,
    "lib/.built-in.a.cmd": "savedcmd_lib/built-in.a := ar cDPrST lib/built-in.a string.o\n",
    "rust/.kernel.o.cmd": "savedcmd_rust/kernel.o := rustc /run/kdrv/src/rust/kernel/lib.rs\n"
    "deps_rust/kernel.o := \\\n  /run/kdrv/src/rust/kernel/pci.rs \\\n",
    "include/config/auto.conf.cmd": "deps_config := \\\n\tKconfig \\\n\tlib/Kconfig \\\n",
}


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    for name, text in RECORDS.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Reader(tmp_path)


@pytest.fixture
def inputs(reader: Reader) -> Inputs:
    return reader.read()


@pytest.mark.parametrize(
    "path",
    [
        "lib/string.c",
        "include/linux/string.h",
        "arch/x86/include/asm/string_64.h",
        "rust/kernel/pci.rs",
        "lib/Kconfig",
        "lib/Makefile",
        "Makefile",
        "scripts/Makefile.build",
        "scripts/mod/modpost.c",
        "tools/objtool/check.c",
        "lib/table.tbl",
        "lib/opcode-map.txt",
        "lib/gen_table.py",
    ],
)
def test_what_the_lane_reads_concerns_it(inputs: Inputs, path: str) -> None:
    assert path in inputs.concerned([Change(path, Status.MODIFIED)])


@pytest.mark.parametrize(
    "path",
    [
        "drivers/net/foo.c",
        "drivers/net/Makefile",
        "drivers/net/Kconfig",
        "drivers/net/foo.tbl",
        "lib/other.c",
        "include/linux/other.h",
        "rust/kernel/usb.rs",
        "Documentation/Makefile",
        "tools/perf/builtin.c",
        "MAINTAINERS",
        "lib/.gitignore",
    ],
)
def test_what_it_does_not_read_does_not(inputs: Inputs, path: str) -> None:
    assert inputs.concerned([Change(path, Status.MODIFIED)]) == ""


def test_a_new_header_of_a_known_name_may_come_first(inputs: Inputs) -> None:
    new = Change("arch/um/include/asm/string.h", Status.ADDED)
    assert "before another string.h" in inputs.concerned([new])
    assert inputs.concerned([Change("include/linux/brand_new.h", Status.ADDED)]) == ""
    uapi = Change("include/uapi/linux/brand_new.h", Status.ADDED)
    assert "interface header" in inputs.concerned([uapi])


def test_a_renamed_file_is_looked_at_under_both_names(inputs: Inputs) -> None:
    moved = Change("lib/words.c", Status.RENAMED, old="lib/string.c")
    assert "lib/string.c" in inputs.concerned([moved])


def test_one_input_among_many_changes_is_enough(inputs: Inputs) -> None:
    changes = [Change("MAINTAINERS", Status.MODIFIED), Change("lib/string.c", Status.DELETED)]
    assert inputs.concerned(changes) == "lib/string.c is read"


def test_a_record_that_changed_is_read_again(reader: Reader, tmp_path: Path) -> None:
    reader.read()
    new = "deps_lib/string.o := \\\n  /run/kdrv/src/include/linux/fresh.h \\\n"
    (tmp_path / "lib/.string.o.cmd").write_text(new)
    inputs = reader.read()
    assert inputs.concerned([Change("include/linux/fresh.h", Status.MODIFIED)])
    assert inputs.concerned([Change("lib/string.c", Status.MODIFIED)]) == ""


def test_a_record_that_is_a_link_or_a_pipe_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("/run/kdrv/src/lib/secret.c")
    (tmp_path / ".link.o.cmd").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / ".pipe.o.cmd")
    assert Reader(tmp_path).read().files == frozenset()


@pytest.mark.parametrize("name", HOST_FILES)
def test_what_kdrv_reads_of_a_build_must_be_a_file(tmp_path: Path, name: str) -> None:
    build = tmp_path / "out"
    (build / name).parent.mkdir(parents=True)
    vet(build)
    (build / name).write_text("fine")
    vet(build)
    for spoil in (
        lambda path: path.symlink_to("/etc/passwd"),
        lambda path: path.symlink_to("/nowhere"),
        os.mkfifo,
        lambda path: path.mkdir(),
    ):
        (build / name).unlink()
        spoil(build / name)
        with pytest.raises(UntrustedFile):
            vet(build)
        if (build / name).is_dir() and not (build / name).is_symlink():
            (build / name).rmdir()
            (build / name).touch()
