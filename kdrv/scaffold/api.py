"""Making a driver project: :func:`create`, and what it takes and gives."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from kdrv import __version__
from kdrv.core.errors import UsageError
from kdrv.kernel.tree import read_version
from kdrv.scaffold import intree
from kdrv.scaffold.catalog import TEMPLATES, TWIN, Bus, Value, choose_series, load_bus
from kdrv.scaffold.names import PLACEHOLDER, Author, Names
from kdrv.scaffold.options import resolve
from kdrv.scaffold.place import place
from kdrv.scaffold.render import PROBE, Renderer, refuse_clash

UNKNOWN = (
    f"the author is unknown and stands as {PLACEHOLDER.for_module} in the sources; "
    "git config user.name and user.email, or --author and --email, tell kdrv"
)


@dataclass(frozen=True)
class ScaffoldRequest:
    """A project to make.

    ``device`` is one of the bus's devices (empty: its default); with ``twin`` the driver gets a
    twin in C, a second module. ``directory`` is where the project's directory goes. ``kernel`` is
    a series such as ``7.3`` (empty: the newest that the templates are proven against). With
    ``in_tree`` the driver goes into that kernel tree instead, below its ``subdir`` (empty: the
    bus's own), and the tree says the series.
    """

    name: str
    bus: str
    device: str = ""
    twin: bool = False
    directory: Path = field(default_factory=Path.cwd)
    options: Mapping[str, Value] = field(default_factory=dict)
    kernel: str = ""
    author: Author = PLACEHOLDER
    in_tree: Path | None = None
    subdir: str = ""
    templates: Path = TEMPLATES


@dataclass(frozen=True)
class ScaffoldResult:
    """A project that was made.

    ``twin`` is the module of the twin in C, empty without one. ``files`` are relative to ``path``;
    ``edited`` are files of the kernel tree that got a line.
    ``notes`` are sentences for the person who asked.
    """

    path: Path
    name: str
    module: str
    twin: str
    bus: str
    device: str
    kernel: str
    options: Mapping[str, Value]
    files: tuple[str, ...]
    edited: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


def create(request: ScaffoldRequest) -> ScaffoldResult:
    """Make the project, all of it or nothing.

    Raises :class:`UsageError` for a name, option, series or place that cannot be, and
    :class:`SetupError` when the disk refuses.
    """
    names = Names.parse(request.name)
    bus = load_bus(request.bus, request.templates, request.device)
    twin = _twin(request, bus, names)
    spot = _spot(request, bus, names, twin)
    series, newer = choose_series(bus, _wanted_series(request, bus))
    variables: dict[str, Any] = dict(names.variables())
    options = resolve(bus, request.options, Renderer(variables).text)
    variables |= {
        "author": request.author.name,
        "email": request.author.email,
        "module_author": request.author.for_module,
        "license": "GPL",
        "year": datetime.date.today().year,
        "bus": bus,
        "series": bus.series.get(series, {}),
        "kernel": series,
        "kdrv_version": __version__,
        "options": options,
        "twin": twin.module if twin else "",
        "tree": spot.to_tree if spot else "",
        "subdir": str(spot.subdir) if spot else "",
    }
    variables["devices"] = _devices(bus, options, Renderer(variables))

    layers = _layers(request.templates, bus, series, in_tree=spot is not None, twin=bool(twin))
    files = Renderer(variables).layers(layers)
    probe = Renderer(variables | {"Type": PROBE}).layers(layers)
    refuse_clash(
        names.name, names.type, probe[PurePosixPath(f"{names.module}.rs")].content.decode()
    )

    target = spot.directory if spot else request.directory.absolute() / names.name
    symbols = [part.symbol for part in (names, twin) if part]
    edits = intree.edits(spot, *symbols) if spot else {}
    place(target, files, edits)
    return ScaffoldResult(
        path=target,
        name=names.name,
        module=names.module,
        twin=twin.module if twin else "",
        bus=bus.name,
        device=bus.device,
        kernel=series,
        options=options,
        files=tuple(map(str, sorted(files))),
        edited=tuple(edits),
        notes=tuple(filter(None, (newer, UNKNOWN if request.author == PLACEHOLDER else ""))),
    )


def _twin(request: ScaffoldRequest, bus: Bus, names: Names) -> Names | None:
    if not request.twin:
        return None
    if not bus.has_twin:
        raise UsageError(
            f"kdrv has no templates for a twin in C of a {bus.name} driver",
            expected="a bus whose drivers have one, such as pci",
            remedy=f"kdrv new {names.name} --bus {bus.name}",
        )
    return names.twin


def _spot(
    request: ScaffoldRequest, bus: Bus, names: Names, twin: Names | None
) -> intree.Spot | None:
    if request.in_tree is None:
        if request.subdir:
            raise UsageError(
                "--subdir means a directory of a kernel tree, and no tree was given",
                expected="--in-tree DIR as well",
                remedy=f"kdrv new {names.name} --bus {bus.name} --in-tree DIR",
            )
        return None
    tree = request.in_tree.expanduser().absolute()
    read_version(tree)
    spot = intree.find_spot(tree, request.subdir or bus.kconfig.subdir, names)
    for part in filter(None, (names, twin)):
        intree.refuse_taken(tree, part)
    return spot


def _wanted_series(request: ScaffoldRequest, bus: Bus) -> str:
    if request.in_tree is None:
        return request.kernel or bus.kernels[0]
    series = read_version(request.in_tree.expanduser().absolute()).series
    if request.kernel not in ("", series):
        raise UsageError(
            f"{request.in_tree} is Linux {series}, not {request.kernel}",
            expected="no --kernel beside --in-tree: the tree says which it is",
        )
    return series


def _devices(
    bus: Bus, options: Mapping[str, Value], renderer: Renderer
) -> tuple[dict[str, Value], ...]:
    """The bus's devices that hold, their values filled in; what an option turns off is left out."""
    devices = []
    for table in bus.devices:
        if "when" in table and not options[str(table["when"])]:
            continue
        device: dict[str, Value] = {}
        for key, value in table.items():
            if isinstance(value, dict):
                if options[value["option"]]:
                    device[key] = options[value["option"]]
            elif key != "when":
                device[key] = renderer.text(value) if isinstance(value, str) else value
        devices.append(device)
    return tuple(devices)


def _layers(
    templates: Path, bus: Bus, series: str, *, in_tree: bool, twin: bool
) -> tuple[Path, ...]:
    """The directories of templates that make the project, later ones over earlier ones."""
    return (
        templates / "common",
        templates / ("in-tree" if in_tree else "external"),
        bus.path / "files",
        bus.path / f"files-{series}",
        *([bus.path / TWIN] if twin else []),
    )
