"""Fault profiles in TOML."""

import tomllib

import pytest

from kdrv.core.errors import UsageError
from kdrv.sim.faults import FaultKind, Rule
from kdrv.sim.profiles import PROFILES, decode, nanoseconds, profile, schema

TEXT = """
description = "a cable with a loose contact"
[[rule]]
kind = "irq_lost"
rate = 0.25
device = "edu"
start = "5ms"
stop = "1.5s"
[[rule]]
kind = "reg_stuck"
numbers = [0, 7]
register = "status"
lasts = "20us"
most = 1
"""
RULES = (
    Rule(FaultKind.IRQ_LOST, 0.25, device="edu", start=5_000_000, stop=1_500_000_000),
    Rule(FaultKind.REG_STUCK, numbers=(0, 7), register="status", lasts=20_000, most=1),
)


def test_a_profile_from_a_file_and_from_a_table(tmp_path):
    path = tmp_path / "loose.toml"
    path.write_text(TEXT)
    assert profile(str(path)) == RULES
    assert profile("loose", {"loose": tomllib.loads(TEXT)}) == RULES


@pytest.mark.parametrize("name", PROFILES)
def test_shipped_profiles_have_names(name):
    assert profile(name) == PROFILES[name]


def test_an_own_profile_goes_before_a_shipped_one():
    assert profile("lossy", {"lossy": {"rule": []}}) == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[rule]]\nkind = "irq_eaten"\nrate = 1.0', r"irq_eaten.*\$\.rule\[0\]\.kind"),
        ('[[rule]]\nkind = "irq_lost"\nrate = 1.5', r"<= 1.*\$\.rule\[0\]\.rate"),
        ('[[rule]]\nkind = "irq_lost"', r"either.*\$\.rule\[0\]"),
        ('[[rule]]\nkind = "irq_lost"\nrate = 1\nnumbers = [1]', "either"),
        ('[[rule]]\nkind = "irq_lost"\nrate = 1\nstart = "5"', r"\$\.rule\[0\]\.start"),
        ('[[rule]]\nkind = "irq_lost"\nrate = 1\nstart = "5s"\nstop = "1s"', "cannot start"),
        ('[[rule]]\nkind = "irq_lost"\nnumbers = [-1]', r"\$\.rule\[0\]\.numbers"),
        ('[[rule]]\nkind = "irq_lost"\nrate = 1\ncolour = 1', "colour"),
        ("rules = []", "rule"),
    ],
)
def test_a_mistake_is_named_with_its_place(text, words):
    with pytest.raises(UsageError, match="(?s)^here: .*" + words):
        decode(tomllib.loads(text), "here")


@pytest.mark.parametrize(("name", "words"), [("no.toml", "No such file"), ("rainy", "no fault p")])
def test_a_profile_that_is_not_there(name, words):
    with pytest.raises(UsageError, match=words):
        profile(name)


def test_a_file_that_is_no_toml(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text("rule = [")
    with pytest.raises(UsageError, match=r"bad\.toml is no valid TOML"):
        profile(str(path))


@pytest.mark.parametrize(
    ("words", "number"),
    [("0s", 0), ("7ns", 7), ("1.5us", 1500), ("5ms", 5_000_000), ("2s", 2_000_000_000)],
)
def test_durations(words, number):
    assert nanoseconds(words) == number


def test_the_schema_knows_the_kinds_and_limits():
    definitions = schema()["$defs"]
    rule = definitions["RuleTable"]["properties"]
    assert rule["rate"]["maximum"] == 1
    assert set(definitions["FaultKind"]["enum"]) == set(FaultKind)
    assert definitions["ProfileTable"]["required"] == ["rule"]
