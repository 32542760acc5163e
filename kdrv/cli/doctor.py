"""``kdrv doctor``: what is there, what is needed, and the command that mends each lack."""

from __future__ import annotations

import re
import sys
from functools import partial
from pathlib import Path

import click

from kdrv.cli.common import json_option, kernel_option, print_json, session, toolchain_option
from kdrv.core.context import Context
from kdrv.core.errors import EXIT_ENVIRONMENT


@click.command()
@kernel_option
@toolchain_option
@json_option
def doctor(kernel: str | None, toolchain: str, as_json: bool) -> None:
    """Say what is there, what the kernel tree needs, and how to mend each lack.

    Looks only: nothing is downloaded or installed. Ends with 2 when something needed is missing.
    """
    from rich.console import Console

    from kdrv.qemu.kvm import kvm_works
    from kdrv.report.diagnosis import show_diagnosis
    from kdrv.toolchain.doctor import diagnose

    with session(quiet=as_json) as ctx:
        tree = _tree(ctx, kernel)
        kvm = partial(kvm_works, ctx=ctx, fresh=True)
        diagnosis = diagnose(ctx, tree, wanted=toolchain, kvm=kvm)
    if as_json:
        print_json(diagnosis)
    else:
        # Not on a terminal there is no width to fit into.
        console = Console(highlight=False)
        show_diagnosis(diagnosis, console if console.is_terminal else Console(width=120))
    sys.exit(0 if diagnosis.ok else EXIT_ENVIRONMENT)


def _tree(ctx: Context, kernel: str | None) -> Path | None:
    """The tree the user means, if its sources are here."""
    from kdrv.kernel import source
    from kdrv.kernel.tree import open_tree

    series = kernel or source.PROVEN[0]
    if series != source.LATEST and not re.fullmatch(r"\d+\.\d+", series):
        return open_tree(Path(series)).path
    tree = source.cached(ctx, series)
    return tree.path if tree else None
