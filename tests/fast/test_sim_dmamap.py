"""DMA mappings: the kernel's trace, and what devices do with memory."""

import pytest

from kdrv.sim.dmamap import GRACE, Direction, MapEvent, Why, judge, parse
from kdrv.sim.trace import DmaAccess, Note

TEXT = """# tracer: nop
#
# entries-in-buffer/entries-written: 7/9   #P:1
#
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
#              | |         |   |||||     |         |
           agent-20      [000] .....     0.010001: dma_alloc: 0000:00:00.0 dir=BIDIRECTIONAL dma_addr=10cf000 size=4096 virt_addr=00000000deadbeef flags=GFP_KERNEL|__GFP_ZERO attrs=
           agent-20      [000] .....     0.010002: dma_alloc: 0000:00:00.0 dir=NONE dma_addr=0 size=4096 virt_addr=0000000000000000 flags=GFP_KERNEL attrs=
           agent-20      [000] ...1.     1.000000: dma_map_phys: 0000:00:00.0 dir=TO_DEVICE dma_addr=2000 size=64 phys_addr=2000 attrs=
           agent-20      [000] .....     1.000001: dma_unmap_phys: 0000:00:00.0 dir=TO_DEVICE dma_addr=2000 size=64 attrs=
           agent-20      [000] .....     1.500000: sched_switch: prev_comm=agent
           agent-20      [000] .....     2.000000: dma_map_sg: 0000:00:01.0 dir=FROM_DEVICE nents=2/2 ents=2/2 dma_addrs={0x3000,0x5000} sizes={0x1000,0x200} phys_addrs={0x3000,0x5000} attrs=
           agent-20      [000] .....     3.000000: dma_unmap_sg: 0000:00:01.0 dir=FROM_DEVICE phys_addrs={0x3000,0x5000} attrs=
           agent-20      [000] .....     4.000000: dma_free: 0000:00:00.0 dir=BIDIRECTIONAL dma_addr=10cf000 size=4096 virt_addr=00000000deadbeef attrs=
"""  # noqa: E501
ONE, TWO = "0000:00:00.0", "0000:00:01.0"
BOTH, TO, FROM = Direction.BOTH, Direction.TO_DEVICE, Direction.FROM_DEVICE
SECOND = 10**9


def test_the_kernel_s_trace_is_read():
    found = parse(TEXT)
    assert found.lost == 2
    assert found.events == (
        MapEvent(10_001_000, ONE, 0x10CF000, 4096, BOTH, True, True),
        MapEvent(SECOND, ONE, 0x2000, 64, TO, True, False),
        MapEvent(SECOND + 1000, ONE, 0x2000, 64, TO, False, False),
        MapEvent(2 * SECOND, TWO, 0x3000, 0x1000, FROM, True, False),
        MapEvent(2 * SECOND, TWO, 0x5000, 0x200, FROM, True, False),
        MapEvent(3 * SECOND, TWO, 0x3000, 0, FROM, False, False),
        MapEvent(3 * SECOND, TWO, 0x5000, 0, FROM, False, False),
        MapEvent(4 * SECOND, ONE, 0x10CF000, 4096, BOTH, False, True),
    )
    assert judge(found.events, [], {}).left == ()


def access(at, address=0x2000, length=64, *, write=False):
    return DmaAccess(at, "edu", write, address, bytes(length))


MAPPED = (
    MapEvent(10_000, ONE, 0x2000, 64, TO, True, False),
    MapEvent(50_000, ONE, 0x2000, 64, TO, False, False),
)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (access(10_000 - GRACE), None),
        (access(50_000 + GRACE), None),
        (access(20_000, 0x2010, 8), None),
        (access(10_000 - GRACE - 1), Why.TOO_EARLY),
        (access(50_000 + GRACE + 1), Why.TOO_LATE),
        (access(20_000, write=True), Why.DIRECTION),
        (access(20_000, 0x2020), Why.BEYOND),
        (access(20_000, 0x9000), Why.UNMAPPED),
    ],
)
def test_an_access_is_held_against_the_mappings(made, why):
    found = judge(MAPPED, [Note(0, "edu", "nothing", ()), made], {"edu": ONE}).stray
    assert [stray.why for stray in found] == ([why] if why else [])
    assert all(str(hex(made.address)) in str(stray) for stray in found)


def test_other_devices_have_mappings_of_their_own():
    other = judge(MAPPED, [access(20_000)], {"edu": TWO}).stray
    assert [stray.why for stray in other] == [Why.UNMAPPED]
    assert judge(MAPPED, [access(20_000)], {"ringdev": ONE}).stray == ()


def test_what_was_mapped_twice_must_be_unmapped_twice():
    twice = (MAPPED[0], MapEvent(20_000, ONE, 0x2000, 64, TO, True, False), MAPPED[1])
    verdict = judge(twice, [access(90_000)], {"edu": ONE})
    assert verdict.stray == ()
    assert verdict.left == (twice[1],)


def test_what_a_fault_did_is_not_the_driver_s():
    late = DmaAccess(90_000, "edu", True, 0x2000, bytes(4), injected=True)
    assert judge(MAPPED, [late], {"edu": ONE}).stray == ()


def test_an_access_without_data_is_none():
    assert judge((), [access(0, length=0)], {"edu": ONE}).stray == ()
