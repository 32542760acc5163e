"""Kernel trees: where they come from, what version they are, what they ask of a toolchain."""
