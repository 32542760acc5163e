"""Tests that are no Python: shell scripts in the guest, and the kernel's KUnit suites."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kdrv.core.errors import WorkFailed
from kdrv.machine.reports.kmemleak import parse_kmemleak
from kdrv.machine.verdict import describe
from kdrv.testing.driver import judge_unit_tests
from kdrv.testing.ktap import Outcome, Results, of_program
from kdrv.testing.plugin import hall_of
from kdrv.testing.prepare import TESTS

SCRIPT_DEADLINE = 300.0
KMEMLEAK = "/sys/kernel/debug/kmemleak"
KMEMLEAK_AGE = 5.5
KMEMLEAK_DEADLINE = 120.0


class ScriptFailed(WorkFailed):
    """A shell test reported a failure."""


class Leaked(WorkFailed):
    """kmemleak found memory that nothing points to."""


class ShellFile(pytest.File):
    """A ``.sh`` file below the tests."""

    def collect(self) -> Iterator[pytest.Item]:
        """One item a script."""
        yield ShellItem.from_parent(self, name=self.path.name)


class ShellItem(pytest.Item):
    """A script that runs in the guest, with the driver loaded.

    Its output is read as KTAP when there is any in it, and its exit status as a kselftest's.
    """

    def runtest(self) -> None:
        """Run it."""
        hall = hall_of(self.config)
        if not hall.room.guest.exists("/bin/sh"):
            pytest.skip(
                "the guest has no shell: the toolchain's busybox is of another architecture"
            )
        with hall.driver():
            argv = ["/bin/sh", f"{TESTS}/{self.path.name}"]
            done = hall.room.guest.run(argv, timeout=SCRIPT_DEADLINE)
        lines = done.output.splitlines()
        told = of_program(self.name, lines, done.status)
        if told.bad:
            bad = [leaf for leaf in Results((told,)).flatten() if leaf.outcome.bad]
            named = ", ".join("/".join(leaf.path) for leaf in bad) or self.name
            raise ScriptFailed(
                f"failed in the guest: {named} (status {done.status})", detail=lines[-20:]
            )
        if told.outcome is Outcome.SKIPPED:
            pytest.skip(told.reason or "the script skipped itself")

    def reportinfo(self) -> tuple[Any, int | None, str]:
        """Where pytest says it is."""
        return self.path, None, self.name


class KmemleakItem(pytest.Item):
    """What kmemleak finds when all other tests are done, on a kernel that has it.

    Only objects older than five seconds count (mm/kmemleak.c: MSECS_MIN_AGE), and only those that
    two scans agree on: a pointer may be in a register during the first.
    """

    def runtest(self) -> None:
        """Scan twice."""
        room = hall_of(self.config).room
        if not room.running or not room.guest.exists(KMEMLEAK):
            pytest.skip("the machine is gone, or its kernel has no kmemleak")
        guest = room.guest
        guest.sleep(KMEMLEAK_AGE)
        for _ in range(2):
            guest.write_text(KMEMLEAK, "scan", timeout=KMEMLEAK_DEADLINE)
        leaks = parse_kmemleak(guest.read_text(KMEMLEAK, timeout=KMEMLEAK_DEADLINE))
        if leaks:
            raise Leaked(
                f"{describe(leaks[0])} ({len(leaks)} such places)", detail=leaks[0].lines[:20]
            )

    def reportinfo(self) -> tuple[Any, int | None, str]:
        """Where pytest says it is."""
        return self.config.rootpath, None, self.name


class KunitItem(pytest.Item):
    """A KUnit suite of the kernel: built in, or in a module that is loaded now."""

    def __init__(self, *, suite: str, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.suite = suite

    def runtest(self) -> None:
        """Load the suite's module if there is one, and read the results."""
        hall = hall_of(self.config)
        guest = hall.room.guest
        judge_unit_tests(guest, self.suite)

    def reportinfo(self) -> tuple[Any, int | None, str]:
        """Where pytest says it is."""
        return self.config.rootpath, None, self.name
