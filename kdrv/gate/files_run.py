"""Several tools in one start of the sandbox, each with its output to itself."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdrv.core.context import Context
from kdrv.core.errors import DeadlineExceeded
from kdrv.core.limits import LimitExceeded, unless_machine_short
from kdrv.gate.result import Check, Outcome
from kdrv.toolchain.base import MODULE, SOURCE, Bind, Toolchain

SCRIPT = "script"


@dataclass(frozen=True)
class Job:
    """One command of the script: ``needs`` is the program that has to be there."""

    name: str
    needs: str
    argv: tuple[str, ...]
    input: str = ""


@dataclass(frozen=True)
class Said:
    """What a job printed. ``status`` is ``None`` when its program is missing, or the sandbox
    ended before it."""

    output: str
    status: int | None
    missing: bool = False


def run(
    ctx: Context,
    toolchain: Toolchain,
    tree: Path,
    scratch: Path,
    jobs: Sequence[Job],
    deadline: float,
) -> dict[str, Said]:
    """What each job said, by name, from one start of the sandbox that lasts at most ``deadline``
    seconds."""
    # Told apart by a line that no file of a patch can know beforehand.
    mark = f"--{secrets.token_hex(16)}"
    script = []
    for job in jobs:
        line = shlex.join(job.argv) + (f" <{MODULE}/{job.input}" if job.input else " </dev/null")
        script += [
            f"echo; echo {mark}",
            f"if command -v {job.needs} >/dev/null; then {line}; set -- $?",
            "else set -- missing; fi",
            f"echo; echo {mark} $1",
        ]
    binds = [Bind(tree, SOURCE), Bind(scratch, MODULE)]
    # As a file: one argument of a command holds 128 KiB (execve(2)), less than a large patch needs.
    (scratch / SCRIPT).write_text("\n".join(script))
    command = toolchain.command(("sh", f"{MODULE}/{SCRIPT}"), binds=binds, cwd=SOURCE)
    try:
        output = ctx.runner.run(command, deadline=deadline, check=False).output
    except (DeadlineExceeded, LimitExceeded) as error:
        unless_machine_short(error)
        # Text can be made to keep a tool busy for ever; that is no reason to judge nothing else.
        output = error.message
    parts = f"\n{output}".split(f"\n{mark}")[1:]
    said = {}
    for number, job in enumerate(jobs):
        words = parts[2 * number + 1].split(maxsplit=1) if len(parts) > 2 * number + 1 else []
        status = int(words[0]) if words and words[0].isdigit() else None
        said_here = parts[2 * number] if len(parts) > 2 * number else output
        said[job.name] = Said(said_here, status, missing=bool(words) and words[0] == "missing")
    return said


def trouble(name: str, program: str, said: Said) -> Check | None:
    """Why a tool could not be asked, if so."""
    if said.missing:
        return Check(name, Outcome.SKIP, f"the toolchain has no {program}")
    if said.status is None:
        detail = tuple(said.output.splitlines()[-5:])
        return Check(name, Outcome.UNKNOWN, "it did not get to its end", detail=detail)
    return None


def silent(name: str, said: Said) -> Check:
    """A tool that failed without a complaint about the patch."""
    detail = tuple(said.output.strip().splitlines()[-5:])
    return Check(name, Outcome.UNKNOWN, f"{name} ended with status {said.status}", detail=detail)
