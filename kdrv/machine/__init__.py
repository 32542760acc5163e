"""The contract that both worlds keep: QEMU (``kdrv.qemu``) and the simulator (``kdrv.sim``)."""
