"""``kdrv``: the group of commands, each imported only when it is called."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import click

from kdrv import __version__

COMMANDS: Mapping[str, tuple[str, str]] = {
    "setup": ("kdrv.cli.setup:setup", "Provision the toolchain and the kernel sources."),
    "doctor": ("kdrv.cli.doctor:doctor", "Say what is there, what is needed, and how to mend it."),
    "new": ("kdrv.cli.new:new", "Write the skeleton of a driver that builds and runs at once."),
    "build": ("kdrv.cli.build:build", "Build lanes of a kernel, and modules against them."),
    "test": ("kdrv.cli.test:test", "Boot the kernels and run a driver's tests in them."),
    "explore": ("kdrv.cli.explore:explore", "Look for bugs of a driver in the simulator."),
    "replay": ("kdrv.cli.replay:replay", "Run a found bug again, byte for byte."),
    "gate": ("kdrv.cli.gate:gate", "Judge a patch series, patch by patch, in both languages."),
    "shell": ("kdrv.cli.shell:shell", "Boot the machine of a test and hand over its console."),
    "cache": ("kdrv.cli.cache:cache", "List and prune what kdrv keeps between runs."),
    "demo": ("kdrv.cli.demo:demo", "From nothing to a Rust driver proven in both lanes."),
}


class LazyGroup(click.Group):
    """A group that knows its commands' names and summaries without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command that is called."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name][0].split(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table of commands in ``kdrv --help``."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit code 0: good; 1: your code failed; 2: wrong usage or environment.",
)
@click.version_option(__version__, prog_name="kdrv")
def cli() -> None:
    """Write Linux kernel drivers in Rust, prove them without the hardware, keep a tree green."""


def main() -> None:
    """The console script's entry."""
    from kdrv.cli.common import run_guarded

    run_guarded(cli)
