"""The real world: a kernel on QEMU's machines (x86_64 ``q35``, arm64 ``virt``)."""
