from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kdrv.build.explain import Explanation, explain
from kdrv.build.explain_probe import Probe
from kdrv.build.explain_rust import rust_problem
from kdrv.core.context import Context
from kdrv.core.errors import CommandFailed
from kdrv.core.process import Command
from kdrv.kernel.kconfig import merge, parse_settings
from tests.fast.conftest import FakeRunner

KCONFIG = """\
cc-option = $(shell,$(CC) $(1))

config CC_IS_CLANG
	def_bool $(cc-option,--is-clang)

config MODULES
	bool "Modules"
	modules

config PAHOLE_VERSION
	int
	default "122"

config RUST
	bool "Rust support"
	depends on HAVE_RUST
	depends on RUST_IS_AVAILABLE
	depends on !MODVERSIONS || GENDWARFKSYMS
	depends on !BTF || PAHOLE_VERSION >= 124
	depends on !KASAN || CC_IS_CLANG

config HAVE_RUST
	bool

config X86
	def_bool y
	select HAVE_RUST

config RUST_IS_AVAILABLE
	def_bool $(shell,rust_is_available)

config MODVERSIONS
	bool "Module versioning"
	depends on MODULES

config DEBUG_INFO
	bool

config GENDWARFKSYMS
	bool "gendwarfksyms"
	depends on DEBUG_INFO

choice
	prompt "Debug information"
	default DEBUG_NONE

config DEBUG_NONE
	bool "None"

config DEBUG_DWARF
	bool "DWARF"
	select DEBUG_INFO

endchoice

config BTF
	bool "BTF"

config SLUB_TINY
	bool "Tiny allocator"

config KASAN
	bool "KASAN"
	depends on !SLUB_TINY

config SAMPLE
	tristate "A sample"
	depends on RUST

config USB
	tristate "USB"

config USB_ACM
	tristate "USB modem"
	depends on USB

config CORE
	bool "Core"

config DRIVER
	bool "Driver"
	select CORE

config EXTRA
	bool "Extra"

config WISHES
	bool "Wishes"
	imply EXTRA

config LOCKED
	bool "Locked"
	depends on !EXTRA

config NUMBER
	int "Number"
	range 1 64

config SANDBOXED
	bool "Needs a flag"
	depends on $(cc-option,-fnew)

config OLD
	bool
	transitional

config NEW
	bool "New"
	default OLD
"""

DEFAULTS = """\
CONFIG_MODULES=y
CONFIG_HAVE_RUST=y
CONFIG_X86=y
CONFIG_RUST_IS_AVAILABLE=y
CONFIG_PAHOLE_VERSION=122
CONFIG_DEBUG_NONE=y
CONFIG_NUMBER=4
"""

RUSTC_TOO_OLD = """\
***
*** Rust compiler 'rustc' is too old.
***   Your version:    1.70.0
***   Minimum version: 1.85.0
***
***
*** Please see Documentation/rust/quick-start.rst for details
*** on how to set up the Rust support.
***
"""

Explain = Callable[..., Explanation]


@dataclass
class BareToolchain:
    """A toolchain without a sandbox; ``env`` is what the last command was given."""

    name: str = "bare"
    identity: str = "0"
    versions: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)

    def command(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, **_: Any
    ) -> Command:
        self.env = dict(env or {})
        return Command(tuple(argv))


@pytest.fixture
def toolchain() -> BareToolchain:
    return BareToolchain()


@pytest.fixture
def one(tmp_path: Path, ctx: Context, runner: FakeRunner, toolchain: BareToolchain) -> Explain:
    """Explains the only missing symbol of a request."""
    tree, output = tmp_path / "tree", tmp_path / "out"
    (tree / "arch/arm64").mkdir(parents=True)
    output.mkdir()
    (tree / "Kconfig").write_text(KCONFIG)
    (tree / "arch/arm64/Kconfig").write_text("config ARM64_PTR_AUTH\n\tbool\n")
    runner.answers += [
        ("listnewconfig", "kdrv-environment SRCARCH=x86\nkdrv-environment CC=gcc\n"),
        ("scripts/rust_is_available.sh", (1, RUSTC_TOO_OLD)),
        ("gcc", "n\n"),
    ]

    def explained(final: str, requested: str, base: str = "") -> Explanation:
        config = output / ".config"
        config.write_text(final)
        wanted = merge(
            parse_settings(base, Path("base.config")), parse_settings(requested, Path("my.config"))
        )
        probe = Probe(tree, output, toolchain, {"ARCH": "x86_64"}, ctx)
        (explanation,) = explain(probe, config, wanted)
        return explanation

    return explained


def texts(explanation: Explanation) -> list[str]:
    return [cause.text for cause in explanation.chain]


def test_an_unmet_dependency_down_to_the_leaf(one: Explain) -> None:
    found = one(DEFAULTS + "CONFIG_MODVERSIONS=y\n", "CONFIG_RUST=y\nCONFIG_MODVERSIONS=y\n")
    assert (found.symbol, found.wanted, found.got) == ("RUST", "y", "n")
    assert found.place == "my.config:1"
    assert (
        "depends on !MODVERSIONS || GENDWARFKSYMS (MODVERSIONS=y, GENDWARFKSYMS=n)" in found.summary
    )
    assert "genksyms cannot compute the versions of Rust symbols" in found.summary
    assert [(c.symbol, c.depth) for c in found.chain] == [
        ("RUST", 0),
        ("MODVERSIONS", 1),
        ("GENDWARFKSYMS", 1),
        ("DEBUG_INFO", 2),
    ]
    places = [cause.place for cause in found.chain]
    line = KCONFIG.splitlines().index("\tdepends on !MODVERSIONS || GENDWARFKSYMS") + 1
    assert places[:2] == [f"Kconfig:{line}", "my.config:2"]
    assert found.change == (
        "set CONFIG_DEBUG_DWARF=y and CONFIG_GENDWARFKSYMS=y; "
        "or remove CONFIG_MODVERSIONS=y (my.config:2)"
    )
    assert found.fix == {"DEBUG_DWARF": "y", "GENDWARFKSYMS": "y"}


def test_the_compiler_as_the_cause(one: Explain) -> None:
    found = one(DEFAULTS + "CONFIG_KASAN=y\n", "CONFIG_RUST=y\nCONFIG_KASAN=y\n")
    assert found.change.startswith(
        "remove CONFIG_KASAN=y (my.config:2); or build a lane that clang"
    )
    assert "the compiler is not clang" in texts(found)


def test_a_program_that_is_too_old(one: Explain) -> None:
    found = one(DEFAULTS + "CONFIG_BTF=y\n", "CONFIG_RUST=y\nCONFIG_BTF=y\n")
    assert "pahole is 1.22, >= 1.24 is needed" in texts(found)
    assert "use pahole 1.24 or newer" in found.change


def test_rust_is_not_available(one: Explain) -> None:
    final = DEFAULTS.replace("CONFIG_RUST_IS_AVAILABLE=y\n", "")
    found = one(final, "CONFIG_RUST=y\n")
    assert "Rust compiler 'rustc' is too old (1.70.0, needed: 1.85.0)" in found.summary
    assert found.change.startswith("install rustc 1.85.0 or newer")
    assert found.fix == {}


def test_a_follower_names_its_root(
    tmp_path: Path, ctx: Context, one: Explain, toolchain: BareToolchain
) -> None:
    config = tmp_path / "out/.config"
    config.write_text(DEFAULTS + "CONFIG_MODVERSIONS=y\n")
    wanted = parse_settings("CONFIG_SAMPLE=m\nCONFIG_RUST=y\nCONFIG_MODVERSIONS=y\n")
    probe = Probe(tmp_path / "tree", tmp_path / "out", toolchain, {"ARCH": "x86_64"}, ctx)
    root, follower = explain(probe, config, wanted)
    assert (root.symbol, root.follows) == ("RUST", "")
    assert (follower.symbol, follower.follows) == ("SAMPLE", "RUST")
    assert follower.change == "mend CONFIG_RUST; CONFIG_SAMPLE follows it"
    assert texts(follower) == ["SAMPLE depends on RUST (RUST=n)"]


def test_what_nobody_asked_for_may_be_the_cause(one: Explain) -> None:
    found = one(DEFAULTS + "CONFIG_SLUB_TINY=y\n", "CONFIG_KASAN=y\n")
    assert "tinyconfig turns it on" in found.summary
    assert found.change == "set CONFIG_SLUB_TINY=n"
    assert found.fix == {"SLUB_TINY": "n"}


def test_a_later_fragment_overrode_what_is_needed(one: Explain) -> None:
    found = one(DEFAULTS, "CONFIG_USB=n\nCONFIG_USB_ACM=m\n", base="CONFIG_USB=m\n")
    assert "USB=n overrides CONFIG_USB=m at base.config:1" in texts(found)
    assert found.change == "set CONFIG_USB=m (instead of CONFIG_USB=n at my.config:1)"


def test_selected_by_another(one: Explain) -> None:
    final = DEFAULTS + "CONFIG_CORE=y\nCONFIG_DRIVER=y\n"
    found = one(final, "CONFIG_CORE=n\nCONFIG_DRIVER=y\n")
    assert "CORE=y because DRIVER selects it" in found.summary
    assert "remove CONFIG_DRIVER=y (my.config:2)" in found.change


def test_implied_by_another(one: Explain) -> None:
    final = DEFAULTS + "CONFIG_EXTRA=y\nCONFIG_WISHES=y\n"
    found = one(final, "CONFIG_LOCKED=y\nCONFIG_WISHES=y\n")
    assert texts(found)[1:] == [
        "EXTRA=y because WISHES implies it",
        "WISHES=y is what was asked for",
    ]
    assert found.fix == {"EXTRA": "n"}


def test_m_limits_what_depends_on_it(one: Explain) -> None:
    final = DEFAULTS + "CONFIG_USB=m\nCONFIG_USB_ACM=m\n"
    found = one(final, "CONFIG_USB=m\nCONFIG_USB_ACM=y\n")
    assert "USB_ACM depends on USB (USB=m)" in found.summary
    assert "USB_ACM can be at most m" in found.summary
    assert found.fix == {"USB": "y"}


def test_without_modules_m_is_y(one: Explain) -> None:
    found = one(DEFAULTS.replace("CONFIG_MODULES=y\n", "") + "CONFIG_USB=y\n", "CONFIG_USB=m\n")
    assert "without CONFIG_MODULES there is no m" in found.summary
    assert found.fix == {"MODULES": "y"}


def test_a_choice_allows_one(one: Explain) -> None:
    final = DEFAULTS.replace("DEBUG_NONE", "DEBUG_DWARF")
    found = one(final, "CONFIG_DEBUG_NONE=y\nCONFIG_DEBUG_DWARF=y\n")
    assert "the choice 'Debug information' allows one, and DEBUG_DWARF is chosen" in found.summary
    assert "remove CONFIG_DEBUG_DWARF=y (my.config:2)" in found.change


def test_no_prompt(one: Explain) -> None:
    found = one(DEFAULTS, "CONFIG_DEBUG_INFO=y\n")
    assert (
        "DEBUG_INFO cannot be set by hand: only select turns it on (DEBUG_DWARF)" in found.summary
    )
    assert found.fix == {"DEBUG_DWARF": "y"}


def test_a_number_out_of_range(one: Explain) -> None:
    found = one(DEFAULTS, "CONFIG_NUMBER=100\n")
    assert "NUMBER must be from 1 to 64" in found.summary


def test_a_number_that_kconfig_computes(one: Explain) -> None:
    found = one(DEFAULTS, "CONFIG_PAHOLE_VERSION=130\n")
    assert "cannot be set by hand: Kconfig computes it" in found.summary


@pytest.mark.parametrize(
    ("setting", "expected"),
    [("CONFIG_RUST=m", "y or n"), ("CONFIG_NUMBER=y", "a decimal number")],
)
def test_a_value_of_the_wrong_type(one: Explain, setting: str, expected: str) -> None:
    found = one(DEFAULTS, setting + "\n")
    assert "is of type" in found.summary
    assert expected in found.change


def test_a_toolchain_check(one: Explain) -> None:
    found = one(DEFAULTS, "CONFIG_SANDBOXED=y\n")
    assert "depends on $(cc-option,-fnew) ($(cc-option,-fnew) is n)" in found.summary
    assert found.change == "use a compiler that knows -fnew (--debug has clang)"


def test_an_old_name(one: Explain) -> None:
    found = one(DEFAULTS, "CONFIG_OLD=y\n")
    assert "OLD is the old name of CONFIG_NEW" in found.summary
    assert found.change == "ask for CONFIG_NEW instead"


def test_a_misspelt_symbol(one: Explain) -> None:
    found = one(DEFAULTS, "CONFIG_MODVERSION=y\n")
    assert "MODVERSION does not exist in this tree" in found.summary
    assert "did you mean CONFIG_MODVERSIONS?" in found.change


def test_a_symbol_of_another_architecture(one: Explain) -> None:
    found = one(DEFAULTS, "CONFIG_ARM64_PTR_AUTH=y\n")
    assert "exists for ARCH=arm64 only, and this is ARCH=x86_64" in found.summary
    assert found.chain[0].place == "arch/arm64/Kconfig:1"


def test_nothing_missing_costs_nothing(
    tmp_path: Path, ctx: Context, runner: FakeRunner, toolchain: BareToolchain
) -> None:
    config = tmp_path / ".config"
    config.write_text(DEFAULTS)
    probe = Probe(tmp_path, tmp_path, toolchain, {}, ctx)
    assert explain(probe, config, parse_settings("CONFIG_X86=y\nCONFIG_RUST=n\n")) == ()
    assert runner.ran == []


def test_a_kconfig_that_cannot_be_read_is_said(one: Explain, tmp_path: Path) -> None:
    (tmp_path / "tree/Kconfig").write_text("config A\n\tnewkeyword\n")
    found = one(DEFAULTS, "CONFIG_RUST=y\n")
    assert "why is not known" in found.summary
    assert "Kconfig:2" in found.summary


def test_makefiles_that_say_nothing(
    tmp_path: Path, ctx: Context, runner: FakeRunner, toolchain: BareToolchain
) -> None:
    runner.answers.append(("listnewconfig", "make: nothing here\n"))
    with pytest.raises(CommandFailed, match="did not say"):
        _ = Probe(tmp_path, tmp_path, toolchain, {}, ctx).environment


def test_checks_see_the_environment_of_the_makefiles(
    tmp_path: Path, ctx: Context, runner: FakeRunner, toolchain: BareToolchain
) -> None:
    environment = "kdrv-environment CC=clang\nkdrv-environment SRCARCH=x86\n"
    runner.answers += [
        ("listnewconfig", environment + "kdrv-environment MAKEFLAGS=rR\n"),
        ("clang --version", "clang 19\n"),
    ]
    probe = Probe(tmp_path, tmp_path, toolchain, {}, ctx)
    assert probe.run("clang --version") == "clang 19\n"
    assert toolchain.env == {"CC": "clang", "SRCARCH": "x86"}


@pytest.mark.parametrize(
    ("said", "text", "remedy"),
    [
        (
            "***\n*** Rust bindings generator 'bindgen' could not be found.\n***\n",
            "Rust bindings generator 'bindgen' could not be found",
            "apt install bindgen",
        ),
        (
            "***\n*** libclang (used by the Rust bindings generator 'bindgen') is too old.\n"
            "***   Your version:    13.0.0\n***   Minimum version: 17.0.1\n***\n",
            "is too old (13.0.0, needed: 17.0.1)",
            "libclang 17.0.1 or newer",
        ),
        (
            "***\n*** Source code for the 'core' standard library could not be found\n"
            "*** at '/usr/lib/rustlib/src/rust/library/core/src/lib.rs'.\n***\n",
            "could not be found at '/usr/lib/rustlib/src/rust/library/core/src/lib.rs'",
            "rust-src",
        ),
        (
            "***\n*** Running 'bindgen' to check the libclang version (used by the Rust\n"
            "*** bindings generator) failed with code 101. This may be caused by\n"
            "*** a failure to locate libclang. See output and docs below for details:\n***\n"
            "Unable to find libclang\n***\n",
            "a failure to locate libclang",
            "apt install libclang-dev",
        ),
        ("", "scripts/rust_is_available.sh fails", "make rustavailable"),
    ],
)
def test_the_kernels_words_about_rust(said: str, text: str, remedy: str) -> None:
    problem = rust_problem(said)
    assert text in problem.text
    assert remedy in problem.remedy


def test_a_warning_about_rust_is_not_the_reason() -> None:
    mismatch = (
        "***\n*** libclang (used by the Rust bindings generator 'bindgen')\n"
        "*** version does not match Clang's. This may be a problem.\n"
        "***   libclang version: 18.1.0\n***   Clang version:    19.1.7\n***\n"
    )
    missing = "***\n*** Source code for the 'core' standard library could not be found\n***\n"
    assert "core" in rust_problem(mismatch + missing).text
