"""The bug base: a folder for every bug, to be read, committed, replayed.

``plan.toml`` decides the run and can be edited; ``bug.toml`` says what it shows; ``story.txt``,
``console.txt`` and ``trace.txt`` are for reading.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from kdrv.core.errors import UsageError
from kdrv.core.show import clean
from kdrv.explore import plan as plans
from kdrv.explore.history import History, Violation
from kdrv.explore.hunt import Found
from kdrv.explore.plan import Plan
from kdrv.explore.subject import Subject

PLAN, BUG, STORY, CONSOLE, TRACE = "plan.toml", "bug.toml", "story.txt", "console.txt", "trace.txt"
FORMAT = 1
TOLD = 40
"""How many of the last operations the story tells."""


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``bug.toml`` holds.

    ``hash`` is that of the run's history, ``seed`` the plan's; ``against`` is the driver it was
    compared with.
    """

    format: int
    property: str
    words: str
    fingerprint: str
    place: str
    hash: str
    seed: int
    driver: str
    module: str
    kernel: str
    config: str
    processor: str
    replay: str
    against: str = ""


@dataclass(frozen=True)
class Bug:
    """A bug of a base."""

    folder: Path
    plan: Plan
    record: Record

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name


def name_of(violation: Violation) -> str:
    """The name of a bug's folder: the property and the fingerprint."""
    return f"{violation.name}-{violation.fingerprint}"


def save(base: Path, found: Found, subject: Subject, processor: str) -> Bug:
    """Write a bug into a base, in place of an older one of its name; all of it or nothing."""
    identity = subject.identity
    rival = next(iter(subject.rivals.values()), None)
    base.mkdir(parents=True, exist_ok=True)
    folder = base / name_of(found.violation)
    record = Record(
        format=FORMAT,
        property=found.violation.name,
        words=found.violation.words,
        fingerprint=found.violation.fingerprint,
        place=found.violation.place,
        hash=found.history.hash,
        seed=found.plan.seed,
        driver=identity.driver,
        module=identity.module,
        kernel=identity.kernel,
        config=identity.config,
        processor=processor,
        replay=command(folder, subject.project.root),
        against=rival.driver.module if rival else "",
    )
    with tempfile.TemporaryDirectory(dir=base, prefix=".new-") as scratch:
        new = Path(scratch) / "bug"
        new.mkdir()
        (new / PLAN).write_text(plans.dump(found.plan))
        (new / BUG).write_text(tomli_w.dumps(msgspec.to_builtins(record)))
        (new / STORY).write_text("\n".join(story(found.history, found.violation)) + "\n")
        (new / CONSOLE).write_text(console(found.history))
        (new / TRACE).write_text("".join(f"{record}\n" for record in found.history.trace))
        if folder.exists():
            shutil.rmtree(folder)
        new.rename(folder)
    return Bug(folder, found.plan, record)


def command_here(bug: Bug) -> str:
    """The command line that replays a bug, from the current directory."""
    near = Path(os.path.relpath(bug.folder))
    place = bug.folder.absolute() if near.parts[:2] == ("..", "..") else near
    try:
        words = shlex.split(bug.record.replay)
    except ValueError:
        words = []  # edited by hand
    project = words[4:5] if words[3:4] == ["--project"] else []
    return shlex.join(["kdrv", "replay", str(place), *(["--project", *project] if project else [])])


def command(folder: Path, project: Path) -> str:
    """The command line that replays a bug, from the project's directory."""
    try:
        shown = folder.relative_to(project)
    except ValueError:
        return shlex.join(["kdrv", "replay", str(folder), "--project", str(project)])
    return shlex.join(["kdrv", "replay", str(shown)])


def load(folder: Path) -> Bug:
    """Read a bug's folder. Raises :class:`UsageError` for one that is none."""
    path = folder / BUG
    try:
        table: dict[str, Any] = tomllib.loads(path.read_text())
        record = msgspec.convert(table, Record)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{folder} is no bug's folder: {path} cannot be read",
            expected=f"a folder with {PLAN} and {BUG}, as kdrv explore writes it",
            remedy="kdrv explore",
        ) from error
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise UsageError(f"{path}: {error}", expected="a file as kdrv explore writes it") from error
    return Bug(folder, plans.read(folder / PLAN), record)


def load_all(base: Path) -> tuple[Bug, ...]:
    """All bugs of a base, by name."""
    if not base.is_dir():
        return ()
    return tuple(load(path.parent) for path in sorted(base.glob(f"*/{BUG}")))


def console(history: History) -> str:
    """The console with virtual times, clean of terminal controls."""
    return "".join(f"{line.at / 1e9:.9f} {clean(line.text)}\n" for line in history.console)


def story(history: History, violation: Violation) -> list[str]:
    """The last operations in words, what went wrong around them, and what did not hold."""
    events = [(m.began, f"{_who(m.actor, m.phase)}{m.story()}") for m in history.moments]
    events += [
        (f.at, f"  fault: {f.kind} on {f.device}{f' ({f.register})' if f.register else ''}")
        for f in history.fired
    ]
    lines = [f"{at / 1e9:12.6f} s  {text}" for at, text in sorted(events, key=lambda e: e[0])]
    if len(lines) > TOLD:
        lines = [f"... {len(lines) - TOLD} earlier ones", *lines[-TOLD:]]
    return [
        f"{violation.name}: {violation.words}",
        "",
        *lines,
        *(["", *violation.detail] if violation.detail else []),
    ]


def _who(actor: int, phase: str) -> str:
    return f"actor {actor}: " if phase == "plan" else f"{phase}: "
