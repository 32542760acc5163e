"""The device models kdrv ships, by the kind a machine's :class:`DeviceSpec` names."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from kdrv.core.errors import UsageError
from kdrv.devices.edu import Edu
from kdrv.devices.host import Host
from kdrv.devices.pci import PciDevice
from kdrv.devices.ringdev import RingDev
from kdrv.devices.testdev import TestDev

MODELS: dict[str, type[PciDevice]] = {
    "testdev": TestDev,
    "pci-testdev": TestDev,  # as QEMU calls it
    "edu": Edu,
    "ringdev": RingDev,
}


def model_of(kind: str, options: Mapping[str, str | int | bool]) -> type[PciDevice]:
    """The model of ``kind``. Raises :class:`UsageError` for a kind or option that is not known."""
    model = MODELS.get(kind)
    if model is None:
        raise UsageError(
            f"there is no device model {kind!r}",
            expected="one of " + ", ".join(sorted(MODELS)),
            remedy="name one of them, or run the test with --qemu",
        )
    known = list(inspect.signature(model).parameters)[1:]
    for option in options:
        if option not in known:
            raise UsageError(
                f"the device model {kind!r} has no option {option!r}",
                expected="one of " + ", ".join(known) if known else "no options",
            )
    return model


def make(kind: str, host: Host, options: Mapping[str, str | int | bool]) -> PciDevice:
    """A device of ``kind``, powered on. Raises :class:`UsageError` as :func:`model_of` does."""
    return model_of(kind, options)(host, **options)
