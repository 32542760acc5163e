from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from kdrv.core.errors import UsageError
from kdrv.kernel.kconfig_expr import MODULE, NO, YES, Compare, Expr, Kind, Name, Values
from kdrv.kernel.kconfig_tree import KconfigTree

TOP = """\
mainmenu "Test"

cc-option = $(success,$(CC) $(1))
success = $(shell,{ $(1); } && echo y || echo n)
cc-name := $(shell,$(CC) --name)

source "arch/$(SRCARCH)/Kconfig"

menuconfig MODULES
	bool "Modules"
	modules
	help
		A help text that ends in something like a keyword:
		modules

config USB
	tristate "USB"

config GADGET
	tristate "Gadget"

config DUAL
	tristate "Dual"
	depends on USB if !GADGET
	depends on GADGET if (USB = n || MODULES)

config OLD_NAME
	bool
	transitional
	help
		Was renamed.

config NEW_NAME
	bool "New name"
	default OLD_NAME
	depends on $(cc-option,-fnew) && \\
		USB

menu "Drivers"
	depends on USB
	visible if MODULES

if GADGET

config DRIVER
	tristate "Driver" if NEW_NAME
	depends on MODULES
	select HELPER if USB=y
	imply EXTRA

endif

endmenu

config HELPER
	tristate

config EXTRA
	bool "Extra"

config NUMBER
	int "Number"
	range 1 64 if USB
	range 1 8
	default 4

config COMPILER
	string
	default "$(cc-name)"

choice
	prompt "Mode"
	default SLOW

config FAST
	bool "Fast"

config SLOW
	bool "Slow"

endchoice
"""


def at(text: str) -> str:
    """The place of the line of ``TOP`` that starts so."""
    lines = [line.strip() for line in TOP.splitlines()]
    return f"Kconfig:{next(n for n, line in enumerate(lines, 1) if line.startswith(text))}"


@pytest.fixture
def ran() -> list[str]:
    return []


@pytest.fixture
def tree(tmp_path: Path, ran: list[str]) -> KconfigTree:
    (tmp_path / "arch/x86").mkdir(parents=True)
    (tmp_path / "Kconfig").write_text(TOP)
    (tmp_path / "arch/x86/Kconfig").write_text("config X86\n\tdef_bool y\n")

    def run(command: str) -> str:
        ran.append(command)
        return "GCC\n" if "--name" in command else "y\n"

    return KconfigTree(tmp_path, {"SRCARCH": "x86", "CC": "gcc"}, run)


def conditions(tree: KconfigTree, symbol: str) -> list[tuple[str, str, str]]:
    (definition,) = tree.definitions(symbol)
    found = (*definition.conditions, *definition.visible)
    return [(c.how, tree.written(c.expr), str(c.place)) for c in found]


def test_types_and_sources(tree: KconfigTree) -> None:
    assert tree.kind("X86") is Kind.BOOL
    assert tree.kind("USB") is Kind.TRISTATE
    assert tree.kind("NUMBER") is Kind.INT
    assert tree.kind("NOWHERE") is Kind.UNKNOWN
    assert str(tree.definitions("X86")[0].place) == "arch/x86/Kconfig:1"


def test_depends_on_with_a_condition(tree: KconfigTree) -> None:
    assert [text for _, text, _ in conditions(tree, "DUAL")] == [
        "USB || GADGET=y",
        "GADGET || (!(USB=n) && MODULES=n)",
    ]


@pytest.mark.parametrize("usb", "nmy")
@pytest.mark.parametrize("gadget", "nmy")
@pytest.mark.parametrize("modules", "ny")
def test_depends_on_with_a_condition_means_what_the_kernel_means(
    tree: KconfigTree, usb: str, gadget: str, modules: str
) -> None:
    """menu_add_dep(): where the condition is n there is no dependency, else the expression."""
    worth = {"n": NO, "m": MODULE, "y": YES}
    values = Values({"USB": usb, "GADGET": gadget, "MODULES": modules}, tree)
    first, second = (c.expr for c in tree.definitions("DUAL")[0].conditions)
    assert values.tristate(first) == (YES if gadget == "y" else worth[usb])
    asks = usb == "n" or modules == "y"
    assert values.tristate(second) == (worth[gadget] if asks else YES)


def test_conditions_come_from_everything_around_with_their_lines(tree: KconfigTree) -> None:
    menu = int(at('menu "Drivers"').split(":")[1])
    assert conditions(tree, "DRIVER") == [
        ("depends on", "MODULES", at("depends on MODULES")),
        ("if", "GADGET", at("if GADGET")),
        ("depends on", "USB", f"Kconfig:{menu + 1}"),
        ("prompt if", "NEW_NAME", at('tristate "Driver')),
        ("visible if", "MODULES", at("visible if")),
    ]


def test_a_joined_line_counts_from_its_first(tree: KconfigTree) -> None:
    assert conditions(tree, "NEW_NAME") == [
        ("depends on", "$(cc-option,-fnew) && USB", at("depends on $(cc-option"))
    ]


def test_selectors_and_implications(tree: KconfigTree) -> None:
    (selector,) = tree.selectors("HELPER")
    assert (selector.by, str(selector.condition), str(selector.place)) == (
        "DRIVER",
        "USB=y",
        at("select HELPER"),
    )
    assert [s.by for s in tree.implied_by("EXTRA")] == ["DRIVER"]
    assert tree.selectors("EXTRA") == ()


def test_transitional_symbols_name_their_heirs(tree: KconfigTree) -> None:
    assert tree.transitional("OLD_NAME") == ("NEW_NAME",)
    assert tree.transitional("NEW_NAME") == ()


def test_ranges_and_defaults(tree: KconfigTree) -> None:
    (definition,) = tree.definitions("NUMBER")
    shown = [(str(r.what), str(r.condition), str(r.place)) for r in definition.ranges]
    assert shown == [("1 <= 64", "USB", at("range 1 64")), ("1 <= 8", "y", at("range 1 8"))]
    assert [str(d.what) for d in definition.defaults] == ["4"]


def test_choices(tree: KconfigTree) -> None:
    number = tree.definitions("FAST")[0].choice
    assert number is not None
    choice = tree.choice(number)
    assert (choice.prompt, choice.members) == ("Mode", ("FAST", "SLOW"))
    assert [str(d.what) for d in choice.defaults] == ["SLOW"]
    assert tree.definitions("USB")[0].choice is None


def test_nothing_runs_before_somebody_asks(tree: KconfigTree, ran: list[str]) -> None:
    assert tree.definitions("NEW_NAME") and ran == []
    values = Values({"USB": "m", "COMPILER": "GCC"}, tree)
    expr = tree.definitions("NEW_NAME")[0].conditions[0].expr
    assert values.tristate(expr) == MODULE
    assert values.tristate(expr) == MODULE
    assert ran == ["{ gcc -fnew; } && echo y || echo n"]


def test_a_check_made_for_a_variable_goes_by_its_name(tree: KconfigTree) -> None:
    default = tree.definitions("COMPILER")[0].defaults[0].what
    assert tree.written(default) == "$(cc-name)"
    assert isinstance(default, Name)
    assert Values({}, tree).text(default) == "GCC"


def test_a_broken_kconfig_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "Kconfig").write_text('config A\n\tboool "A"\n')
    with pytest.raises(UsageError, match=r"Kconfig:2.*boool"):
        KconfigTree(tmp_path, {}, lambda command: "")
    with pytest.raises(UsageError, match="No such file"):
        KconfigTree(tmp_path / "nowhere", {}, lambda command: "")


class Kinds:
    """Types for the evaluation of bare expressions."""

    def __init__(self, kinds: Mapping[str, Kind]) -> None:
        self._kinds = kinds

    def kind(self, name: str) -> Kind:
        return self._kinds.get(name, Kind.UNKNOWN)

    def expand(self, text: str) -> str:
        return text


@pytest.mark.parametrize(
    ("expr", "worth"),
    [
        (Compare("=", Name("T"), Name("m")), YES),
        (Compare(">=", Name("T"), Name("y")), NO),
        (Compare("<", Name("I"), Name("9")), NO),
        (Compare(">", Name("I"), Name("9")), YES),
        (Compare("=", Name("H"), Name("0x1F")), YES),
        (Compare("=", Name("S"), Name("text", constant=True)), YES),
        (Compare("!=", Name("S"), Name("", constant=True)), YES),
        (Compare("=", Name("NOWHERE"), Name("n")), NO),
        (Compare("!=", Name("NOWHERE"), Name("y")), YES),
        (Name("NOWHERE"), NO),
        (Name("I"), NO),
        (Name("y", constant=True), YES),
        (Name("T"), MODULE),
    ],
)
def test_relations_compare_as_in_the_kernel(expr: Expr, worth: int) -> None:
    kinds = {"T": Kind.TRISTATE, "I": Kind.INT, "H": Kind.HEX, "S": Kind.STRING}
    values = Values({"T": "m", "I": "10", "H": "0x1f", "S": "text"}, Kinds(kinds))
    assert values.tristate(expr) == worth
