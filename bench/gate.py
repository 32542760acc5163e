"""``kdrv gate`` beside ``git rebase --exec`` with both makes: same objects, same warm start.

``python -m bench.gate``: ten patches as a real series mixes them, each judged in both lanes; then
what it costs to prove a lane untouched. They stand on an earlier series that was judged, in C and
Rust, as in a tree that is judged day by day.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.ratio import Ratio
from kdrv.build.api import BuildRequest, Workbench, prepare
from kdrv.build.configure import configure
from kdrv.build.lane import Language, make_lane
from kdrv.build.make import Make
from kdrv.core.context import Context
from kdrv.core.events import Event, Finished, Started
from kdrv.gate.api import Boots, GateRequest, gate
from kdrv.gate.warm import warm
from kdrv.kernel.arch import TRAITS
from kdrv.kernel.tree import open_tree
from tests.real import kernel_series as made

LIMIT = 0.5
UNTOUCHED_SECONDS = 2.0
OUTSIDE = 0.1
COMPILING = ("building", "linting")
"""How the steps begin in which compilers run."""


class Busy:
    """How long at least one compiler ran: lanes are built side by side."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._running: set[int] = set()
        self._since = 0.0

    def hear(self, event: Event) -> None:
        """Listen to a judgement."""
        match event:
            case Started(step=step, label=label, at=at) if label.startswith(COMPILING):
                if not self._running:
                    self._since = at
                self._running.add(step)
            case Finished(step=step, at=at) if step in self._running:
                self._running.remove(step)
                if not self._running:
                    self.seconds += at - self._since
            case _:
                pass


@dataclass
class Cost:
    """What something costs: seconds, and seconds of the machine's processors.

    All of the machine's, for what a sandbox's processes used is told to nobody: it must be idle
    otherwise.
    """

    seconds: float = 0.0
    work: float = 0.0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count what happens meanwhile."""
        began, worked = time.monotonic(), _worked()
        yield
        self.seconds += time.monotonic() - began
        self.work += _worked() - worked


def _worked() -> float:
    # user, nice, system, idle, iowait, irq, softirq: proc_stat(5)
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def comment(path: str, note: str) -> made.Patch:
    """A patch that adds a comment to the end of a C or Rust file."""
    mark = "//" if path.endswith(".rs") else "/*"
    end = "" if mark == "//" else " */"
    return f"{Path(path).name}: Add a note", {path: lambda text: f"{text}{mark} {note}{end}\n"}


def series(note: str) -> tuple[made.Patch, ...]:
    """Ten patches; ``note`` makes their content new."""
    return (
        comment("drivers/net/ethernet/intel/e1000/e1000_main.c", note),
        comment("drivers/char/mem.c", note),
        comment("drivers/gpu/drm/drm_vblank.c", note),
        comment("include/linux/miscdevice.h", note),
        comment("drivers/usb/core/hub.c", note),
        comment("rust/kernel/miscdevice.rs", note),
        comment("drivers/nvme/host/core.c", note),
        comment("samples/rust/rust_misc_device.rs", note),
        comment("drivers/pci/probe.c", note),
        comment("sound/core/pcm_native.c", note),
    )


def main() -> None:
    """Print one line a comparison."""
    ctx = Context()
    bench = prepare(ctx, BuildRequest(languages=(Language.RUST,)))
    with tempfile.TemporaryDirectory(prefix="kdrv-", dir=ctx.cache) as scratch:
        maker = made.Maker(made.base_repository(ctx, bench.tree), Path(scratch, "index"))
        # A base that no run has seen: what was judged before would only be looked up.
        note = f"measured at {time.time():.0f}"
        earlier = (comment(made.BOARD, note), comment("rust/kernel/miscdevice.rs", f"{note}, once"))
        before = maker.series("start", *earlier)
        gate(ctx, GateRequest(before, repo=maker.path, boots=Boots.NEVER))
        maker.series("bench", *earlier, *series(note))
        source = "start..bench"
        theirs, ours = _rebase(ctx, bench, maker, Path(scratch)), Cost()
        request = GateRequest(source, repo=maker.path, boots=Boots.NEVER)
        busy = Busy()
        unsubscribe = ctx.events.subscribe(busy.hear)
        with ours.counted():
            result = gate(ctx, request)
        unsubscribe()
    name = "kdrv gate, 10 patches, all checks"
    ratio = Ratio(name, "git rebase --exec, both makes", (ours.seconds,), (theirs.seconds,), LIMIT)
    print(ratio.row(), flush=True)
    cores = len(os.sched_getaffinity(0))
    print(
        f"{ours.work:.0f} s of processors against {theirs.work:.0f} s: {cores} of them need "
        f"{ours.work / cores:.0f} s at least"
    )
    outside = 1 - busy.seconds / ours.seconds
    print(f"{outside:.0%} of the time no compiler ran (limit {OUTSIDE:.0%})", flush=True)
    untouched = [
        check.seconds
        for patch in result.patches
        for check in patch.checks
        if check.name == "build rust" and check.summary.startswith("reads nothing")
    ]
    print(
        f"{len(untouched)} of 10 patches proven not to touch the Rust lane, "
        f"the slowest in {max(untouched):.2f} s (limit {UNTOUCHED_SECONDS:g} s)"
    )


def _rebase(ctx: Context, bench: Workbench, maker: made.Maker, scratch: Path) -> Cost:
    """What a rebase costs that builds both lanes after each patch, from a warm base."""
    tree = scratch / "linux"
    git = ("git", "-C", str(tree))
    subprocess.run(("git", "clone", "-q", "--shared", str(maker.path), str(tree)), check=True)
    subprocess.run((*git, "checkout", "-q", "--detach", "origin/start"), check=True)
    commands = []
    for language in Language:
        output = scratch / f"out-{language}"
        output.mkdir()
        lane = make_lane(language)
        make = Make(open_tree(tree), lane, bench.toolchain, output)
        extra = ["W=1", "C=1"] if language is Language.C else []
        if language is Language.RUST:
            warm(ctx, make)
        configure(ctx, make, ctx.jobs)
        command = make.command(["-s", *extra, *TRAITS[lane.arch].goals], jobs=ctx.jobs)
        ctx.runner.run(command, deadline=3600)
        commands.append(command.shell())
    script = scratch / "both.sh"
    script.write_text("set -e\n" + "\n".join(commands) + "\n")
    subprocess.run((*git, "checkout", "-q", "--detach", "origin/bench"), check=True)
    subprocess.run((*git, "update-index", "-q", "--refresh"), check=True)
    who = {name: value for name, value in made.WHO.items() if not name.endswith("DATE")}
    cost = Cost()
    argv = (*git, "rebase", "-q", "--force-rebase", "--exec", f"sh {shlex.quote(str(script))}")
    with cost.counted():
        subprocess.run((*argv, "origin/start"), check=True, env={**os.environ, **who})
    return cost


if __name__ == "__main__":
    main()
