"""Where compilers, QEMU and their helpers come from, and the sandbox they run in."""
