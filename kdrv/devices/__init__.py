"""Device models in plain Python: registers, config space, interrupts, DMA, timers.

A model knows the small :class:`~kdrv.devices.host.Host` protocol and nothing of the world it is in.
``kdrv.devices.catalog`` names the models kdrv ships; ``kdrv.devices.bench`` runs one alone.
"""
