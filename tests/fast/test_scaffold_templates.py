"""Every bus with every value of its options: what is written must hold together."""

import ast
import itertools
import re

import kconfiglib
import pytest

from kdrv.core.project import load_project
from kdrv.scaffold.api import ScaffoldRequest, create
from kdrv.scaffold.catalog import OptionType, bus_names, load_bus
from kdrv.scaffold.names import MAX_NAME, Author

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


def every_project():
    for name in bus_names():
        bus = load_bus(name)
        for series, options in itertools.product(bus.kernels, choices(bus)):
            label = ",".join(f"{key}={value}" for key, value in options.items())
            yield pytest.param((name, series, options), id=f"{name}-{series}-{label}")


def make(tmp_path, bus, series, options, name="my-widget", **fields):
    author = Author.parse("Zoë Example", "zoe@example.org")
    return create(
        ScaffoldRequest(
            name, bus, directory=tmp_path, options=options, kernel=series, author=author, **fields
        )
    )


@pytest.fixture(scope="module", params=list(every_project()))
def asked(request):
    """What was asked for: bus, series, options."""
    return request.param


@pytest.fixture(scope="module")
def made(asked, tmp_path_factory):
    return make(tmp_path_factory.mktemp("made"), *asked)


@pytest.fixture(scope="module")
def rust(made):
    return (made.path / "my_widget.rs").read_text()


def test_has_all_its_parts(made):
    parts = {"my_widget.rs", "Kbuild", "Makefile", "Kconfig", "README.md", "kdrv.toml"}
    assert parts | {"tests/test_my_widget.py", ".gitignore"} <= set(made.files)
    for file in made.files:
        assert (made.path / file).is_file()


def test_is_a_project_that_kdrv_reads(made, asked):
    bus, series, options = asked
    project = load_project(made.path)
    assert project.project.name == "my-widget"
    assert project.project.kernel == series
    assert project.driver.module == "my_widget"
    assert project.module_dir == made.path
    assert project.scaffold is not None
    assert project.scaffold.bus == bus
    assert project.scaffold.options == made.options
    assert set(options.items()) <= set(made.options.items())


def test_builds_the_module_that_the_source_declares(made, rust):
    kbuild = (made.path / "Kbuild").read_text()
    assert re.findall(r"^(\w+) \?= m$", kbuild, re.M) == ["CONFIG_MY_WIDGET"]
    objects = re.findall(r"^obj-\$\(CONFIG_MY_WIDGET\) \+= (\S+)$", kbuild, re.M)
    assert objects == ["my_widget.o"]
    assert re.findall(r'^    name: "(.*)",$', rust, re.M) == ["my_widget"]


def test_kconfig_has_the_symbol(made):
    kconfig = kconfiglib.Kconfig(str(made.path / "Kconfig"), warn=False)
    (node,) = kconfig.syms["MY_WIDGET"].nodes
    assert kconfig.syms["MY_WIDGET"].orig_type == kconfiglib.TRISTATE
    assert node.prompt
    # checkpatch.pl asks for four lines of help.
    assert len([line for line in node.help.splitlines() if line]) >= 4
    assert "my_widget" in node.help


@pytest.mark.parametrize("name", ["ab", LONG])
def test_sources_are_clean_whatever_the_name(tmp_path, asked, name):
    result = make(tmp_path, *asked, name)
    for file in result.files:
        text = (result.path / file).read_text()
        assert text.endswith("\n")
        assert not text.endswith("\n\n")
        assert "\n\n\n\n" not in text
        assert not re.search(r"[ \t]$", text, re.M), file
        assert not re.search(r"{%|%}|{#|#}|{{ ", text), file
        if file.endswith((".rs", ".py")):
            assert max(map(len, text.splitlines())) <= 100, file
        if file.endswith((".rs", "Kbuild", "Kconfig", "Makefile")):
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
    bus, series, options = asked
    tree = kernel_tree(tmp_path, series, load_bus(bus).kconfig.subdir)
    result = make(tmp_path, bus, "", options, in_tree=tree)
    assert result.kernel == series
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
    for name in bus_names():
        bus = load_bus(name)
        assert bus.kernels
        assert set(bus.series) <= set(bus.kernels)
        facts = {frozenset(bus.series.get(series, {})) for series in bus.kernels}
        assert len(facts) == 1, f"{name}: the series do not say the same things"
        for folder in bus.path.glob("files-*"):
            assert folder.name.removeprefix("files-") in bus.kernels


def test_devices_follow_the_options(tmp_path):
    result = make(tmp_path, "platform", "7.3", {"compatible": "acme,w", "registers": 65536})
    (device,) = load_project(result.path).machine.devices()
    assert device.kind == "platform"
    assert device.options == {
        "compatible": "acme,w",
        "regs": 65536,
        "clock-frequency": 25000000,
    }
    result = make(tmp_path, "platform", "7.3", {"registers": 0, "clock": 0}, name="without")
    (device,) = load_project(result.path).machine.devices()
    assert device.options == {"compatible": "example,without"}
