"""What a driver's tests, which may do as they like, are believed."""

from __future__ import annotations

import pytest

from kdrv.gate.trial import ENDED, Finding, of_tests
from kdrv.testing.run import CaseResult

PASSED = CaseResult("test_a", "passed", 0.1)
FAILED = CaseResult("test_b", "failed", 0.1, detail="E  assert 1 == 2\nE  and more\nx.py:3: in f")


def test_failed_tests_are_found_with_what_they_said() -> None:
    told = of_tests((PASSED, FAILED), 1)
    assert (told.tried, told.findings) == (2, (Finding("test_b", "assert 1 == 2"),))


@pytest.mark.parametrize(
    ("cases", "status"),
    [((PASSED,), 3), ((), 0), ((), 3)],
    ids=["a hook that raises", "pytest.exit with status 0", "nothing ran"],
)
def test_tests_that_do_not_get_to_their_end_have_not_passed(
    cases: tuple[CaseResult, ...], status: int
) -> None:
    (finding,) = of_tests(cases, status).findings
    assert finding.name == ENDED


def test_what_passed_has_passed() -> None:
    assert of_tests((PASSED,), 0).findings == ()
