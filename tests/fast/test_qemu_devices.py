"""Which devices a QEMU machine can have, and how firmware tells of platform devices."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdrv.core.context import Context
from kdrv.core.errors import SetupError, UsageError
from kdrv.core.process import Command
from kdrv.devices.edu import Edu
from kdrv.kernel.arch import Arch
from kdrv.machine.contract import DeviceSpec, named
from kdrv.machine.platform import PAGE, quoted
from kdrv.qemu import models
from kdrv.qemu.acpi import acpi_parts, ssdt
from kdrv.qemu.boards import board_of
from kdrv.qemu.catalog import Catalog, device_option
from kdrv.qemu.devicetree import nodes
from kdrv.qemu.platform import layout
from kdrv.qemu.vfiouser.server import Server

from .conftest import FakeRunner

TOP = 0x0F50_0000
HELP = """\
Misc devices:
name "edu", bus PCI
name "pci-testdev", bus PCI, desc "PCI Test Device"
name "vfio-user-pci", bus PCI, desc "VFIO over socket PCI device assignment"
name "virtio-serial-pci", bus PCI, alias "virtio-serial"
"""
EDU_HELP = """\
edu options:
  addr=<str>             - Slot and optional function number (default: -1)
  dma_mask=<uint64>
"""


class FakeTools:
    """A toolchain without a sandbox."""

    name = "fake"
    identity = "fake-1"
    versions: Mapping[str, str] = {}

    def command(self, argv: Sequence[str], **_: Any) -> Command:
        return Command(tuple(argv))


@pytest.fixture
def catalog(ctx: Context, runner: FakeRunner) -> Catalog:
    others = [(f"{name},help", "") for name in ("pci-testdev", "virtio-serial")]
    runner.answers = [("edu,help", EDU_HELP), ("-device help", HELP), *others]
    return Catalog(FakeTools(), ctx, board_of(Arch.X86_64))


def test_a_known_device_with_known_options_passes(catalog: Catalog) -> None:
    catalog.check(DeviceSpec("edu", {"dma_mask": 4095, "addr": "5", "id": "e0", "bus": "pcie.0"}))
    assert "virtio-serial" in catalog.names()


def test_a_misspelt_device_is_refused_with_near_names(catalog: Catalog) -> None:
    with pytest.raises(UsageError) as error:
        catalog.check(DeviceSpec("eduu"))
    assert "'eduu'" in error.value.message
    assert "near to it: edu" in error.value.expected
    assert error.value.remedy.endswith("qemu-system-x86_64 -device help")


def test_a_misspelt_option_is_refused_with_near_names(catalog: Catalog) -> None:
    with pytest.raises(UsageError) as error:
        catalog.check(DeviceSpec("edu", {"dmamask": 1}))
    assert "no option 'dmamask'" in error.value.message
    assert "near to it: dma_mask" in error.value.expected


def test_qemu_is_asked_once(catalog: Catalog, ctx: Context, runner: FakeRunner) -> None:
    for _ in range(3):
        Catalog(FakeTools(), ctx, board_of(Arch.X86_64)).check(DeviceSpec("edu", {"dma_mask": 1}))
    assert len(runner.ran) == 2


def test_options_are_written_as_qemu_reads_them() -> None:
    device = DeviceSpec("edu", {"dma_mask": 255, "multifunction": True, "romfile": "a,b"})
    assert device_option(device, id="x") == (
        "edu,dma_mask=255,multifunction=on,romfile=a,,b,id=x"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("device", "played"),
    [
        (DeviceSpec("edu"), False),
        (DeviceSpec("edu", {"model": False}), False),
        (DeviceSpec("edu", {"model": True, "dma_mask": 4095, "addr": "5"}), True),
        (DeviceSpec("testdev"), False),
        (DeviceSpec("pci-testdev", {"model": True}), True),
        (DeviceSpec("ringdev", {"id": "r", "bus": "pcie.0"}), True),
        (DeviceSpec("virtio-serial"), False),
    ],
)
def test_who_makes_a_device(catalog: Catalog, device: DeviceSpec, played: bool) -> None:
    models.check(device, catalog)
    assert models.is_model(device, catalog) is played


@pytest.mark.parametrize(
    ("device", "says"),
    [
        (DeviceSpec("edu", {"model": "yes"}), "model = 'yes'"),
        (DeviceSpec("virtio-serial", {"model": True}), "no model of 'virtio-serial'"),
        (DeviceSpec("ringdev", {"model": False}), "no device 'ringdev'"),
        (DeviceSpec("ringdev", {"depth": 4}), "no option 'depth'"),
        (DeviceSpec("edu", {"model": True, "romfile": "x"}), "no option 'romfile'"),
        (DeviceSpec("rigdev"), "no device 'rigdev'"),
    ],
)
def test_a_model_that_cannot_be_is_refused(catalog: Catalog, device: DeviceSpec, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        models.check(device, catalog)


def test_a_misspelt_model_is_refused_with_near_names(catalog: Catalog) -> None:
    with pytest.raises(UsageError) as error:
        models.check(DeviceSpec("rigdev"), catalog)
    assert "near to it: ringdev" in error.value.expected


def test_a_qemu_without_vfio_user_cannot_have_models(ctx: Context, runner: FakeRunner) -> None:
    runner.answers = [("-device help", 'name "edu", bus PCI\n')]
    old = Catalog(FakeTools(), ctx, board_of(Arch.X86_64))
    with pytest.raises(SetupError, match="no vfio-user-pci"):
        models.check(DeviceSpec("ringdev"), old)


def test_the_models_options_and_qemus_are_told_apart() -> None:
    spec = DeviceSpec("edu", {"model": True, "dma_mask": 4095, "addr": 5})
    with Server() as server:
        option = models.device_option(spec, "edu", server)
        model = server.devices["edu"]
        assert isinstance(model, Edu)
        assert model.dma_mask == 4095
    assert option["driver"] == "vfio-user-pci"
    assert option["addr"] == "5"
    assert "dma_mask" not in option
    assert option["x-no-posted-writes"] is True
    assert models.of_qemu(DeviceSpec("testdev", {"model": False})) == DeviceSpec("pci-testdev")


def test_every_device_has_a_name() -> None:
    specs = [DeviceSpec(kind) for kind in ("edu", "ringdev", "edu", "edu")]
    assert [name for name, _ in named(specs)] == ["edu", "ringdev", "edu1", "edu2"]


def _platform(**options: str | int | bool) -> DeviceSpec:
    return DeviceSpec("platform", {"compatible": "acme,widget", **options})


def test_registers_take_whole_pages_below_the_top() -> None:
    placed = layout((_platform(regs=1), _platform(), _platform(regs=PAGE + 1)), TOP)
    assert [d.size for d in placed] == [PAGE, 0, 2 * PAGE]
    assert placed[0].address == TOP - PAGE
    assert placed[2].address == TOP - 3 * PAGE


@pytest.mark.parametrize(
    ("device", "says"),
    [
        (DeviceSpec("platform"), "needs compatible"),
        (DeviceSpec("platform", {"compatible": 7}), "needs compatible"),
        (DeviceSpec("platform", {"compatible": 'x"}'}), "needs compatible"),
        (_platform(regs=-1), "regs = -1"),
        (_platform(regs=True), "regs = True"),
        (_platform(regs="4k"), "regs = '4k'"),
        (_platform(regs=1 << 30), "no number of bytes"),
        (_platform(**{"a b": 1}), "'a b' cannot be"),
        (_platform(reg=1), "'reg' cannot be"),
        (_platform(**{"acme,x": -1}), "is -1"),
        (_platform(**{"acme,x": 1 << 64}), "property acme,x"),
        (_platform(**{"acme,x": "two\nlines"}), "holds"),
    ],
)
def test_an_impossible_platform_device_is_refused(device: DeviceSpec, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        layout((device,), TOP)


def test_the_acpi_table_describes_the_device() -> None:
    text = ssdt(layout((_platform(regs=PAGE, depth=42, fast=True, slow=False, label="x"),), TOP))
    assert 'Name (_HID, "PRP0001")' in text
    assert f"Memory32Fixed (ReadWrite, {TOP - PAGE:#x}, 0x1000)" in text
    for pair in ('"compatible", "acme,widget"', '"depth", 0x2a', '"fast", 0x1', '"label", "x"'):
        assert f"Package () {{ {pair} }}" in text
    assert "slow" not in text


def test_the_device_tree_describes_the_device() -> None:
    placed = layout((_platform(regs=PAGE, depth=42, wide=1 << 32, fast=True, slow=False),), TOP)
    text = nodes(placed)
    at = f"{TOP - PAGE:x}"
    assert f'widget@{at} {{ compatible = "acme,widget"; reg = <0x0 0x{at} 0x0 0x1000>;' in text
    assert "depth = <0x2a>; wide = <0x1 0x0>; fast;" in text
    assert f"kdrv-regs@{at} {{ reg = <0x0 0x{at} 0x0 0x1000>; no-map; }};" in text
    assert "slow" not in text


def test_two_devices_without_registers_have_nodes_of_their_own() -> None:
    text = nodes(layout((_platform(), _platform()), TOP))
    assert "widget-0 {" in text
    assert "widget-1 {" in text
    assert "reserved-memory" not in text


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)))
def test_no_text_escapes_its_quotes(text: str) -> None:
    inside = quoted(text)[1:-1]
    assert re.fullmatch(r'(?:[^"\\]|\\["\\])*', inside)
    assert re.sub(r"\\(.)", r"\1", inside) == text


def test_the_kernel_is_kept_off_the_registers(ctx: Context, runner: FakeRunner) -> None:
    runner.answers = [("iasl", "")]
    parts = acpi_parts(FakeTools(), ctx, layout((_platform(regs=PAGE), _platform()), TOP))
    assert parts.cmdline == (f"memmap=4K${TOP - PAGE:#x}",)
    assert parts.arguments == ("-acpitable", "file=/run/kdrv/acpi/kdrv.aml")
    again = acpi_parts(FakeTools(), ctx, layout((_platform(regs=PAGE), _platform()), TOP))
    assert again == parts
    assert len(runner.ran) == 1


def test_an_architecture_qemu_does_not_boot_is_refused() -> None:
    with pytest.raises(UsageError, match="architecture um"):
        board_of(Arch.UM)
