"""Every bus with every value of its options: what is written must hold together."""

import ast
import itertools
import re
from typing import NamedTuple

import kconfiglib
import pytest

from kdrv.core.project import load_project
from kdrv.explore.declare import load_menu
from kdrv.scaffold.api import ScaffoldRequest, create
from kdrv.scaffold.catalog import OptionType, bus_names, device_names, load_bus
from kdrv.scaffold.names import MAX_NAME, TWIN_SUFFIX, Author

SAMPLES = {OptionType.ACPI_ID: "LNUXBEEF", OptionType.PCI_ID: "1234:11e8"}
LONG = "-".join(["abcdefghi"] * 6)[:MAX_NAME]


def values(option):
    """What of an option's values decides about the text; the rest only stands in it."""
    if option.type is OptionType.BOOL:
        return [True, False]
    if option.choices:
        return list(option.choices)
    sample = [SAMPLES[option.type]] if option.type in SAMPLES else []
    return [*([] if option.default is None else [option.default]), *sample]


def choices(bus):
    """Every combination of such values, and the ends of each range on their own."""
    keys = [option.name for option in bus.options]
    combinations = itertools.product(*map(values, bus.options))
    chosen = [dict(zip(keys, combination, strict=True)) for combination in combinations]
    for option in bus.options:
        ends = [end for end in (option.min, option.max) if end is not None]
        chosen += [chosen[0] | {option.name: end} for end in ends]
    return [
        # Defaults hold template text, which only kdrv fills in.
        {key: value for key, value in options.items() if "{" not in str(value)}
        for options in chosen
        if all(options[n] for o in bus.options for n in o.requires if options[o.name])
    ]


def every_bus():
    for name in bus_names():
        for device in device_names(name) or ("",):
            yield load_bus(name, device=device)


def every_project():
    for bus in every_bus():
        for twin in [False, True][: 1 + bus.has_twin]:
            for series, options in itertools.product(bus.kernels, choices(bus)):
                label = ",".join(f"{key}={value}" for key, value in options.items())
                kind = bus.name + (f"-{bus.device}" if bus.device else "") + "-twin" * twin
                asked = Asked(bus.name, bus.device, twin, series, options)
                yield pytest.param(asked, id=f"{kind}-{series}-{label}")


class Asked(NamedTuple):
    """What a project is made from."""

    bus: str
    device: str
    twin: bool
    series: str
    options: dict


def make(tmp_path, asked, name="my-widget", **fields):
    author = Author.parse("Zoë Example", "zoe@example.org")
    wanted = {
        "bus": asked.bus,
        "device": asked.device,
        "twin": asked.twin,
        "kernel": asked.series,
        "options": asked.options,
        **fields,
    }
    return create(ScaffoldRequest(name, directory=tmp_path, author=author, **wanted))


@pytest.fixture(scope="module", params=list(every_project()))
def asked(request):
    """What was asked for."""
    return request.param


@pytest.fixture(scope="module")
def made(asked, tmp_path_factory):
    return make(tmp_path_factory.mktemp("made"), asked)


@pytest.fixture(scope="module")
def rust(made):
    return (made.path / "my_widget.rs").read_text()


def test_has_all_its_parts(made):
    parts = {"my_widget.rs", "Kbuild", "Makefile", "Kconfig", "README.md", "kdrv.toml"}
    assert parts | {"tests/test_my_widget.py", ".gitignore"} <= set(made.files)
    assert ("my_widget_c.c" in made.files) == bool(made.twin)
    for file in made.files:
        assert (made.path / file).is_file()


def test_is_a_project_that_kdrv_reads(made, asked):
    project = load_project(made.path)
    assert project.project.name == "my-widget"
    assert project.project.kernel == asked.series
    assert project.driver.module == "my_widget"
    assert project.driver.twin == made.twin
    assert project.module_dir == made.path
    assert project.scaffold is not None
    assert (project.scaffold.bus, project.scaffold.device) == (asked.bus, asked.device)
    assert project.scaffold.options == made.options
    assert set(asked.options.items()) <= set(made.options.items())


def test_builds_the_modules_of_its_sources(made, rust):
    kbuild = (made.path / "Kbuild").read_text()
    objects = [("MY_WIDGET", "my_widget.o"), ("MY_WIDGET_C", "my_widget_c.o")]
    expected = objects[: 2 if made.twin else 1]
    set_here = re.findall(r"^CONFIG_(\w+) \?= m$", kbuild, re.M)
    assert set_here == [symbol for symbol, _ in expected]
    assert re.findall(r"^obj-\$\(CONFIG_(\w+)\) \+= (\S+)$", kbuild, re.M) == expected
    assert re.findall(r'^    name: "(.*)",$', rust, re.M) == ["my_widget"]


def test_kconfig_has_the_symbols(made):
    kconfig = kconfiglib.Kconfig(str(made.path / "Kconfig"), warn=False)
    assert ("MY_WIDGET_C" in kconfig.syms) == bool(made.twin)
    for module in filter(None, (made.module, made.twin)):
        symbol = kconfig.syms[module.upper()]
        (node,) = symbol.nodes
        assert symbol.orig_type == kconfiglib.TRISTATE
        assert node.prompt
        # checkpatch.pl asks for four lines of help.
        assert len([line for line in node.help.splitlines() if line]) >= 4
        assert f"will be called {module}." in node.help


@pytest.mark.parametrize("name", ["ab", LONG])
def test_sources_are_clean_whatever_the_name(tmp_path, asked, name):
    longest = MAX_NAME - len(TWIN_SUFFIX) * asked.twin
    result = make(tmp_path, asked, name[:longest])
    for file in result.files:
        text = (result.path / file).read_text()
        assert text.endswith("\n")
        assert not text.endswith("\n\n")
        assert "\n\n\n\n" not in text
        assert not re.search(r"[ \t]$", text, re.M), file
        assert not re.search(r"{%|%}|{#|#}|{{ ", text), file
        if file.endswith((".rs", ".c", ".py")):
            assert max(map(len, text.splitlines())) <= 100, file
        if file.endswith((".rs", ".c", "Kbuild", "Kconfig", "Makefile")):
            assert "SPDX-License-Identifier: GPL-2.0" in text.splitlines()[0]
        if file.endswith(".py"):
            ast.parse(text)
        if file.endswith(".sh"):
            assert text.startswith("#!/bin/sh\n# SPDX-License-Identifier: GPL-2.0\n")
            assert (result.path / file).stat().st_mode & 0o100


def test_every_unsafe_block_says_why_it_is_safe(rust):
    lines = rust.splitlines()
    for number, line in enumerate(lines):
        if re.search(r"\bunsafe\b", line.split("//")[0]):
            above = itertools.takewhile(
                lambda text: text.strip().startswith("//"), reversed(lines[:number])
            )
            assert any("SAFETY:" in comment for comment in above), line


def test_the_author_is_named(rust):
    assert "Zoë Example <zoe@example.org>" in rust
    assert 'authors: ["Zoe Example <zoe@example.org>"]' in rust


def test_in_a_tree_it_is_named_by_its_symbol(tmp_path, asked):
    tree = kernel_tree(tmp_path, asked.series, load_bus(asked.bus).kconfig.subdir)
    result = make(tmp_path, asked, kernel="", in_tree=tree)
    assert result.kernel == asked.series
    driver = load_project(result.path).driver
    assert (driver.symbol, driver.path, driver.module) == ("MY_WIDGET", "", "my_widget")
    assert "Kbuild" not in result.files
    makefile = (result.path / "Makefile").read_text()
    assert "obj-$(CONFIG_MY_WIDGET) += my_widget.o" in makefile
    readme = (result.path / "README.md").read_text()
    (way,) = set(re.findall(r"--kernel (\S+)", readme))
    assert (result.path / way).resolve() == tree.resolve()


def kernel_tree(tmp_path, series, subdir):
    tree = tmp_path / "linux"
    folder = tree / subdir
    folder.mkdir(parents=True)
    major, minor = series.split(".")
    (tree / "Makefile").write_text(f"VERSION = {major}\nPATCHLEVEL = {minor}\nSUBLEVEL = 1\n")
    (folder / "Kconfig").write_text("")
    (folder / "Makefile").write_text("")
    return tree


def test_every_bus_has_what_its_series_need():
    for bus in every_bus():
        assert bus.kernels
        assert set(bus.series) <= set(bus.kernels)
        facts = {frozenset(bus.series.get(series, {})) for series in bus.kernels}
        assert len(facts) == 1, f"{bus.name}: the series do not say the same things"
        for folder in bus.path.glob("files-*"):
            assert folder.name.removeprefix("files-") in bus.kernels


def test_devices_follow_the_options(tmp_path):
    asked = Asked("platform", "", False, "7.3", {"compatible": "acme,w", "registers": 65536})
    result = make(tmp_path, asked)
    (device,) = load_project(result.path).machine.devices()
    assert device.kind == "platform"
    assert device.options == {
        "compatible": "acme,w",
        "regs": 65536,
        "clock-frequency": 25000000,
    }
    result = make(tmp_path, asked._replace(options={"registers": 0, "clock": 0}), name="without")
    (device,) = load_project(result.path).machine.devices()
    assert device.options == {"compatible": "example,without"}


def test_the_twin_answers_the_same_calls(tmp_path):
    for bus in filter(lambda bus: bus.has_twin, every_bus()):
        asked = Asked(bus.name, bus.device, True, bus.kernels[0], {})
        result = make(tmp_path, asked, name=f"w-{bus.device}")
        rust = (result.path / f"{result.module}.rs").read_text()
        c = (result.path / f"{result.twin}.c").read_text()
        numbers = re.findall(r"_IO[RW]+(?:::<[^>]*>)?\('\|'(?: as u32)?, (\w+)", rust)
        assert numbers
        assert numbers == re.findall(r"_IO[RW]+\('\|', (\w+)", c)
        assert f'c"{result.name}"' in rust
        assert f'#define NODE_NAME\t"{result.name}"' in c
        # What a module is called says its file; what it is for says the Rust driver's summary.
        assert 'MODULE_LICENSE("GPL")' in c


def test_with_a_twin_a_tree_builds_both(tmp_path):
    asked = Asked("pci", "edu", True, "7.3", {})
    tree = kernel_tree(tmp_path, asked.series, "drivers/misc")
    result = make(tmp_path, asked, kernel="", in_tree=tree)
    makefile = (tree / "drivers/misc/Makefile").read_text()
    for symbol in "MY_WIDGET", "MY_WIDGET_C":
        assert f"obj-$(CONFIG_{symbol}) += my_widget/\n" in makefile
    makefile = (result.path / "Makefile").read_text()
    assert "obj-$(CONFIG_MY_WIDGET_C) += my_widget_c.o\n" in makefile


def test_the_operations_are_such(made, asked):
    operations = load_menu([made.path / "tests/operations.py"]).operations
    # A faux device without a value has nothing but its place in sysfs.
    assert len(operations) >= 4 - (asked.options.get("debugfs") is False)
    assert any(operation.serves for operation in operations.values())
