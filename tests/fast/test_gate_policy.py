"""The policy of the gate: presets, kdrv.toml, citations, scope and churn."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from kdrv.core.errors import UsageError
from kdrv.gate import presets
from kdrv.gate.churn import added_drivers, classify, judge_churn, judge_scope
from kdrv.gate.policy import Policy, judge_red, load_policy, notice
from kdrv.gate.policy_words import explain
from kdrv.gate.result import Outcome
from kdrv.gate.series import Change, Patch, Status

from .gate_repo import History

PATCH = Patch(2, "c" * 40, "b" * 40, "a" * 40, "subject", "A <a@b.org>", "subject\n", ())


def _policy(tmp_path: Path, text: str, preset: str | None = None) -> Policy:
    path = tmp_path / "kdrv.toml"
    path.write_text(text)
    return load_policy(path, preset)


@pytest.mark.parametrize("name", presets.names())
def test_every_rule_of_every_preset_has_a_reason(name: str) -> None:
    policy = load_policy(None, name)
    assert policy.name == name
    silent = [key for key in policy.origins if not policy.why(key)]
    assert silent == []


@pytest.mark.parametrize("name", presets.names())
def test_explain_tells_every_rule_with_its_place(name: str) -> None:
    policy = load_policy(None, name)
    told = explain(policy)
    for key, origin in policy.origins.items():
        assert f"From: {origin}, {key}" in told
    assert max(map(len, told.splitlines())) <= 100


def test_a_rule_of_the_file_is_cited_by_its_line_and_another_by_its_preset(tmp_path: Path) -> None:
    policy = _policy(
        tmp_path,
        '# ours\n[project]\nname = "x"\n\n[policy]\npreset = "driver"\nbuild.rust = "series"\n'
        '\n[policy.scope]\nallow = [\n  "docs",\n]\n[policy.limits]\nminutes = 5\n',
    )
    assert policy.cite("build.rust") == 'kdrv.toml:7: rust = "series"'
    assert policy.cite("scope.allow") == 'kdrv.toml:10: allow = ["docs"]'
    assert policy.cite("limits.minutes") == "kdrv.toml:14: minutes = 5"
    assert policy.cite("churn.public-api") == "preset driver: churn.public-api = 0"
    assert policy.cite("build.c") == 'preset default: build.c = "each"'
    assert policy.name == "driver with kdrv.toml"
    assert policy.rules.limits.minutes == 5


def test_a_preset_on_the_command_line_goes_before_the_files(tmp_path: Path) -> None:
    policy = _policy(tmp_path, '[policy]\npreset = "driver"\n', "relaxed")
    assert (policy.name, policy.value("build.rust")) == ("relaxed", "notice")


def test_a_file_without_a_policy_leaves_the_preset(tmp_path: Path) -> None:
    assert _policy(tmp_path, '[project]\nname = "x"\n') == load_policy()


def test_a_reason_does_not_outlive_its_value(tmp_path: Path) -> None:
    policy = _policy(
        tmp_path,
        '[policy.build]\nrust = "series"\nc = "series"\n[policy.why]\n"build.c" = "so there"\n',
    )
    assert policy.why("build.rust") == ""
    assert policy.why("build.c") == "so there"
    assert "Why: so there\n    From: kdrv.toml:3, build.c" in explain(policy)


@pytest.mark.parametrize(
    ("text", "says", "expected"),
    [
        ("\n[policy]\nx = 1\n", ":3: there is no rule x", "preset, about, scope"),
        ("[policy.build]\nfoo = 3\n", ":2: there is no rule build.foo", "rust, c"),
        ('[policy.build]\n\nrust = "maybe"\n', ":3: build.rust: Invalid", 'rust = "each"'),
        ('[policy]\nscope.allow = ["drivr"]\n', ":2: there is no category 'drivr'", "driver"),
        ("[policy.limits]\nmemory = 0\n", ":2: limits.memory: Expected `int` >= 1", "8192"),
        ("[policy.churn]\ncore = -1\n", ":2: churn.core: Expected `int` >= 0", "any"),
        ('[policy.why]\n"build.go" = "x"\n', ":2: a reason for 'build.go'", "build.rust"),
        ("[policy]\nbuild = 3\n", ":2: build: Expected `object`", "a table"),
        ("[policy]\npreset = 3\n", ":2: the preset is not a name", "presets"),
        ('[policy]\npreset = "nice"\n', "no preset 'nice'", "default, abstractions"),
        ("policy = 3\n", "policy is not a table", "presets"),
        ("[policy\n", "no valid TOML", "TOML 1.0"),
    ],
)
def test_a_mistake_is_named_with_its_line(
    tmp_path: Path, text: str, says: str, expected: str
) -> None:
    with pytest.raises(UsageError) as raised:
        _policy(tmp_path, text)
    assert says in raised.value.message
    assert expected in raised.value.expected


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the policy"):
        load_policy(tmp_path / "kdrv.toml")


def test_a_policy_travels_and_is_known_by_what_it_says(tmp_path: Path) -> None:
    policy = _policy(tmp_path, "[policy.churn]\ncore = 5\n")
    assert pickle.loads(pickle.dumps(policy)) == policy
    assert policy.identity == _policy(tmp_path, "[policy.churn]\ncore = 5\n").identity
    assert policy.identity != _policy(tmp_path, "[policy.churn]\ncore = 6\n").identity
    assert policy.identity != _policy(tmp_path, "\n[policy.churn]\ncore = 5\n").identity


@pytest.mark.parametrize(
    ("path", "category"),
    [
        ("drivers/net/phy/ax88796b_rust.c", "driver"),
        ("drivers/base/core.c", "core"),
        ("drivers/Makefile", "core"),
        ("drivers/misc/Makefile", "driver"),
        ("samples/rust/rust_minimal.rs", "driver"),
        ("rust/kernel/pci.rs", "abstractions"),
        ("rust/helpers/pci.c", "abstractions"),
        ("rust/syn/lib.rs", "vendored"),
        ("include/uapi/linux/fs.h", "uapi"),
        ("include/linux/fs.h", "core"),
        ("fs/drivers/a.c", "core"),
        ("Documentation/rust/index.rst", "docs"),
        ("Documentation/devicetree/bindings/a.yaml", "devicetree"),
        ("MAINTAINERS", "maintainers"),
        ("tools/MAINTAINERS", "tools"),
        ("new-at-the-top", "core"),
    ],
)
def test_every_path_has_a_category(path: str, category: str) -> None:
    assert classify(load_policy(), path) == category


def test_a_category_of_ones_own_is_tried_first(tmp_path: Path) -> None:
    policy = _policy(tmp_path, '[policy.categories]\nphy = ["/drivers/net/phy/"]\n')
    assert classify(policy, "drivers/net/phy/a.c") == "phy"
    assert classify(policy, "drivers/net/a.c") == "driver"


def test_scope_names_the_files_outside_and_the_line(tmp_path: Path) -> None:
    policy = _policy(tmp_path, '[policy.scope]\nallow = ["docs", "/drivers/net/"]\n')
    inside = Change("drivers/net/a.c", Status.MODIFIED, 1, 1)
    moved = Change("drivers/net/b.c", Status.RENAMED, 0, 0, old="lib/b.c")
    patch = replace(PATCH, changes=(inside, moved))
    check = judge_scope(policy, patch)
    assert check.outcome is Outcome.FAIL
    assert [one.file for one in check.diagnostics] == ["lib/b.c"]
    assert check.policy.startswith("kdrv.toml:2: allow = ")
    assert check.summary == "touches what is out of scope: lib/b.c"
    assert check.diagnostics[0].message == "out of scope, this is of core"
    assert judge_scope(policy, replace(PATCH, changes=(inside,))).outcome is Outcome.PASS
    assert judge_scope(load_policy(), patch).outcome is Outcome.PASS


C_DRIVER = '#include <linux/module.h>\n\nMODULE_LICENSE("GPL");\n'
RUST_DRIVER = "use kernel::prelude::*;\n\nkernel::module_pci_driver! {\n    type: A,\n}\n"


@pytest.fixture
def history(tmp_path: Path) -> History:
    history = History(tmp_path / "linux")
    history.commit(
        {
            "drivers/misc/old.c": C_DRIVER + "int a;\n" * 10,
            "drivers/misc/Makefile": "obj-y += old.o\n",
            "kernel/fork.c": "int b;\n" * 10,
        }
    )
    return history


def test_added_drivers_are_those_new_files_that_declare_one(history: History) -> None:
    history.commit({"drivers/misc/new.c": C_DRIVER, "drivers/misc/new-helper.c": "int c;\n"})
    history.commit({"drivers/misc/r.rs": RUST_DRIVER, "drivers/misc/gone.c": C_DRIVER})
    history.commit({"drivers/misc/gone.c": None, "kernel/x.c": C_DRIVER})
    history.git("mv", "drivers/misc/new.c", "drivers/misc/newer.c")
    history.git("mv", "drivers/misc/old.c", "drivers/misc/older.c")
    history.commit({})
    found = added_drivers(load_policy(), history.repo, history.series())
    assert found == ("drivers/misc/newer.c", "drivers/misc/r.rs")


def test_churn_is_counted_by_patch_and_grows_with_the_drivers(
    history: History, tmp_path: Path
) -> None:
    policy = _policy(tmp_path, "[policy.churn]\ncore = 3\nusers = 0\n")
    history.commit({"kernel/fork.c": "int b;\n" * 12})
    history.commit({"kernel/fork.c": "int b;\n" * 10, "drivers/misc/Makefile": "obj-y += x.o\n"})
    core, abstractions, users = judge_churn(policy, history.repo, history.series())
    assert (core.name, core.outcome) == ("churn core", Outcome.WARN)
    assert core.summary == "4 of at most 3 changed lines"
    assert core.policy == "kdrv.toml:2: core = 3"
    assert core.detail == ("4 kernel/fork.c",)
    assert (abstractions.outcome, abstractions.policy) == (Outcome.PASS, "")
    assert users.outcome is Outcome.PASS
    history.commit({"drivers/misc/a.c": C_DRIVER, "drivers/misc/b.rs": RUST_DRIVER})
    core, _, users = judge_churn(policy, history.repo, history.series())
    assert (core.outcome, core.summary) == (
        Outcome.PASS,
        "4 of at most 6 for 2 added drivers changed lines",
    )
    history.commit({"drivers/misc/old.c": C_DRIVER})
    *_, users = judge_churn(policy, history.repo, history.series())
    assert (users.outcome, users.detail) == (Outcome.WARN, ("10 drivers/misc/old.c",))


def _says(trailer: str) -> Patch:
    return replace(PATCH, message=f"subject\n\nBreaks-Rust: not here\n\n{trailer}\nCc: a@b.c\n")


@pytest.mark.parametrize(
    ("contract", "trailer", "last", "outcome"),
    [
        ("each", "Breaks-Rust: mended next week", False, Outcome.FAIL),
        ("series", "", False, Outcome.WARN),
        ("series", "", True, Outcome.FAIL),
        ("notice", "", True, Outcome.FAIL),
        ("notice", "Breaks-Rust:", True, Outcome.FAIL),
        ("notice", "Breaks-C: not this one", True, Outcome.FAIL),
        ("notice", "Breaks-Rust: mended next week", True, Outcome.WARN),
    ],
)
def test_what_a_red_lane_means(
    tmp_path: Path, contract: str, trailer: str, last: bool, outcome: Outcome
) -> None:
    policy = _policy(tmp_path, f'[policy.build]\nrust = "{contract}"\n')
    judged, reason, cited = judge_red(policy, "rust", _says(trailer), last=last)
    assert judged is outcome
    assert cited == f'kdrv.toml:2: rust = "{contract}"'
    assert ("mended next week" in reason) == (outcome is Outcome.WARN and contract == "notice")


def test_a_notice_stands_in_the_last_paragraph() -> None:
    assert notice("rust", _says("Breaks-Rust: why not")) == "why not"
    assert notice("rust", _says("")) == ""
    noted = replace(PATCH, message="s\n\nBreaks-Rust: it must\n---\nv2:\n\nBreaks-C: no\n")
    assert (notice("rust", noted), notice("c", noted)) == ("it must", "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[policy]\nwhy = 3\n", "why is not a table"),
        ("[policy]\nx = " + "[" * 5000, "no valid TOML"),
        ("# a\u2028b\x85c\n[policy.build]\nrust = 3\n", ":3"),
    ],
    ids=["why", "deep", "separators"],
)
def test_odd_text_is_said_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "kdrv.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=words):
        load_policy(path, None)
