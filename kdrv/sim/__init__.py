"""The simulated world: a kernel as User Mode Linux under virtual time, kdrv plays its hardware.

One thread, one queue of events ordered by (time, sequence): the same inputs give the same bytes.
``kdrv.sim.world`` is the door; ``docs`` of the kernel's side: ``arch/um/kernel/time.c``,
``arch/um/drivers/virtio_uml.c`` and ``arch/um/drivers/virtio_pcidev.c``.
"""
