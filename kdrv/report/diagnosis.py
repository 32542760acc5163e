"""The doctor's findings as tables for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kdrv.toolchain.doctor_finding import Diagnosis, Section, State

_MARKS = {
    State.OK: "[green]ok[/]",
    State.WARNING: "[yellow]warning[/]",
    State.MISSING: "[red]missing[/]",
}
_INSTALLERS = ("apt-get install -y --no-install-recommends", "rustup component add")


def show_diagnosis(diagnosis: Diagnosis, console: Console) -> None:
    """Print one table a section, its remedies below, and the verdict."""
    for section in diagnosis.sections:
        console.print(_table(section))
        for subjects, remedy in _remedies(section):
            # A command to copy is never broken into lines.
            console.print(
                f"  [dim]{escape(subjects)}:[/] [bold]{escape(remedy)}[/]", soft_wrap=True
            )
        console.print()
    if diagnosis.ok:
        console.print(f"kdrv can work here, with the toolchain [bold]{diagnosis.provider}[/]")
    else:
        console.print("[red]kdrv cannot work here yet[/]: mend what is marked as missing")


def _table(section: Section) -> Table:
    title = section.title if section.needed else f"{section.title} (not used)"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2))
    table.add_column("", no_wrap=True)
    table.add_column("found", header_style="dim", overflow="fold")
    table.add_column("needed", header_style="dim")
    table.add_column("", no_wrap=True)
    for finding in section.findings:
        found, needed = escape(finding.found or "-"), escape(finding.needed)
        table.add_row(escape(finding.subject), found, needed, _MARKS[finding.state])
    return table


def _remedies(section: Section) -> list[tuple[str, str]]:
    """What to do, and for which subjects. Installations of several things become one command."""
    groups: dict[str, tuple[list[str], list[str]]] = {}
    for finding in section.findings:
        if finding.state is State.OK or not finding.remedy:
            continue
        command, _, last = finding.remedy.rpartition(" ")
        if not command.endswith(_INSTALLERS):
            command, last = finding.remedy, ""
        subjects, things = groups.setdefault(command, ([], []))
        subjects.append(finding.subject)
        things.append(last)
    return [
        (", ".join(subjects), " ".join(filter(None, [command, *dict.fromkeys(things)])))
        for command, (subjects, things) in groups.items()
    ]
