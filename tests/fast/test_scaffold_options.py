import pytest

from kdrv.core.errors import SetupError, UsageError
from kdrv.scaffold.catalog import (
    Bus,
    Kconfig,
    Option,
    OptionType,
    bus_names,
    choose_series,
    device_names,
    load_bus,
)
from kdrv.scaffold.options import read_value, resolve


def bus(*options):
    return Bus("T", "s", ("7.3", "7.2"), Kconfig("drivers/misc", "help"), options=options, name="b")


def option(kind, **fields):
    return Option("x", "help", OptionType(kind), **fields)


@pytest.mark.parametrize(
    ("made", "given", "value"),
    [
        (option("bool"), "Yes", True),
        (option("bool"), "off", False),
        (option("bool"), True, True),
        (option("int"), "0x10", 16),
        (option("int", min=1, max=3), 3, 3),
        (option("choice", choices=(0, 4096)), "4096", 4096),
        (option("choice", choices=("msi", "intx")), "intx", "intx"),
        (option("string"), " plain text ", "plain text"),
        (option("pci-id"), "1234:11E8", "1234:11e8"),
        (option("compatible"), "acme,widget-2", "acme,widget-2"),
        (option("acpi-id"), "LNUXBEEF", "LNUXBEEF"),
        (option("acpi-id"), "PNP0C02", "PNP0C02"),
        (option("acpi-id", default=""), "", ""),
    ],
)
def test_values_are_read(made, given, value):
    result = read_value(made, given)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("made", "given"),
    [
        (option("bool"), "maybe"),
        (option("int"), "many"),
        (option("int", min=1, max=3), "0"),
        (option("int", min=1, max=3), "4"),
        (option("choice", choices=(0, 4096)), "1"),
        (option("string"), 'a "quoted" one'),
        (option("string"), "two\nlines"),
        (option("pci-id"), "1234"),
        (option("pci-id"), "12345:1"),
        (option("pci-id"), "ffff:ffff"),
        (option("compatible"), "widget"),
        (option("compatible"), "acme,wid get"),
        (option("compatible"), "acme," + "w" * 60),
        (option("compatible"), 'acme,"); evil!("'),
        (option("acpi-id"), "lnuxbeef"),
        (option("acpi-id"), "LNUX"),
        (option("acpi-id"), ""),
    ],
)
def test_bad_values_are_refused(made, given):
    with pytest.raises(UsageError) as error:
        read_value(made, given)
    assert error.value.expected


def test_defaults_are_filled_in_and_checked():
    made = bus(Option("id", "help", OptionType.COMPATIBLE, default="acme,NAME"))
    assert resolve(made, {}, lambda text: text.replace("NAME", "w")) == {"id": "acme,w"}
    with pytest.raises(UsageError):
        resolve(made, {}, lambda text: "no compatible string")


def test_an_option_without_default_must_be_given():
    made = bus(Option("id", "help", OptionType.PCI_ID))
    with pytest.raises(UsageError) as error:
        resolve(made, {}, str)
    assert "-o id=" in error.value.remedy
    assert resolve(made, {"id": "1234:5678"}, str) == {"id": "1234:5678"}


def test_an_option_needs_what_it_requires():
    made = bus(
        Option("irq", "help", OptionType.BOOL, default=True),
        Option("dma", "help", OptionType.BOOL, default=True, requires=("irq",)),
    )
    assert resolve(made, {"irq": "no", "dma": "no"}, str) == {"irq": False, "dma": False}
    with pytest.raises(UsageError, match="dma needs irq"):
        resolve(made, {"irq": "no"}, str)


def test_an_unknown_option_is_refused_with_the_known_ones():
    with pytest.raises(UsageError) as error:
        resolve(bus(option("bool", default=True)), {"y": "1"}, str)
    assert error.value.expected == "one of: x"


def test_the_series_decides_the_templates():
    assert choose_series(bus(), "7.2") == ("7.2", "")
    series, note = choose_series(bus(), "7.10")
    assert series == "7.3"
    assert "7.10" in note


@pytest.mark.parametrize("series", ["6.12", "7.1", "7", "latest", "7.3.4"])
def test_a_series_the_templates_do_not_fit_is_refused(series):
    with pytest.raises(UsageError) as error:
        choose_series(bus(), series)
    assert error.value.expected == "one of: 7.3, 7.2"


def test_a_bus_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(UsageError) as error:
        load_bus("isa")
    assert error.value.expected == f"one of: {', '.join(bus_names())}"


def test_a_broken_bus_names_its_file_and_key(tmp_path):
    folder = tmp_path / "bus" / "odd"
    folder.mkdir(parents=True)
    (folder / "bus.toml").write_text('title = "T"\nkernels = 3\n')
    with pytest.raises(SetupError, match=r"bus\.toml.*(summary|kernels)"):
        load_bus("odd", tmp_path)


def test_a_bus_has_its_default_device():
    assert load_bus("pci").device == "edu"
    assert load_bus("pci", device="ringdev").summary != load_bus("pci").summary
    assert load_bus("misc").device == ""


@pytest.mark.parametrize(
    ("bus_name", "expected"),
    [("pci", f"one of: {', '.join(device_names('pci'))}"), ("misc", "no --device for this bus")],
)
def test_a_device_that_does_not_exist_is_refused_with_those_that_do(bus_name, expected):
    with pytest.raises(UsageError) as error:
        load_bus(bus_name, device="floppy")
    assert error.value.expected == expected


def test_a_device_lies_over_its_bus(tmp_path):
    folder = tmp_path / "bus" / "odd"
    (folder / "one").mkdir(parents=True)
    (folder / "bus.toml").write_text(
        'title = "T"\nsummary = "s"\nkernels = ["7.3"]\ndefault_device = "one"\n'
        '[kconfig]\nsubdir = "drivers/misc"\ndepends = ["PCI"]\nhelp = ""\n'
    )
    (folder / "one/device.toml").write_text(
        'summary = "over"\n[kconfig]\nhelp = "h"\n[[device]]\nkind = "one"\n'
    )
    found = load_bus("odd", tmp_path)
    assert (found.title, found.summary, found.device) == ("T", "over", "one")
    assert (found.kconfig.depends, found.kconfig.help) == (("PCI",), "h")
    assert found.devices == ({"kind": "one"},)
    assert found.path == folder / "one"
    (folder / "one/device.toml").write_text("kernels = 3\n")
    with pytest.raises(SetupError, match=r"device\.toml.*kernels"):
        load_bus("odd", tmp_path)
