"""kdrv's device models in QEMU: served over UNIX sockets to its ``vfio-user-pci`` device.

The protocol is QEMU's ``docs/interop/vfio-user.rst``. :mod:`~kdrv.qemu.vfiouser.wire` has its
messages, :mod:`~kdrv.qemu.vfiouser.session` answers them, :mod:`~kdrv.qemu.vfiouser.slot` is what
a model is plugged into, :mod:`~kdrv.qemu.vfiouser.server` is the thread that serves all models of
a machine.
"""
