"""``kdrv new``: write the skeleton of a driver that builds, boots and passes its tests at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kdrv.cli.common import json_option, print_json
from kdrv.core.errors import KdrvError, UsageError

if TYPE_CHECKING:
    from kdrv.scaffold.api import ScaffoldResult
    from kdrv.scaffold.catalog import Bus, Option, Value
    from kdrv.scaffold.names import Author, Names


@click.command()
@click.argument("name", required=False)
@click.option("--bus", metavar="BUS", help="What the driver binds to; --list shows them.")
@click.option(
    "--device",
    metavar="DEVICE",
    default="",
    help="Which device of the bus.  [default: the bus's own]",
)
@click.option("--c-twin", "twin", is_flag=True, help="Write the same driver in C beside it.")
@click.option(
    "-o",
    "--option",
    "given",
    metavar="KEY=VALUE",
    multiple=True,
    help="An option of the bus; may be repeated.",
)
@click.option(
    "--kernel",
    "series",
    metavar="SERIES",
    default="",
    help="The kernel series to write for.  [default: the newest proven one]",
)
@click.option(
    "-C",
    "--directory",
    type=click.Path(path_type=Path),
    help="Where the project's directory goes.  [default: here]",
)
@click.option(
    "--in-tree",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Put the driver into this kernel tree instead.",
)
@click.option("--subdir", metavar="PATH", default="", help="Where in the tree: drivers/misc, ...")
@click.option("--author", metavar="NAME", help="The author.  [default: git's user.name]")
@click.option("--email", metavar="ADDRESS", help="The address.  [default: git's user.email]")
@click.option("--list", "list_buses", is_flag=True, help="Show the buses and their options.")
@json_option
def new(
    name: str | None,
    bus: str | None,
    device: str,
    twin: bool,
    given: tuple[str, ...],
    series: str,
    directory: Path | None,
    in_tree: Path | None,
    subdir: str,
    author: str | None,
    email: str | None,
    list_buses: bool,
    as_json: bool,
) -> None:
    """Write the skeleton of a Rust driver: sources, tests, README and kdrv.toml.

    On a terminal kdrv asks for what is missing, otherwise the options have their defaults.
    Nothing that exists is overwritten, and a failure leaves nothing behind.
    """
    from kdrv.scaffold.api import ScaffoldRequest, create
    from kdrv.scaffold.catalog import load_bus
    from kdrv.scaffold.names import Names

    if list_buses:
        _list(as_json)
        return
    if directory and in_tree:
        raise UsageError(
            "-C and --in-tree both say where the driver goes",
            expected="one of them; below a kernel tree --subdir says where",
            remedy=f"leave out -C {directory}",
        )
    options: dict[str, Value] = dict(_pair(text) for text in given)
    missing = name is None or bus is None
    if missing and not _terminal():
        raise UsageError(
            f"kdrv new needs {'a name' if name is None else 'a bus'}, and there is no terminal "
            "to ask on",
            expected="NAME and --bus; kdrv new --list shows the buses",
            remedy=f"kdrv new {name or 'my-driver'} --bus {bus or 'misc'}",
        )
    if name is None:
        name = _ask("Name of the driver", "my-driver", lambda text: Names.parse(text).name)
    names = Names.parse(name)
    if bus is None:
        bus = _ask_bus()
        device = device or _ask_device(bus)
    if missing:
        options = _ask_options(load_bus(bus, device=device), names, options)
    request = ScaffoldRequest(
        name=name,
        bus=bus,
        device=device,
        twin=twin,
        directory=directory or Path(),
        options=options,
        kernel=series,
        author=_author(author, email),
        in_tree=in_tree,
        subdir=subdir,
    )
    result = create(request)
    if as_json:
        print_json(result)
    else:
        _tell(result, in_tree)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(
            f"{text!r} is no option of a bus",
            expected="KEY=VALUE; kdrv new --list shows the keys",
            remedy=f"-o {key or 'KEY'}=VALUE",
        )
    return key, value


def _terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _ask(question: str, default: str | None, read: Callable[[str], str]) -> str:
    """Ask until the answer is good; a bad one is told why."""
    while True:
        answer: str = click.prompt(question, default=default, show_default=bool(default))
        try:
            return read(answer)
        except KdrvError as error:
            click.echo(f"  {error.message}; expected: {error.expected}", err=True)


def _ask_bus() -> str:
    from kdrv.scaffold.catalog import bus_names, load_bus

    for name in bus_names():
        click.echo(f"  {name:<10} {load_bus(name).summary}")
    return _ask("Bus", "misc", lambda text: load_bus(text).name)


def _ask_device(bus: str) -> str:
    from kdrv.scaffold.catalog import device_names, load_bus

    names = device_names(bus)
    for name in names:
        click.echo(f"  {name:<10} {load_bus(bus, device=name).summary}")
    default = load_bus(bus).device
    return _ask("Device", default, lambda text: load_bus(bus, device=text).device) if names else ""


def _ask_options(bus: Bus, names: Names, given: Mapping[str, Value]) -> dict[str, Value]:
    """The options that were not given, asked for one by one."""
    from kdrv.scaffold.options import read_value
    from kdrv.scaffold.render import Renderer

    fill = Renderer(names.variables()).text
    answers = dict(given)

    def read(option: Option) -> Callable[[str], str]:
        return lambda text: str(read_value(option, text))

    for option in bus.options:
        if option.name in given:
            continue
        default = None if option.default is None else fill(_plain(option.default))
        question = f"{option.name} ({_kind(option)}): {option.help}"
        answers[option.name] = _ask(question, default, read(option))
    return answers


def _author(name: str | None, email: str | None) -> Author:
    """The author from the options, else git's, else asked for, else a placeholder."""
    from kdrv.core.process import LocalRunner
    from kdrv.scaffold.identity import git_author
    from kdrv.scaffold.names import PLACEHOLDER, Author

    known = None if name and email else git_author(LocalRunner())
    if known is None and not (name and email) and _terminal():
        name = name or click.prompt("Author", default=PLACEHOLDER.name)
        email = email or click.prompt("E-mail", default=PLACEHOLDER.email)
    known = known or PLACEHOLDER
    return Author.parse(name or known.name, email or known.email)


def _list(as_json: bool) -> None:
    from kdrv.scaffold.catalog import bus_names, device_names, load_bus

    buses = [
        load_bus(bus, device=device) for bus in bus_names() for device in device_names(bus) or ("",)
    ]
    if as_json:
        import msgspec

        hidden = {"path", "series"}
        print_json(
            [
                {
                    key: value
                    for key, value in msgspec.to_builtins(bus, enc_hook=str).items()
                    if key not in hidden
                }
                for bus in buses
            ]
        )
        return
    for bus in buses:
        chosen = f" --device {bus.device}" if bus.device else ""
        click.echo(f"{click.style(bus.name, bold=True)}{chosen}: {bus.summary}")
        twin = "; --c-twin" if bus.has_twin else ""
        click.echo(f"  Linux {', '.join(bus.kernels)}; in a tree below {bus.kconfig.subdir}{twin}")
        for option in bus.options:
            click.echo(f"  -o {option.name}={_values(option)}  {option.help}")


def _values(option: Option) -> str:
    """What an option can be, and in brackets what it is by default."""
    if option.default is None:
        return _kind(option)
    return f"{_kind(option)} [{_plain(option.default)}]"


def _kind(option: Option) -> str:
    from kdrv.scaffold.catalog import OptionType

    if option.type is OptionType.BOOL:
        return "true|false"
    return "|".join(map(str, option.choices)) or str(option.type).upper()


def _plain(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _tell(result: ScaffoldResult, in_tree: Path | None) -> None:
    """What was made, and what to do next."""
    from kdrv.scaffold.catalog import load_bus

    def show(path: Path) -> str:
        return os.path.relpath(path)

    summary = load_bus(result.bus, device=result.device).summary
    click.echo(f"{show(result.path)}/  {summary}, for Linux {result.kernel}")
    for file in result.files:
        click.echo(f"  {file}")
    for path in result.edited:
        click.echo(f"{show(path)}  (one line added)")
    for note in result.notes:
        click.echo(f"note: {note}", err=True)
    tree = f" --kernel {os.path.relpath(in_tree, result.path)}" if in_tree else ""
    click.echo(f"\nNext:\n  cd {show(result.path)}\n  kdrv test --qemu{tree}")
