"""What is expected of a series: ``[policy]`` of a kdrv.toml on top of a preset.

The file may be a driver project's or the kernel tree's own, with nothing but ``[policy]`` in it.
Every rule has a key such as ``build.rust``, knows the line it comes from, and has a reason in
words: ``[policy.why]`` gives one for the file's own rules, ``"build.rust" = "…"``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from kdrv.core.errors import UsageError
from kdrv.core.store import digest
from kdrv.gate import presets
from kdrv.gate.result import Outcome
from kdrv.gate.rules import ANY, Contract, Rules, Severity
from kdrv.gate.series import Patch

NOTICES = {"rust": "Breaks-Rust", "c": "Breaks-C"}
"""The trailer by which a patch announces that it breaks a language's build, and why."""

_ALL_RULES = "correct it; every rule, in words: kdrv gate --explain --repo /"
"""Nowhere near the file that is wrong."""


@dataclass(frozen=True)
class Policy:
    """The rules of one run. ``origins`` has the place of each by its key."""

    name: str
    rules: Rules
    origins: Mapping[str, str]

    @property
    def identity(self) -> str:
        """The same for policies that say the same of everything: verdict, reason and citation."""
        return digest("policy", msgspec.to_builtins(self.rules), dict(self.origins))

    def cite(self, key: str) -> str:
        """The line of the policy that says so: ``kdrv.toml:7: rust = "each"``, or
        ``preset driver: build.rust = "each"``."""
        value = self.value(key)
        if self.origins[key].startswith("preset "):
            return f"{self.origins[key]}: {_toml(key, value)}"
        return f"{self.origins[key]}: {_toml(key.partition('.')[2], value)}"

    def keys(self, section: str) -> tuple[str, ...]:
        """The keys of a section's rules, in order."""
        return tuple(f"{section}.{name}" for name in msgspec.to_builtins(self.rules)[section])

    def value(self, key: str) -> Any:
        """A rule's value as TOML has it."""
        section, _, name = key.partition(".")
        return msgspec.to_builtins(self.rules)[section][name]

    def why(self, key: str) -> str:
        """The reason given for a rule, empty where its author gave none."""
        return self.rules.why.get(key, "")

    def outcome(self, key: str) -> Outcome:
        """What findings come to: ``key`` is one of ``[severity]``'s, such as ``kernel-doc``."""
        severity: Severity = getattr(self.rules.severity, key.replace("-", "_"))
        return Outcome(severity.value)


def load_policy(path: Path | None = None, preset: str | None = None) -> Policy:
    """The policy of a kdrv.toml (``None``: there is none) on a preset.

    ``preset`` goes before the file's own choice; without either it is ``default``. Raises
    :class:`UsageError`, with the line, for what the file has wrong.
    """
    text = _read(path) if path else ""
    own = _table(path, text) if path else {}
    chosen = preset or own.pop("preset", presets.DEFAULT)
    own.pop("preset", None)
    if not isinstance(chosen, str):
        raise _wrong(path, text, "preset", "the preset is not a name")
    name = chosen + (f" with {path.name}" if path and own else "")
    layers = {
        f"preset {one}": presets.table(one) for one in dict.fromkeys((presets.DEFAULT, chosen))
    }
    origins = {key: where for where, table in layers.items() for key in _keys(table)}
    lines = _lines(text)
    file = path.name if path else ""
    origins |= {key: f"{file}:{lines[key]}" for key in _keys(own)}
    merged: dict[str, Any] = {}
    for table in (*layers.values(), own):
        merged = _over(merged, table)
    try:
        rules = msgspec.convert(merged, Rules)
    except msgspec.ValidationError as error:
        raise _invalid(path, text, error) from error
    _sensible(path, text, rules, set(origins), own)
    return Policy(name, rules, origins)


def judge_red(
    policy: Policy, language: str, breaker: Patch, *, last: bool
) -> tuple[Outcome, str, str]:
    """What it means that a language does not build after a patch: outcome, why, citation.

    ``breaker`` is the patch of the series that broke it (that one or an earlier one),
    ``last`` whether the series ends here. ``language`` is ``rust`` or ``c``.
    """
    key = f"build.{language}"
    contract = Contract(policy.value(key))
    if contract is Contract.SERIES and not last:
        reason = "must build again at the end of the series"
        return Outcome.WARN, reason, policy.cite(key)
    if contract is Contract.NOTICE and (reason := notice(language, breaker)):
        return Outcome.WARN, f"announced by patch {breaker.number}: {reason}", policy.cite(key)
    reason = {
        Contract.EACH: "must build after every patch",
        Contract.SERIES: "must build at the end of the series",
        Contract.NOTICE: f"broken by patch {breaker.number} without a {NOTICES[language]} trailer",
    }[contract]
    return Outcome.FAIL, reason, policy.cite(key)


def notice(language: str, patch: Patch) -> str:
    """The reason in a patch's trailer of :data:`NOTICES`, empty without one."""
    trailers = without_notes(patch.message).rpartition("\n\n")[2]
    found = re.search(rf"^{NOTICES[language]}:[ \t]*(\S.*)$", trailers, re.M | re.I)
    return found[1].strip() if found else ""


def without_notes(message: str) -> str:
    """A message as it will be in the history: git-am(1) drops what is below a line ``---``."""
    return re.split(r"^---$", message, maxsplit=1, flags=re.M)[0].strip()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot read the policy in {path}: {error}",
            expected="a kdrv.toml with a [policy] table",
            remedy=_ALL_RULES,
        ) from error


def _table(path: Path, text: str) -> dict[str, Any]:
    try:
        table = tomllib.loads(text).get("policy", {})
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is no valid TOML: {error}", expected="TOML 1.0") from error
    if not isinstance(table, dict):
        raise _wrong(path, text, "", "policy is not a table")
    if not isinstance(table.get("why", {}), dict):
        raise _wrong(path, text, "why", "policy.why is not a table", '"build.rust" = "…"')
    return table


def _keys(table: Mapping[str, Any]) -> Iterator[str]:
    """``section.name`` of everything in a policy's sections but the reasons."""
    for section, entries in table.items():
        if isinstance(entries, dict) and section != "why":
            yield from (f"{section}.{name}" for name in entries)


def _over(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """A layer on another. A reason holds only for the value it came with."""
    merged = dict(below)
    stale = set(_keys(above))
    merged["why"] = {key: why for key, why in below.get("why", {}).items() if key not in stale}
    for name, value in above.items():
        under = merged.get(name)
        if isinstance(value, dict) and isinstance(under, dict):
            # The layer's own come first: categories are tried in order.
            rest = {key: one for key, one in under.items() if key not in value}
            merged[name] = {**value, **rest}
        else:
            merged[name] = value
    return merged


def _lines(text: str) -> dict[str, int]:
    """The line, from 1, on which each ``section.name`` and ``section`` of ``[policy]`` begins.

    tomllib tells no lines, but every statement of TOML ends where the text up to it is valid: a
    key is of the statement with which it appears.
    """
    found: dict[str, int] = {}
    lines = text.split("\n")
    begin = 1
    for end in range(1, len(lines) + 1):
        try:
            table = tomllib.loads("\n".join(lines[:end])).get("policy", {})
        except tomllib.TOMLDecodeError:
            continue
        if isinstance(table, dict):
            why = table.get("why", {})
            reasons = why if isinstance(why, dict) else ()
            for key in (*table, *_keys(table), *(f"why.{name}" for name in reasons)):
                found.setdefault(key, begin)
        begin = end + 1
    return found


_PLACE = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<key>[^`\[]*).*`)?$", re.S)
_UNKNOWN = re.compile(r"unknown field `(?P<name>[^`]*)`")


def _invalid(path: Path | None, text: str, error: msgspec.ValidationError) -> UsageError:
    match = _PLACE.match(str(error))
    key = (match["key"] or "") if match else ""
    unknown = _UNKNOWN.search(str(error))
    if unknown:
        key = ".".join(filter(None, (key, unknown["name"])))
        section = key.rpartition(".")[0]
        fields = msgspec.structs.fields(Rules)
        inner = next((field.type for field in fields if field.encode_name == section), Rules)
        known = [field.encode_name for field in msgspec.structs.fields(inner)]
        known = ["preset", *known] if inner is Rules else known
        return _wrong(path, text, key, f"there is no rule {key}", f"one of {', '.join(known)}")
    section, _, name = key.partition(".")
    usual = presets.table(presets.DEFAULT).get(section, {})
    like = _toml(name, usual[name]) if isinstance(usual, dict) and name in usual else ""
    expected = f"a value like the default, {like}" if like else "a table"
    return _wrong(path, text, key, f"{key}: {match['what'] if match else error}", expected)


def _sensible(
    path: Path | None, text: str, rules: Rules, known: set[str], own: Mapping[str, Any]
) -> None:
    """What the types do not say. ``known`` are the keys of all rules."""
    for entry in rules.scope.allow:
        if entry not in (ANY, *rules.categories) and not set(entry) & set("/*"):
            raise _wrong(
                path,
                text,
                "scope.allow",
                f"there is no category {entry!r}",
                f"any, a glob such as /drivers/net/, or one of {', '.join(rules.categories)}",
            )
    for key in own.get("why", ()):
        if key not in known:
            raise _wrong(
                path, text, f"why.{key}", f"a reason for {key!r}, which is no rule", '"build.rust"'
            )


def _wrong(
    path: Path | None,
    text: str,
    key: str,
    what: str,
    expected: str = "[policy] as the presets have it",
) -> UsageError:
    lines = _lines(text)
    line = lines.get(key) or lines.get(key.partition(".")[0])
    place = f"{path}:{line}" if line else str(path or "policy")
    return UsageError(f"{place}: {what}", expected=expected, remedy=_ALL_RULES)


def _toml(key: str, value: Any) -> str:
    """One rule as a line of TOML."""
    if isinstance(value, list | tuple):
        return f"{key} = [{', '.join(_toml('', one).removeprefix(' = ') for one in value)}]"
    return f"{key} = {tomli_w.dumps({'x': value}).removeprefix('x = ').rstrip()}"
