"""Which devices of a machine QEMU makes itself, and which are played by kdrv's models.

What QEMU has it makes itself, unless the device says ``model = true``; what only
:mod:`kdrv.devices.catalog` has is always a model, served by :mod:`kdrv.qemu.vfiouser`.
"""

from __future__ import annotations

from kdrv.core.errors import SetupError, UsageError
from kdrv.devices.catalog import MODELS, model_of
from kdrv.machine.contract import DeviceSpec
from kdrv.qemu.catalog import Catalog
from kdrv.qemu.parts import Parts
from kdrv.qemu.vfiouser.server import Server
from kdrv.toolchain.base import Bind

DRIVER = "vfio-user-pci"
OPTION = "model"
QEMU_NAMES = {"testdev": "pci-testdev"}
"""Kinds whose name in QEMU is another one."""
PLACEMENT = ("addr", "bus", "id")
"""Options that say where QEMU puts a device; all others of a model are the model's own."""
MOUNT = "/run/kdrv/devices"
MEMORY = "kdrv-ram"
TIMEOUT_MS = 600_000
"""After this QEMU answers for the model, by all ones. Whoever waits for the guest gives up before;
a person in a debugger does not."""


def is_model(device: DeviceSpec, catalog: Catalog) -> bool:
    """Whether kdrv plays ``device``. Raises :class:`UsageError` for a ``model`` that is no bool."""
    wanted = device.options.get(OPTION)
    if wanted is not None and not isinstance(wanted, bool):
        raise UsageError(
            f"device {device.kind} has model = {wanted!r}",
            expected="true (kdrv's own model) or false (QEMU's device)",
        )
    if wanted is None:
        return device.kind in MODELS and of_qemu(device).kind not in catalog.names()
    return wanted


def of_qemu(device: DeviceSpec) -> DeviceSpec:
    """A device that QEMU makes, in QEMU's words."""
    options = {name: value for name, value in device.options.items() if name != OPTION}
    return DeviceSpec(QEMU_NAMES.get(device.kind, device.kind), options)


def of_kdrv(device: DeviceSpec) -> DeviceSpec:
    """A device that kdrv plays, in its model's words."""
    names = {theirs: ours for ours, theirs in QEMU_NAMES.items()}
    kept = {n: v for n, v in device.options.items() if n not in (OPTION, *PLACEMENT)}
    return DeviceSpec(names.get(device.kind, device.kind), kept)


def check(device: DeviceSpec, catalog: Catalog) -> None:
    """Raise :class:`UsageError` or :class:`SetupError` for a device that cannot be."""
    if not is_model(device, catalog):
        catalog.check(of_qemu(device))
        return
    played = of_kdrv(device)
    if played.kind not in MODELS:
        raise UsageError(
            f"kdrv has no model of {device.kind!r}",
            expected="one of " + ", ".join(sorted(MODELS)),
            remedy="leave model = true out: the device is then QEMU's own",
        )
    model_of(played.kind, played.options)
    if DRIVER not in catalog.names():
        raise SetupError(
            f"this QEMU cannot have a {device.kind}: it has no {DRIVER}",
            expected="QEMU 10.1 or later",
            remedy="kdrv doctor",
        )


def reachable(server: Server, memory_mib: int) -> Parts:
    """What QEMU needs to talk to ``server`` and to let it reach the guest's memory."""
    size = f"size={memory_mib}M,share=on"
    return Parts(
        arguments=(
            *("-object", f"memory-backend-memfd,id={MEMORY},{size}"),
            *("-machine", f"memory-backend={MEMORY}"),
        ),
        binds=(Bind(server.place, MOUNT),),
    )


def device_option(device: DeviceSpec, name: str, server: Server) -> dict[str, object]:
    """Put the model of ``device`` into ``server``; what ``-device`` and ``device_add`` then need.

    Raises :class:`UsageError` for a name that is taken and
    :class:`~kdrv.devices.errors.DeviceFault` when the model cannot be made.
    """
    played = of_kdrv(device)
    door = server.add(name, model_of(played.kind, played.options), played.options)
    placed = {key: str(device.options[key]) for key in PLACEMENT if key in device.options}
    return {
        "driver": DRIVER,
        **placed,
        "rombar": 0,
        # A posted write lets the guest run on before its device has acted.
        "x-no-posted-writes": True,
        "x-msg-timeout": TIMEOUT_MS,
        "socket": {"type": "unix", "path": f"{MOUNT}/{door}"},
    }
