"""A judged series as JUnit's XML, for servers that count tests."""

from __future__ import annotations

import io
from collections.abc import Sequence

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from kdrv.gate.result import Check, GateResult, Outcome
from kdrv.report.gate.fit import fit
from kdrv.report.gate.plain import check_lines
from kdrv.report.gate.words import place_of


def junit_text(result: GateResult) -> str:
    """A file of JUnit's XML: a suite for each patch, one for the series, a case for each check.

    What could not be judged is an error; a warning passes, and its words are the case's output,
    as JUnit has no warnings.
    """
    result = fit(result)
    whole = JUnitXml("kdrv gate")
    for patch in result.patches:
        label = f"{place_of(patch, result)}: {patch.patch.subject}"
        whole.add_testsuite(_suite(label, f"patch-{patch.patch.number}", patch.checks))
    if result.checks:
        whole.add_testsuite(_suite("series", "series", result.checks))
    whole.update_statistics()  # type: ignore[no-untyped-call]
    written = io.BytesIO()
    whole.write(written, pretty=True)
    return written.getvalue().decode()


def _suite(name: str, kind: str, checks: Sequence[Check]) -> TestSuite:
    suite = TestSuite(name)
    suite.add_testcases([_case(check, kind) for check in checks])
    return suite


def _case(check: Check, kind: str) -> TestCase:
    case = TestCase(check.name, f"kdrv.gate.{kind}", check.seconds)
    text = "\n".join(check_lines(check))
    message = check.summary or check.outcome.value
    match check.outcome:
        case Outcome.FAIL | Outcome.UNKNOWN:
            kind_of = Failure if check.outcome is Outcome.FAIL else Error
            result = kind_of(message, check.name)
            result.text = text
            case.result = [result]
        case Outcome.SKIP:
            case.result = [Skipped(message)]
        case Outcome.WARN:
            case.system_out = f"{message}\n{text}"
        case Outcome.PASS:
            pass
    return case
