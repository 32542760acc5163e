"""Telling the kernel that a device was pulled out.

``surprise_remove`` makes a device answer with all ones and do nothing more. A hot-plug controller
would tell the kernel some time later. User Mode Linux has a way for that, which cannot be used:
when a device's vhost-user connection closes, ``arch/um/drivers/virtio_uml.c`` unregisters the
device in a work item, but an access that comes before it finds a broken queue, and
``virtio_pcidev_send_cmd`` warns (``WARN_ONCE``): the simulator would make the kernel warn by
itself. So the kernel is told through sysfs, as by a person, and goes the way of a hot-plug from
``pci_stop_and_remove_bus_device`` on; what it does not do is to mark the device as disconnected
first (``pci_dev_is_disconnected``).
"""

from __future__ import annotations

from kdrv.guest.session import Session
from kdrv.sim.machine import SimMachine


def announce(machine: SimMachine, session: Session) -> tuple[str, ...]:
    """Have the kernel remove every device that was pulled out; gives their names.

    Returns when the drivers' ``remove`` has run. A device that the kernel has removed before is
    left out.
    """
    told: list[str] = []
    for name in machine.pulled:
        try:
            session.write_text(f"/sys/bus/pci/devices/{machine.addresses[name]}/remove", "1")
        except FileNotFoundError:
            continue
        told.append(name)
    return tuple(told)
