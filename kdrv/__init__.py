"""kdrv: write Linux kernel drivers in Rust and prove them without the hardware."""

__version__ = "0.1.0"
