from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdrv.core.errors import UsageError
from kdrv.kernel.kconfig import (
    Setting,
    compare,
    merge,
    parse_settings,
    quote,
    read_settings,
    unquote,
)

FRAGMENT = """\
# a comment
CONFIG_PCI=y
# CONFIG_ACPI is not set

CONFIG_KUNIT=m
CONFIG_NR_CPUS=64
CONFIG_PHYSICAL_START=0x1000000
CONFIG_CMDLINE="a \\"b\\" \\\\c"
CONFIG_LOCALVERSION=""
CONFIG_OF=n
"""


def test_every_form_of_a_setting_is_read() -> None:
    values = {s.symbol: s.value for s in parse_settings(FRAGMENT).values()}
    assert values == {
        "PCI": "y",
        "ACPI": "n",
        "KUNIT": "m",
        "NR_CPUS": "64",
        "PHYSICAL_START": "0x1000000",
        "CMDLINE": 'a "b" \\c',
        "LOCALVERSION": "",
        "OF": "n",
    }


def test_a_setting_knows_its_place() -> None:
    setting = parse_settings(FRAGMENT, Path("my.config"))["KUNIT"]
    assert (setting.place, str(setting)) == ("my.config:5", "CONFIG_KUNIT=m")


@pytest.mark.parametrize(
    "line",
    ["PCI=y", "CONFIG_PCI", "CONFIG_PCI=yes", 'CONFIG_CMDLINE="open', "CONFIG_A-B=y", "garbage"],
)
def test_a_malformed_line_is_named_with_file_and_line(line: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_settings(f"CONFIG_PCI=y\n{line}\n", Path("my.config"))
    assert "my.config:2" in raised.value.message
    assert line in raised.value.message
    assert raised.value.expected and raised.value.remedy


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_settings(tmp_path / "none.config")
    binary = tmp_path / "binary.config"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not a text file"):
        read_settings(binary)


def test_a_later_fragment_wins_and_remembers() -> None:
    first = parse_settings("CONFIG_RUST=y\nCONFIG_PCI=y\n", Path("base.config"))
    second = parse_settings("CONFIG_RUST=n\n", Path("my.config"))
    merged = merge(first, second)
    assert (merged["RUST"].value, merged["RUST"].place) == ("n", "my.config:1")
    assert [s.place for s in merged["RUST"].replaced] == ["base.config:1"]
    assert merged["PCI"].replaced == ()


def test_a_later_line_wins_too() -> None:
    settings = parse_settings("CONFIG_A=y\nCONFIG_A=n\nCONFIG_A=m\n", Path("f"))
    assert settings["A"].value == "m"
    assert [s.value for s in settings["A"].replaced] == ["y", "n"]


def test_compare_finds_what_is_missing() -> None:
    requested = parse_settings(
        "CONFIG_A=y\nCONFIG_B=y\nCONFIG_C=n\nCONFIG_D=n\nCONFIG_E=0X10\nCONFIG_F=m\nCONFIG_G=3\n"
    )
    final = parse_settings("CONFIG_A=y\nCONFIG_D=y\nCONFIG_E=0x10\nCONFIG_F=y\nCONFIG_G=4\n")
    missing = [(one.setting.symbol, one.got) for one in compare(requested, final)]
    assert missing == [("B", "n"), ("D", "y"), ("F", "y"), ("G", "4")]


def test_an_empty_string_is_there_when_the_symbol_is_not() -> None:
    assert compare(parse_settings('CONFIG_A=""\n'), {}) == ()


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])))
def test_quoting_comes_back(text: str) -> None:
    assert unquote(quote(text)) == text


values = st.sampled_from(["y", "m", "n", "42", "0x2a", "text", 'a"b\\', ""])
settings = st.lists(
    st.builds(Setting, st.from_regex(r"[A-Z][A-Z0-9_]{0,8}", fullmatch=True), values),
    unique_by=lambda setting: setting.symbol,
)


@given(settings)
def test_a_setting_written_out_is_read_back(wanted: list[Setting]) -> None:
    back = parse_settings("\n".join(map(str, wanted)))
    assert [(s.symbol, s.value) for s in back.values()] == [(s.symbol, s.value) for s in wanted]
