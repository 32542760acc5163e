"""A policy in plain words, with the reasons: ``kdrv gate --explain``."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import fill
from typing import Any

from kdrv.gate import presets
from kdrv.gate.policy import NOTICES, Policy
from kdrv.gate.rules import ANY

WIDTH = 96

_CONTRACTS = {
    "each": "{name} must build after every patch.",
    "series": "{name} must build at the end of the series; broken on the way is a warning.",
    "notice": "{name} must build, or its break is announced by `{trailer}: reason`: a warning.",
}
_SEVERITIES = {
    "fail": "{what} stop the series.",
    "warn": "{what} are a warning.",
    "pass": "{what} are shown and stop nothing.",
}
_FINDINGS = {
    "checkpatch-error": "ERRORs of checkpatch.pl",
    "checkpatch-warning": "WARNINGs of checkpatch.pl",
    "checkpatch-check": "CHECKs of checkpatch.pl --strict",
    "rustfmt": "New places that rustfmt would write differently",
    "clippy": "New messages of clippy",
    "rustdoc": "New messages of rustdoc",
    "kernel-doc": "New messages of kernel-doc",
    "sparse": "New messages of sparse",
    "warnings": "New warnings of the compilers (W=1) and of modpost",
    "config": "Symbols that vanish from .config",
    "churn": "Exceeded budgets of changed lines",
    "public-api": "Exceeded budgets of changed public items",
    "unsafe": "Exceeded budgets of new unsafe code",
}
_BUDGETS = {
    "churn.core": "changed lines of core code",
    "churn.abstractions": "changed lines of Rust abstractions",
    "churn.users": "changed lines of drivers that are there already",
    "churn.public-api": "public items of rust/kernel changed or removed",
    "unsafe.new": "new unsafe blocks, functions and impls",
}
_ALWAYS = (
    "Every patch applies; every file and link of it stays inside the tree.",
    "Every patch has its author's Signed-off-by, and well-formed trailers "
    "(Documentation/process/submitting-patches.rst).",
    "A Fixes tag names a commit that the base has, by 12 digits or more and its subject.",
)
_UNITS = {"memory": " MiB of memory", "disk": " MiB of disk"}


def explain(policy: Policy) -> str:
    """The policy in plain words: each rule, why it is so, and where it is written."""
    parts = [fill(f"Policy {policy.name}: {policy.rules.about}", WIDTH)]
    parts.append("\n".join(["What always holds", *(_line(one, "  ") for one in _ALWAYS)]))
    for title, section, words in _SECTIONS:
        told = []
        for key in policy.keys(section):
            told.append(_line(words(key, policy.value(key)), "  "))
            if why := policy.why(key):
                told.append(_line(f"Why: {why}", "    "))
            told.append(f"    From: {policy.origins[key]}, {key}")
        parts.append("\n".join([title, *told]))
    others = [f"{name} ({presets.table(name)['about']})" for name in presets.names()]
    parts.append("\n".join(["Presets", *(_line(one, "  ") for one in others)]))
    return "\n\n".join(parts) + "\n"


def _line(text: str, indent: str) -> str:
    return fill(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_on_hyphens=False,
        break_long_words=False,
    )


def _scope(_: str, value: list[str]) -> str:
    if ANY in value:
        return "A series may touch any file."
    return f"A series may touch: {', '.join(value)}."


def _build(key: str, value: str) -> str:
    language = key.partition(".")[2]
    name = {"rust": "The kernel with Rust", "c": "The kernel without Rust"}[language]
    return _CONTRACTS[value].format(name=name, trailer=NOTICES[language])


def _budget(key: str, value: Any) -> str:
    if key == "unsafe.uncommented":
        many = "Any number" if value == ANY else f"At most {value}"
        return (
            f"{many} of new unsafe blocks, functions and impls in a patch without a SAFETY comment."
        )
    if value == ANY:
        return f"No limit to {_BUDGETS[key]}."
    return f"At most {value} {_BUDGETS[key]} for each driver that the series adds."


def _ignore(_: str, value: list[str]) -> str:
    return f"Not asked of checkpatch.pl: {', '.join(value) or 'nothing'}."


def _severity(key: str, value: str) -> str:
    return _SEVERITIES[value].format(what=_FINDINGS[key.partition(".")[2]])


def _limit(key: str, value: int) -> str:
    name = key.partition(".")[2]
    return f"At most {value}{_UNITS.get(name, f' {name}')} for one job."


def _category(key: str, value: list[str]) -> str:
    return f"{key.partition('.')[2]}: {' '.join(value)}"


_SECTIONS: tuple[tuple[str, str, Callable[[str, Any], str]], ...] = (
    ("Where a series may work", "scope", _scope),
    ("What must build", "build", _build),
    ("How much may change", "churn", _budget),
    ("Unsafe code", "unsafe", _budget),
    ("checkpatch.pl", "checkpatch", _ignore),
    ("What findings do", "severity", _severity),
    ("What a job may use", "limits", _limit),
    ("Categories of paths, the first that has a path counts", "categories", _category),
)
