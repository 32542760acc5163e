"""KTAP: results of kernel tests (KUnit) and of programs in the guest (kselftest), as a typed tree.

The format is ``Documentation/dev-tools/ktap.rst`` version 1, with TAP 13 and 14 as its reader is
told to accept. The kernel's own ``kunit_parser.py`` is no library (it prints as it reads, and is
in no package), and the TAP libraries know no nested tests.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

_STAMP = re.compile(r"^.*?\[ *\d+\.\d{6}\](?:\[ *[TC]\d+\])? ?")
_VERSION = re.compile(r"K?TAP version \d+$")
_PLAN = re.compile(r"^(?P<indent>\s*)1\.\.(?P<count>\d{1,9})(?:\s+#\s*(?P<note>.*))?$")
_RESULT = re.compile(r"^(?P<indent>\s*)(?P<said>ok|not ok) (?P<number>\d{1,9})(?P<rest>(?:\s.*)?)$")
_DIRECTIVE = re.compile(r"^(?P<word>SKIP|TODO|XFAIL|TIMEOUT|ERROR)\b[:\s]*(?P<data>.*)$", re.I)
_BAIL = re.compile(r"^\s*Bail out!\s*(?P<reason>.*)$")
_SUBTEST = re.compile(r"^(?P<indent>\s*)# Subtest: (?P<name>.+)$")
_BOOKKEEPING = re.compile(r"^\s*# (?:.*: )?pass:\d+ fail:\d+|^\s*# module: |^\s*# \S+\.speed: ")

KSFT_SKIP = 4
"""The exit status by which a kselftest program says that it was skipped."""
KSFT_XFAIL = 2
"""The exit status for an expected failure (``tools/testing/selftests/kselftest.h``)."""


class Outcome(StrEnum):
    """How one test ended. Missing: it was announced or begun, and no result came."""

    PASSED = "passed"
    SKIPPED = "skipped"
    EXPECTED_FAILURE = "expected-failure"
    FAILED = "failed"
    MISSING = "missing"

    @property
    def bad(self) -> bool:
        """Whether it must fail the run."""
        return self in (Outcome.FAILED, Outcome.MISSING)


@dataclass(frozen=True)
class Case:
    """One test with its subtests.

    ``number`` is its place among its siblings, from 1. ``reason`` is what stood behind the
    directive or the ``#`` of its result. ``diagnostics`` are the lines above it.
    """

    name: str
    outcome: Outcome
    number: int = 0
    reason: str = ""
    diagnostics: tuple[str, ...] = ()
    subtests: tuple[Case, ...] = ()

    @property
    def bad(self) -> bool:
        """Whether it, or any test in it, must fail the run."""
        return self.outcome.bad or any(test.bad for test in self.subtests)


@dataclass(frozen=True)
class Leaf:
    """A test without subtests, by its path from the top, with all there is to say about it."""

    path: tuple[str, ...]
    outcome: Outcome
    detail: str


@dataclass(frozen=True)
class Results:
    """All tests of one output.

    ``bail`` is the reason of a "Bail out!". ``problems`` are breaches of the protocol that leave
    doubt about the result; each is a sentence.
    """

    tests: tuple[Case, ...] = ()
    bail: str = ""
    problems: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether there are tests, none is bad, and the protocol was kept."""
        clean = not (self.bail or self.problems)
        return clean and bool(self.tests) and not any(test.bad for test in self.tests)

    def flatten(self) -> tuple[Leaf, ...]:
        """The tests without subtests, in order."""
        return tuple(leaf for test in self.tests for leaf in _leaves(test, ()))


def parse(lines: Iterable[str]) -> Results:
    """The results in an output: a console, a debugfs file, a program's stdout. Never raises.

    Time stamps and whatever else stands before "KTAP version" are taken off; lines of others in
    between become diagnostics of the next result.
    """
    reader = _Reader()
    for line in lines:
        reader.read(line)
    return reader.results()


def of_program(name: str, lines: Iterable[str], status: int) -> Case:
    """The test that a program in the guest was: its KTAP output, held against its exit status.

    A program without KTAP output is judged by its status as kselftest does: 0 passed, 4 skipped,
    negative is the signal that killed it. kselftest's 2, an expected failure, counts only after
    KTAP: it is also how a shell ends at a syntax error.
    """
    output = tuple(lines)
    results = parse(output)
    said = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
    by_status = {
        0: Outcome.PASSED,
        KSFT_SKIP: Outcome.SKIPPED,
        KSFT_XFAIL: Outcome.EXPECTED_FAILURE,
    }.get(status, Outcome.FAILED)
    if not (results.tests or results.bail or results.problems):
        reason = said if status else ""
        if by_status is Outcome.EXPECTED_FAILURE:
            by_status = Outcome.FAILED
        return Case(name, by_status, reason=reason, diagnostics=output)
    problems = [*results.problems]
    if results.bail:
        problems.append(f"bailed out: {results.bail}")
    bad = bool(problems) or any(test.bad for test in results.tests)
    if by_status is Outcome.FAILED and not bad:
        problems.append(f"{said}, though no test failed")
        bad = True
    outcome = Outcome.PASSED
    if bad:
        outcome = Outcome.FAILED
    elif results.tests and all(test.outcome is Outcome.SKIPPED for test in results.tests):
        outcome = Outcome.SKIPPED
    return Case(name, outcome, reason="; ".join(problems), subtests=results.tests)


@dataclass
class _Level:
    """A list of sibling tests being read; ``indent`` is -1 for the root, which holds documents."""

    indent: int
    name: str = ""
    plan: int | None = None
    skip: str | None = None
    tests: list[Case] = field(default_factory=list)


class _Reader:
    def __init__(self) -> None:
        self._prefix = ""
        self._levels: list[_Level] = []
        self._done: list[Case] = []
        self._pending: list[str] = []
        self._bail = ""
        self._problems: list[str] = []

    def read(self, raw: str) -> None:
        line = _STAMP.sub("", raw.rstrip())
        version = _VERSION.search(line)
        if version:
            before = line[: version.start()]
            self._prefix = before.rstrip()
            self._descend(len(before) - len(self._prefix), fresh=True)
            return
        line = line.removeprefix(self._prefix)
        bail = _BAIL.match(line)
        if not (self._levels or bail):
            if _PLAN.match(line):
                self._descend(_indent(line), fresh=True)
            else:
                return
        if bail:
            self._bail = bail["reason"] or "no reason given"
        elif plan := _PLAN.match(line):
            self._plan(plan)
        elif subtest := _SUBTEST.match(line):
            self._descend(_indent(line)).name = subtest["name"].strip()
        elif result := _RESULT.match(line):
            self._result(result)
        elif line.strip() and not _BOOKKEEPING.match(line):
            self._pending.append(line.strip().removeprefix("# "))

    def results(self) -> Results:
        while self._levels:
            self._leave()
        return Results(tuple(self._done), self._bail, tuple(self._problems))

    def _descend(self, indent: int, fresh: bool = False) -> _Level:
        """The level at this indentation; a ``fresh`` one ends whatever was open there."""
        while self._levels and (
            self._levels[-1].indent > indent or (fresh and self._levels[-1].indent == indent)
        ):
            self._leave()
        if not self._levels or self._levels[-1].indent < indent:
            self._levels.append(_Level(indent))
            self._pending.clear()
        return self._levels[-1]

    def _plan(self, plan: re.Match[str]) -> None:
        level = self._descend(_indent(plan[0]))
        level.plan = int(plan["count"])
        note = _DIRECTIVE.match(plan["note"] or "")
        if level.plan == 0 and note and note["word"].upper() == "SKIP":
            level.skip = note["data"].strip()

    def _result(self, said: re.Match[str]) -> None:
        indent = _indent(said[0])
        children: tuple[Case, ...] = ()
        while self._levels and self._levels[-1].indent > indent:
            inner = self._close()
            if len(self._levels) > 1 and self._levels[-1].indent > indent:
                self._adopt(inner)
            else:
                children = (*children, *inner.tests)
        if not self._levels:
            self._levels.append(_Level(indent))
        level = self._levels[-1]
        number = int(said["number"])
        if number != len(level.tests) + 1:
            self._problems.append(
                f"test number {number} came where {len(level.tests) + 1} was due: "
                f"'{said[0].strip()}'"
            )
        name, outcome, reason = _verdict(said["said"], said["rest"])
        if outcome is Outcome.PASSED and any(test.bad for test in children):
            self._problems.append(f"'{name}' says ok though a test in it failed")
        level.tests.append(
            Case(name or f"#{number}", outcome, number, reason, tuple(self._pending), children)
        )
        self._pending.clear()

    def _close(self) -> _Level:
        """Take the innermost level off, its missing tests noted."""
        level = self._levels.pop()
        if level.skip is not None:
            level.tests.append(Case(level.name, Outcome.SKIPPED, reason=level.skip))
        elif level.plan is not None and len(level.tests) < level.plan:
            first = len(level.tests) + 1
            span = str(first) if first == level.plan else f"{first}-{level.plan}"
            level.tests.append(
                Case(
                    f"{span} of {level.plan}",
                    Outcome.MISSING,
                    first,
                    "announced, but no result came",
                    tuple(self._pending),
                )
            )
            self._pending.clear()
        elif level.plan is not None and len(level.tests) > level.plan:
            self._problems.append(f"{len(level.tests)} results came where {level.plan} were due")
        return level

    def _adopt(self, level: _Level) -> None:
        """Keep the tests of a level whose own result never came."""
        parent = self._levels[-1].tests if self._levels else self._done
        parent.append(
            Case(
                level.name or "(unnamed)",
                Outcome.MISSING,
                len(parent) + 1,
                "began, but no result came",
                subtests=tuple(level.tests),
            )
        )

    def _leave(self) -> None:
        level = self._close()
        if self._levels:
            self._adopt(level)
        else:
            self._done += level.tests


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _verdict(said: str, rest: str) -> tuple[str, Outcome, str]:
    """Name, outcome and reason from what stands behind the number of a result."""
    parts = re.split(r"(?<!\\)(?:^|\s)#\s*", rest.strip(), maxsplit=1)
    name = re.sub(r"^-\s+|^-$", "", parts[0].strip()).replace("\\#", "#")
    note = parts[1].strip() if len(parts) > 1 else ""
    outcome = Outcome.PASSED if said == "ok" else Outcome.FAILED
    directive = _DIRECTIVE.match(note)
    if not directive:
        return name, outcome, note
    word, data = directive["word"].upper(), directive["data"].strip()
    if word == "SKIP":
        return name, Outcome.SKIPPED, data
    if word == "XFAIL" or (word == "TODO" and outcome is Outcome.FAILED):
        return name, Outcome.EXPECTED_FAILURE, data
    if word in ("TIMEOUT", "ERROR"):
        return name, Outcome.FAILED, f"{word.lower()}: {data}" if data else word.lower()
    return name, outcome, data


def _leaves(test: Case, above: tuple[str, ...]) -> Iterator[Leaf]:
    path = (*above, test.name)
    for subtest in test.subtests:
        yield from _leaves(subtest, path)
    if not test.subtests or (test.outcome.bad and not any(sub.bad for sub in test.subtests)):
        detail = "\n".join(part for part in (test.reason, *test.diagnostics) if part)
        yield Leaf(path, test.outcome, detail)
