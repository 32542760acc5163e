"""What a kernel under test is told on its command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdrv.kernel.arch import Arch
from kdrv.machine.contract import KernelImage
from kdrv.testing.prepare import TestRequest, boot_spec

IMAGE = KernelImage(Arch.X86_64, "7.3.4", Path("vmlinux"), Path("vmlinux"), Path("build"))


@pytest.mark.parametrize(
    ("debug", "loads", "tracking"),
    [(False, True, "U,kmalloc-*"), (False, False, ""), (True, True, "F")],
)
def test_memory_is_tracked_where_a_module_may_leave_some(
    debug: bool, loads: bool, tracking: str
) -> None:
    request = TestRequest(None, "qemu", debug=debug)
    words = boot_spec(request, IMAGE, Path("initramfs"), loads=loads).cmdline
    found = [word.partition("=")[2] for word in words if word.startswith("slab_debug=")]
    assert found == ([tracking] if tracking else [])
    assert "softlockup_panic=1" in words
