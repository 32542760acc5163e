"""Explanations against the real kernel's Kconfig, each with the kernel's own ``conf`` as judge.

Missing and old programs are simulated by files bound over the toolchain's.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from kdrv.build.api import Workbench
from kdrv.build.explain import Explanation, explain
from kdrv.build.explain_probe import Probe
from kdrv.core.context import Context
from kdrv.core.process import Command
from kdrv.kernel.kconfig import parse_settings, read_settings, same_value
from kdrv.kernel.kconfig_expr import LETTERS, MODULE, NO, YES, All, Expr, Kind, Name, Values
from kdrv.kernel.kconfig_tree import Definition, KconfigTree, Selector
from kdrv.toolchain.base import OUTPUT, SOURCE, Bind, Toolchain

pytestmark = pytest.mark.real

DEADLINE = 600
GCC = {"ARCH": "x86_64"}
LLVM = {"ARCH": "x86_64", "LLVM": "1"}
RUST = """\
CONFIG_64BIT=y
CONFIG_SMP=y
CONFIG_PRINTK=y
CONFIG_SYSFS=y
CONFIG_MODULES=y
CONFIG_SLUB_TINY=n
CONFIG_RUST=y
"""
BTF = "CONFIG_DEBUG_INFO_DWARF5=y\nCONFIG_BPF_SYSCALL=y\nCONFIG_DEBUG_INFO_BTF=y\n"


@dataclass(frozen=True)
class Shimmed:
    """A toolchain with files of ours in place of some of its own."""

    real: Toolchain
    binds: tuple[Bind, ...] = ()

    @property
    def name(self) -> str:
        return self.real.name

    @property
    def identity(self) -> str:
        return self.real.identity

    @property
    def versions(self) -> Mapping[str, str]:
        return self.real.versions

    @property
    def path(self) -> str:
        return self.real.path

    def command(
        self,
        argv: Sequence[str],
        *,
        binds: Sequence[Bind] = (),
        cwd: str = "/",
        env: Mapping[str, str] | None = None,
        devices: Sequence[str] = (),
    ) -> Command:
        binds = (*binds, *self.binds)
        return self.real.command(argv, binds=binds, cwd=cwd, env=env, devices=devices)


@dataclass
class Configurator:
    """Configures on top of tinyconfig, as a lane does, and explains."""

    ctx: Context
    bench: Workbench
    folder: Path

    def conf(
        self,
        fragment: str,
        make: Mapping[str, str] = GCC,
        toolchain: Toolchain | None = None,
        goal: str = "tinyconfig",
    ) -> Probe:
        output = self.folder / ("llvm" if "LLVM" in make else make["ARCH"])
        output.mkdir(exist_ok=True)
        (output / "wanted.config").write_text(fragment)
        variables = " ".join(f"{name}={value}" for name, value in make.items())
        call = f"make -s -C {SOURCE} O={OUTPUT} {variables}"
        ground = f"{goal}.config"
        script = f"cat {ground} wanted.config > .config; {call} olddefconfig"
        if not (output / ground).exists():
            script = f"{call} {goal}; mv .config {ground}; {script}"
        tools = toolchain or self.bench.toolchain
        binds = (Bind(self.bench.tree.path, SOURCE), Bind(output, OUTPUT, writable=True))
        command = tools.command(["sh", "-ec", script], binds=binds, cwd=OUTPUT)
        self.ctx.runner.run(command, deadline=DEADLINE)
        return Probe(self.bench.tree.path, output, tools, make, self.ctx)

    def explained(
        self,
        fragment: str,
        make: Mapping[str, str] = GCC,
        toolchain: Toolchain | None = None,
    ) -> tuple[Explanation, ...]:
        probe = self.conf(fragment, make, toolchain)
        wanted = parse_settings(fragment, Path("my.config"))
        return explain(probe, probe.output / ".config", wanted)

    def mended(self, fragment: str, fix: Mapping[str, str], make: Mapping[str, str]) -> None:
        """The fix an explanation offers does what it says, in the eyes of the kernel's conf."""
        fixed = fragment + "".join(f"CONFIG_{name}={value}\n" for name, value in fix.items())
        assert self.explained(fixed, make) == ()


@pytest.fixture(scope="module")
def kconf(ctx: Context, bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Configurator:
    return Configurator(ctx, bench, tmp_path_factory.mktemp("kconf"))


@pytest.fixture
def shim(tmp_path: Path, bench: Workbench) -> Callable[[str, str | None], Toolchain]:
    """A toolchain in which a program is a script, or with ``None`` as good as absent."""

    def make(program: str, script: str | None) -> Toolchain:
        file = tmp_path / "shim"
        file.write_text(f"#!/bin/sh\n{script}\n" if script else "")
        file.chmod(0o755 if script else 0o644)
        return Shimmed(bench.toolchain, (Bind(file, f"/usr/bin/{program}"),))

    return make


Shim = Callable[[str, "str | None"], Toolchain]


def lost_rust(explanations: Sequence[Explanation]) -> Explanation:
    (found,) = explanations
    assert (found.symbol, found.wanted, found.got) == ("RUST", "y", "n")
    assert found.chain[0].place.startswith("init/Kconfig:")
    return found


def told(explanation: Explanation) -> str:
    return "\n".join(f"{cause.text} [{cause.place}]" for cause in explanation.chain)


def test_modversions_without_gendwarfksyms(kconf: Configurator) -> None:
    fragment = RUST + "CONFIG_MODVERSIONS=y\n"
    found = lost_rust(kconf.explained(fragment))
    assert "depends on !MODVERSIONS || GENDWARFKSYMS" in found.summary
    assert "only gendwarfksyms can" in found.summary
    assert "MODVERSIONS=y is what was asked for [my.config:8]" in told(found)
    assert "remove CONFIG_MODVERSIONS=y (my.config:8)" in found.change
    assert found.fix["GENDWARFKSYMS"] == "y"
    kconf.mended(fragment, found.fix, GCC)


def test_randstruct(kconf: Configurator) -> None:
    fragment = RUST + "CONFIG_RANDSTRUCT_FULL=y\n"
    found = lost_rust(kconf.explained(fragment, LLVM))
    assert "depends on !RANDSTRUCT (RANDSTRUCT=y)" in found.summary
    assert "RANDSTRUCT_FULL=y is what was asked for" in told(found)
    assert found.change.startswith("remove CONFIG_RANDSTRUCT_FULL=y")


def test_btf_without_pahole_loses_btf_and_keeps_rust(kconf: Configurator, shim: Shim) -> None:
    (found,) = kconf.explained(RUST + BTF, GCC, shim("pahole", None))
    assert found.symbol == "DEBUG_INFO_BTF"
    assert "pahole is not installed" in found.summary
    assert found.change == "use pahole 1.22 or newer"


def test_btf_with_an_old_pahole(kconf: Configurator, shim: Shim) -> None:
    found = lost_rust(kconf.explained(RUST + BTF, GCC, shim("pahole", "echo v1.22")))
    assert "pahole is 1.22, >= 1.24 is needed" in told(found)
    assert "remove CONFIG_DEBUG_INFO_BTF=y" in found.change
    assert "use pahole 1.24 or newer" in found.change


def test_btf_with_lto(kconf: Configurator) -> None:
    fragment = RUST + BTF + "CONFIG_LTO_CLANG_THIN=y\n"
    found = lost_rust(kconf.explained(fragment, LLVM))
    assert "LTO_CLANG_THIN=y is what was asked for" in told(found)
    assert "remove CONFIG_LTO_CLANG_THIN=y" in found.change


def test_kasan_under_gcc(kconf: Configurator) -> None:
    fragment = RUST + "CONFIG_KASAN=y\n"
    found = lost_rust(kconf.explained(fragment))
    assert "depends on !KASAN || CC_IS_CLANG (KASAN=y, CC_IS_CLANG=n)" in found.summary
    assert "the compiler is not clang" in told(found)
    assert "--debug, or --arch arm64" in found.change
    assert kconf.explained(fragment, LLVM) == ()


def test_cfi_needs_clang(kconf: Configurator) -> None:
    fragment = RUST + "CONFIG_CFI=y\n"
    (found,) = kconf.explained(fragment)
    assert found.symbol == "CFI"
    assert "$(cc-option,-fsanitize=kcfi) is n" in found.summary
    assert "--debug" in found.change
    assert kconf.explained(fragment, LLVM) == ()


def test_cfi_with_kasan_and_an_old_llvm_in_rustc(
    kconf: Configurator, shim: Shim, tmp_path: Path
) -> None:
    script = (
        'case "$*" in *-V*|*--version*) echo "rustc 1.85.1 (4eb161250 2025-03-15)"; '
        'echo "LLVM version: 18.1.8";; *--print*sysroot*) echo /usr;; esac'
    )
    fragment = RUST + "CONFIG_CFI=y\nCONFIG_KASAN=y\nCONFIG_KASAN_GENERIC=y\n"
    found = lost_rust(kconf.explained(fragment, LLVM, shim("rustc", script)))
    assert "depends on !CFI || HAVE_CFI_ICALL_NORMALIZE_INTEGERS_RUSTC" in found.summary
    assert "rustc's LLVM is 18.1.8" in told(found)


def test_rust_src_missing(kconf: Configurator, bench: Workbench, tmp_path: Path) -> None:
    probe = kconf.conf(RUST)
    root = probe.run("rustc --print sysroot").strip()
    empty = tmp_path / "empty"
    empty.mkdir()
    bare = Shimmed(bench.toolchain, (Bind(empty, f"{root}/lib/rustlib/src"),))
    found = lost_rust(kconf.explained(RUST, GCC, bare))
    assert "Source code for the 'core' standard library could not be found" in found.summary
    assert "rust-src" in found.change


@pytest.mark.parametrize(
    ("program", "script", "said", "change"),
    [
        ("bindgen", None, "generator 'bindgen' could not be found", "apt install bindgen"),
        ("bindgen", "echo bindgen 0.60.0", "too old (0.60.0, needed: ", "cargo install"),
        ("rustc", None, "Rust compiler 'rustc' could not be found", "apt install rustc"),
        (
            "rustc",
            'echo "rustc 1.70.0 (90c541806 2023-05-31)"',
            "Rust compiler 'rustc' is too old (1.70.0, needed: ",
            "rustup update",
        ),
        (
            "bindgen",
            'case "$*" in *libclang.h) echo "clang version 13.0.0" >&2;; '
            "*) echo bindgen 99.0.0;; esac",
            "is too old (13.0.0, needed: ",
            "install libclang",
        ),
        (
            "bindgen",
            'case "$*" in *libclang.h) echo "Unable to find libclang" >&2; exit 101;; '
            "*) echo bindgen 99.0.0;; esac",
            "a failure to locate libclang",
            "apt install libclang-dev",
        ),
    ],
    ids=["no-bindgen", "old-bindgen", "no-rustc", "old-rustc", "old-libclang", "no-libclang"],
)
def test_the_rust_toolchain(
    kconf: Configurator, shim: Shim, program: str, script: str | None, said: str, change: str
) -> None:
    found = lost_rust(kconf.explained(RUST, GCC, shim(program, script)))
    assert "depends on RUST_IS_AVAILABLE" in found.summary
    assert said in found.summary
    assert change in found.change
    assert found.fix == {}


def test_a_libclang_of_another_version_costs_nothing(kconf: Configurator, shim: Shim) -> None:
    """The kernel only warns about it (scripts/rust_is_available.sh)."""
    script = (
        'case "$*" in *libclang.h) echo "clang version 18.1.0" >&2;; *) echo bindgen 99.0.0;; esac'
    )
    assert kconf.explained(RUST, LLVM, shim("bindgen", script)) == ()


def test_slub_tiny_drops_kasan(kconf: Configurator) -> None:
    fragment = "CONFIG_64BIT=y\nCONFIG_EXPERT=y\nCONFIG_SYSFS=y\nCONFIG_KASAN=y\n"
    (found,) = kconf.explained(fragment)
    assert found.symbol == "KASAN"
    assert "SYSFS && !SLUB_TINY (SYSFS=y, SLUB_TINY=y)" in found.summary
    assert "tinyconfig turns it on" in found.summary
    assert found.fix == {"SLUB_TINY": "n"}
    kconf.mended(fragment, found.fix, GCC)


def test_a_driver_far_from_a_tiny_kernel(kconf: Configurator) -> None:
    fragment = "CONFIG_64BIT=y\nCONFIG_E1000=y\n"
    (found,) = kconf.explained(fragment)
    assert "E1000 depends on PCI && HAS_IOPORT (PCI=n" in told(found)
    kconf.mended(fragment, found.fix, GCC)


LOSSES = {
    "CONFIG_ARM64_PTR_AUTH=y": "exists for ARCH=arm64 only",
    "CONFIG_CFI_CLANG=y": "the old name of CONFIG_CFI",
    "CONFIG_NO_SUCH_THING=y": "does not exist in this tree",
    "CONFIG_LOG_BUF_SHIFT=99": "must be from 12 to 25",
    "CONFIG_ACPI=m": "is of type bool",
    "CONFIG_DEBUG_INFO=y": "cannot be set by hand: only select turns it on",
    "CONFIG_GCC_VERSION=5": "cannot be set by hand",
    "CONFIG_HAVE_RUST=n": "because X86 selects it",
    "CONFIG_HZ_1000=y": "the choice 'Timer frequency' allows one, and HZ_250 is chosen",
}
"""A setting, and what its explanation must say."""


@pytest.fixture(scope="module")
def losses(kconf: Configurator) -> dict[str, Explanation]:
    ground = ["CONFIG_64BIT=y", "CONFIG_PRINTK=y", "CONFIG_SMP=y"]
    fragment = "\n".join([*ground, *LOSSES, "CONFIG_HZ_250=y", ""])
    return {explanation.symbol: explanation for explanation in kconf.explained(fragment)}


@pytest.mark.parametrize("setting", LOSSES)
def test_other_ways_to_lose_a_setting(losses: dict[str, Explanation], setting: str) -> None:
    found = losses[setting.removeprefix("CONFIG_").split("=")[0]]
    assert LOSSES[setting] in found.summary
    assert found.change


@pytest.mark.parametrize(
    ("make", "goal"),
    [
        (GCC, "tinyconfig"),
        (GCC, "allmodconfig"),
        (LLVM, "defconfig"),
        ({"ARCH": "arm64", "LLVM": "1"}, "defconfig"),
        ({"ARCH": "um"}, "defconfig"),
    ],
    ids=["tiny", "allmod", "llvm", "arm64", "um"],
)
def test_the_whole_tree_is_read_as_the_kernel_reads_it(
    kconf: Configurator, make: Mapping[str, str], goal: str, tmp_path: Path
) -> None:
    """Every symbol's final value follows from what was parsed: no condition lost or misread."""
    fresh = Configurator(kconf.ctx, kconf.bench, tmp_path)
    probe = fresh.conf("", make, goal=goal)
    tree = KconfigTree(probe.tree, probe.environment, probe.run)
    final = {s.symbol: s.value for s in read_settings(probe.output / ".config").values()}
    reader = Recomputed(tree, Values(final, tree), final)
    assert len(tree.symbols) > 15_000
    wrong = [symbol for symbol in tree.symbols if not reader.agrees(symbol)]
    assert wrong == []
    shutil.rmtree(tmp_path)


@dataclass(frozen=True)
class Recomputed:
    """sym_calc_value() of scripts/kconfig/symbol.c, from the parsed tree and the other values.

    What a person may have set cannot be recomputed; it must lie between the selects and the
    conditions. Choices are left out: which member wins is the history of the .config.
    """

    tree: KconfigTree
    values: Values
    final: Mapping[str, str]

    def agrees(self, symbol: str) -> bool:
        definitions = self.tree.definitions(symbol)
        if self.tree.transitional(symbol) or any(d.choice is not None for d in definitions):
            return True
        visible = max((self._prompt(d) for d in definitions), default=NO)
        if self.tree.kind(symbol) in (Kind.BOOL, Kind.TRISTATE):
            return self._tristate_agrees(symbol, definitions, visible)
        if visible:
            return True
        default = next(
            (v.what for d in definitions for v in d.defaults if self._holds(d, v.condition)), None
        )
        computed = self.values.text(default) if isinstance(default, Name) else ""
        return same_value(computed, self.final.get(symbol, ""))

    def _tristate_agrees(
        self, symbol: str, definitions: Sequence[Definition], visible: int
    ) -> bool:
        whole = self.tree.kind(symbol) is Kind.BOOL or self.values.of("MODULES") != "y"

        def promoted(level: int) -> int:
            return YES if level == MODULE and whole else level

        got = LETTERS.index(self.final.get(symbol, "n"))
        selected = promoted(self._reverse(self.tree.selectors(symbol)))
        if visible:
            return selected <= got <= max(promoted(visible), selected)
        implied = promoted(self._reverse(self.tree.implied_by(symbol)))
        computed = self._default(definitions)
        if implied:
            direct = max((self._direct(d) for d in definitions), default=NO)
            computed = min(max(computed, implied), promoted(direct))
        return promoted(max(computed, selected)) == got

    def _default(self, definitions: Sequence[Definition]) -> int:
        for definition in definitions:
            for default in definition.defaults:
                if condition := self._holds(definition, default.condition):
                    return min(self.values.tristate(default.what), condition)
        return NO

    def _holds(self, definition: Definition, condition: Expr) -> int:
        return min(self._direct(definition), self.values.tristate(condition))

    def _direct(self, definition: Definition) -> int:
        return min((self.values.tristate(c.expr) for c in definition.conditions), default=YES)

    def _prompt(self, definition: Definition) -> int:
        if definition.prompt is None:
            return NO
        visible = [self.values.tristate(c.expr) for c in definition.visible]
        return min([self._direct(definition), *visible])

    def _reverse(self, selectors: Sequence[Selector]) -> int:
        return max(
            (self._holds(s.definition, All((Name(s.by), s.condition))) for s in selectors),
            default=NO,
        )
