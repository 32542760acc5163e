"""The protocols by which the tools of mailing lists ask about one patch: b4's and NIPA's."""

from __future__ import annotations

from collections.abc import Sequence

from kdrv.gate.result import Check, GateResult, Outcome, worst
from kdrv.report.gate.fit import fit
from kdrv.report.gate.plain import check_lines, diagnostic_lines
from kdrv.report.gate.words import counts, first, short

WARNING = 250
"""NIPA's exit code of a test that warns (README.rst, "Tests")."""
MOST_SUMMARY = 200
MOST_LINES = 10
_B4 = {Outcome.PASS: "pass", Outcome.WARN: "warn", Outcome.UNKNOWN: "warn", Outcome.FAIL: "fail"}


def b4_checks(result: GateResult) -> list[dict[str, str]]:
    """What ``b4 review`` takes as JSON from its ``b4.review-perpatch-check-cmd``.

    b4 (0.15 and later, ``b4/review/checks.py``) takes ``pass``, ``warn`` and ``fail``, and any
    other status as ``fail``. It keeps one answer for each tool: several of one name become one.
    What was skipped is left out, and what could not be judged warns.
    """
    checks: dict[str, list[Check]] = {}
    for _, check in fit(result).all_checks():
        if check.outcome is not Outcome.SKIP:
            checks.setdefault(check.name, []).append(check)
    return [_b4_check(name, found) for name, found in checks.items()]


def _b4_check(name: str, checks: Sequence[Check]) -> dict[str, str]:
    outcome = worst(tuple(checks))
    told = [check for check in checks if check.outcome is outcome]
    bad = outcome is not Outcome.PASS
    return {
        "tool": f"kdrv {name}",
        "status": _B4[outcome],
        "summary": short(_summary(told[0]), MOST_SUMMARY),
        "url": "",
        "details": "\n".join(line for check in told for line in check_lines(check)) if bad else "",
    }


def b4_lines(result: GateResult) -> list[str]:
    """What ``b4 prep --check`` and ``b4 am --check`` take as text from their check commands.

    For b4 (``LoreMessage.run_local_check``) a line with ``ERROR:`` is a failure, any other a
    warning, and so is whatever stands on standard error; no line at all is success.
    """
    lines = []
    for _, check in fit(result).all_checks():
        if check.outcome is Outcome.FAIL:
            lines += [f"ERROR: {line}" for line in _b4_told(check)]
        elif check.outcome in (Outcome.WARN, Outcome.UNKNOWN):
            # No word of a tool's may turn a warning into a failure.
            told = [line.replace("ERROR:", "error:") for line in _b4_told(check)]
            lines += [f"WARNING: {line}" for line in told]
    return lines


def _b4_told(check: Check) -> list[str]:
    again = f" (reproduce: {check.reproducer})" if check.reproducer else ""
    told = diagnostic_lines(check.diagnostics, MOST_LINES)
    return [f"{check.name}: {_summary(check)}{again}", *(f"{check.name}: {one}" for one in told)]


def _summary(check: Check) -> str:
    if check.outcome is Outcome.UNKNOWN:
        return f"not judged: {check.summary}" if check.summary else "not judged"
    return check.summary or {Outcome.PASS: "passed"}.get(check.outcome, check.outcome.value)


def nipa(result: GateResult) -> tuple[int, str]:
    """NIPA's exit code (0 pass, 250 warning, 1 failure) and the line of its summary.

    The line belongs on the file descriptor that the environment variable ``DESC_FD`` names. What
    could not be judged warns: the patch did nothing wrong.
    """
    result = fit(result)
    codes = {Outcome.FAIL: 1, Outcome.WARN: WARNING, Outcome.UNKNOWN: WARNING}
    finding = first(result)
    words = f"{finding.sentence} ({counts(result)})" if finding else counts(result)
    return codes.get(result.outcome, 0), short(words, MOST_SUMMARY)
