"""Packages that the machine lacks, and others who use apt at the same time."""

from __future__ import annotations

import shutil

import pytest

from kdrv.core.context import Context
from kdrv.core.errors import CommandFailed, DeadlineExceeded
from kdrv.core.process import Command
from kdrv.toolchain import machine_packages
from kdrv.toolchain.machine_packages import need_host_programs

from .conftest import FakeRunner

HELD = (100, "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)\n")


class Machine:
    """Root's machine, which lacks bubblewrap until apt-get installs it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, runner: FakeRunner) -> None:
        self.there = {"apt-get"}
        self.locked = 0
        self.pauses = 0
        runner.answers = [("apt-get update", self.update), ("apt-get install", self.install)]
        monkeypatch.setattr(shutil, "which", lambda name: name if name in self.there else None)
        monkeypatch.setattr(machine_packages.os, "geteuid", lambda: 0)
        monkeypatch.setattr(machine_packages.time, "sleep", self.pause)

    def pause(self, _: float) -> None:
        self.pauses += 1

    def update(self, _: Command) -> tuple[int, str]:
        self.locked -= 1
        return HELD if self.locked >= 0 else (0, "")

    def install(self, command: Command) -> str:
        if "bubblewrap" in command.argv:
            self.there.add("bwrap")
        return ""


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, runner: FakeRunner) -> Machine:
    return Machine(monkeypatch, runner)


def need(ctx: Context) -> None:
    need_host_programs(ctx, machine_packages.SANDBOX_PROGRAMS)


def test_apt_is_waited_for_while_another_program_has_it(
    ctx: Context, runner: FakeRunner, machine: Machine
) -> None:
    machine.locked = 3
    need(ctx)
    assert machine.pauses == 3
    assert "bwrap" in machine.there
    assert [command.argv[1] for command in runner.ran] == ["update"] * 4 + ["install"]


def test_nobody_waits_for_ever(
    ctx: Context, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.locked = 10**6
    monkeypatch.setattr(machine_packages, "APT_DEADLINE", 0)
    with pytest.raises(DeadlineExceeded, match="has held /var/lib/apt/lists/lock for") as raised:
        need(ctx)
    assert raised.value.remedy == "see which: fuser -v /var/lib/apt/lists/lock"


def test_what_another_kdrv_installed_meanwhile_is_not_installed_again(
    ctx: Context, runner: FakeRunner, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def which(name: str) -> str | None:
        asked.append(name)
        return name if asked.count("bwrap") > 1 else None if name == "bwrap" else name

    monkeypatch.setattr(shutil, "which", which)
    need(ctx)
    assert asked.count("bwrap") == 2
    assert not runner.ran


def test_another_failure_of_apt_is_told_at_once(
    ctx: Context, runner: FakeRunner, machine: Machine
) -> None:
    runner.answers = [("apt-get update", (100, "E: no such host\n"))]
    with pytest.raises(CommandFailed):
        need(ctx)
    assert not machine.pauses
