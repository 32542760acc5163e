"""Faults: the schedule, what each kind does on the bus, and plans as data."""

import pytest

from kdrv.core.errors import UsageError
from kdrv.devices.bench import Bench
from kdrv.devices.config import Power
from kdrv.devices.edu import Edu
from kdrv.devices.ringdev import Error, RingDev, Status
from kdrv.sim.faults import (
    FACTS,
    FaultKind,
    FaultPlan,
    Rule,
    Schedule,
    Side,
    explicit,
)
from kdrv.sim.interference import STORM
from kdrv.sim.profiles import PROFILES
from kdrv.sim.trace import DmaAccess
from kdrv.sim.wire import PciOp
from tests.fast.sim_fakes import DATA, Bus
from tests.fast.test_devices_models import BUFFER, Driver, Opcode


def always(kind, **more):
    return Rule(kind, rate=1.0, **more)


class FaultyEdu(Bus):
    """An edu device with MSI on and plenty of interrupt buffers."""

    def __init__(self, *rules, **more):
        super().__init__(Edu, *rules, **more)
        place = self.transport.model.config.places[5]
        self.ask(PciOp.CFG_WRITE, place + 2, (1).to_bytes(2, "little"))
        for number in range(7):
            self.guest.offer(1, writable=[(DATA + 0xC00 + 32 * number, 20)])

    def write(self, offset, value):
        self.ask(PciOp.MMIO_WRITE, offset, value.to_bytes(4, "little"))

    def read(self, offset):
        return int.from_bytes(self.ask(PciOp.MMIO_READ, offset, size=4), "little")

    def raise_irq(self):
        self.write(0x60, 1)

    def run(self, duration=10**9):
        until = self.clock.now + duration
        while (due := self.clock.due()) is not None and due <= until:
            self.clock.step()
        self.clock.now = until

    def interrupts(self):
        return [record.at for record in self.trace if record.words() == "interrupt 0"]

    def fetch(self, address=DATA + 0x900):
        """Have the device write four bytes of its buffer to memory."""
        for offset, value in ((0x80, 0x40000), (0x88, address), (0x90, 4), (0x98, 7)):
            self.write(offset, value)
        self.run()
        return [(r.at, r.data) for r in self.trace if isinstance(r, DmaAccess) and r.write]

    @property
    def kinds(self):
        return [fired.kind for fired in self.schedule.fired]


def test_without_rules_nothing_goes_wrong():
    edu = FaultyEdu()
    edu.raise_irq()
    edu.run()
    assert edu.interrupts() == [0]
    assert edu.kinds == []
    assert edu.read(4) == 0


def test_irq_lost():
    edu = FaultyEdu(Rule(FaultKind.IRQ_LOST, numbers=(1,)))
    for _ in range(3):
        edu.raise_irq()
        edu.run(1000)
    assert edu.interrupts() == [0, 2000]
    assert edu.kinds == [FaultKind.IRQ_LOST]


def test_irq_late_and_duplicate():
    edu = FaultyEdu(always(FaultKind.IRQ_LATE, lasts=70), always(FaultKind.IRQ_DUPLICATE, lasts=5))
    edu.raise_irq()
    edu.run()
    assert edu.interrupts() == [70, 75]


def test_irq_spurious_and_storm():
    edu = FaultyEdu(Rule(FaultKind.IRQ_SPURIOUS, numbers=(0,), lasts=3))
    edu.read(0)
    edu.run()
    assert edu.interrupts() == [3]
    edu = FaultyEdu(Rule(FaultKind.IRQ_STORM, numbers=(0,), lasts=2))
    edu.read(0)
    edu.run()
    assert edu.interrupts() == [2 * number for number in range(1, 8)]
    assert len(edu.transport._interrupts) == STORM - 7


def test_a_device_that_is_late_does_its_work_all_the_same():
    usual, late = FaultyEdu(), FaultyEdu(Rule(FaultKind.DEVICE_LATE, numbers=(0,), lasts=1024))
    ((when, data),) = usual.fetch()
    ((then, same),) = late.fetch()
    assert then - when in [1024 >> halved for halved in range(11)]
    assert late.schedule.busy_until == then
    assert same == data
    assert late.kinds == [FaultKind.DEVICE_LATE]


def test_a_late_interrupt_does_not_reach_a_driver_that_is_gone():
    edu = FaultyEdu(always(FaultKind.IRQ_LATE, lasts=70))
    edu.raise_irq()
    place = edu.transport.model.config.places[5]
    edu.ask(PciOp.CFG_WRITE, place + 2, bytes(2))
    edu.run()
    assert edu.interrupts() == []


def test_register_faults():
    edu = FaultyEdu(always(FaultKind.REG_ALL_ONES, register="liveness"))
    assert (edu.read(4), edu.read(0)) == (0xFFFF_FFFF, 0x0100_00ED)
    edu = FaultyEdu(always(FaultKind.REG_BITFLIP, register="ident"))
    assert (edu.read(0) ^ 0x0100_00ED).bit_count() == 1
    edu = FaultyEdu(Rule(FaultKind.REG_STUCK, numbers=(0,), lasts=100))
    edu.read(4)
    edu.write(4, 0)
    assert edu.read(4) == 0
    edu.run(100)
    assert edu.read(4) == 0xFFFF_FFFF


def test_toctou_strikes_only_at_a_second_read_in_a_row():
    edu = FaultyEdu(always(FaultKind.REG_TOCTOU))
    assert edu.read(0) == 0x0100_00ED
    assert edu.read(4) == 0
    assert edu.read(4) != 0
    edu.write(4, 0)
    assert edu.read(4) == 0xFFFF_FFFF


def test_a_device_that_was_pulled_out_says_nothing_more():
    edu = FaultyEdu(Rule(FaultKind.SURPRISE_REMOVE, numbers=(6,)))
    for offset, value in ((0x80, 0x40000), (0x88, DATA), (0x90, 4), (0x98, 7)):
        edu.write(offset, value)
    edu.raise_irq()
    assert edu.interrupts() == [0]  # a device that answers at once does so before the next access
    assert edu.read(0) == 0x0100_00ED
    assert edu.read(0) == 0xFFFF_FFFF
    assert edu.ask(PciOp.CFG_READ, 0, size=4) == b"\xff" * 4
    edu.write(4, 1)
    edu.run()
    assert edu.interrupts() == [0]
    assert not any(isinstance(record, DmaAccess) for record in edu.trace)
    assert edu.transport.model.liveness == 0


def power_of(ring):
    return ring.transport.model.config.places[Power.ident] + Power.control


def test_a_device_that_does_not_wake_up_is_silent_for_a_while():
    ring = Bus(RingDev, always(FaultKind.PM_FAIL, start=1, lasts=100))
    assert ring.ask(PciOp.CFG_READ, power_of(ring), size=2) == b"\x08\x00"
    ring.clock.now = 1
    assert ring.ask(PciOp.CFG_READ, power_of(ring), size=2) == b"\xff\xff"
    assert ring.ask(PciOp.MMIO_READ, 0, size=4) == b"\xff" * 4
    assert ring.ask(PciOp.CFG_READ, 0, size=2) == b"\xff\xff"
    ring.clock.now = 101
    assert ring.ask(PciOp.MMIO_READ, 0, size=4) == b"RING"
    assert [fired.kind for fired in ring.schedule.fired] == [FaultKind.PM_FAIL]


def test_only_the_way_to_d0_can_fail():
    ring = Bus(RingDev, always(FaultKind.PM_FAIL))
    ring.ask(PciOp.CFG_WRITE, power_of(ring), b"\x03\x00")
    assert ring.schedule.fired == []
    assert ring.transport.model.asleep
    ring.ask(PciOp.CFG_WRITE, power_of(ring), b"\x00\x00")
    assert ring.transport.model.asleep
    assert ring.ask(PciOp.CFG_READ, 0, size=2) == b"\xff\xff"


def test_a_schedule_can_be_made_to_rest():
    schedule = Schedule(FaultPlan(0, (always(FaultKind.IRQ_LOST),)))
    assert schedule.draw(FaultKind.IRQ_LOST, "edu", 0)
    schedule.quiesce()
    assert schedule.draw(FaultKind.IRQ_LOST, "edu", 1) is None
    assert len(schedule.fired) == 1


def test_what_looks_right_cannot_be_detected():
    hidden = {kind for kind, facts in FACTS.items() if not facts.detectable}
    assert hidden == {
        FaultKind.REG_STUCK,
        FaultKind.REG_BITFLIP,
        FaultKind.REG_TOCTOU,
        FaultKind.DMA_CORRUPT,
        FaultKind.DMA_LATE,
        FaultKind.DMA_AFTER_FREE,
        FaultKind.DESC_BAD,
    }


def test_dma_faults():
    ((at, data),) = FaultyEdu(always(FaultKind.DMA_CORRUPT)).fetch()
    assert int.from_bytes(data, "little").bit_count() == 1
    late = FaultyEdu(always(FaultKind.DMA_LATE, lasts=50))
    assert late.fetch() == [(at + 50, bytes(4))]
    assert late.interrupts() == [at]
    again = FaultyEdu(always(FaultKind.DMA_AFTER_FREE, lasts=9))
    assert again.fetch() == [(at, bytes(4)), (at + 9, bytes(4))]


def test_jitter_stretches_what_a_device_does():
    nominal = FaultyEdu().fetch()[0][0]
    times = {FaultyEdu(seed=seed, jitter=0.5).fetch()[0][0] for seed in range(5)}
    assert len(times) == 5
    assert all(nominal <= time <= 1.5 * nominal for time in times)


def test_windows_limits_and_devices_bound_a_rule():
    schedule = Schedule(FaultPlan(0, (always(FaultKind.IRQ_LOST, start=10, stop=20, most=1),)))
    hits = [bool(schedule.draw(FaultKind.IRQ_LOST, "edu", now)) for now in (5, 10, 15, 25)]
    assert hits == [False, True, False, False]
    other = Schedule(FaultPlan(0, (always(FaultKind.IRQ_LOST, device="edu1"),)))
    assert other.draw(FaultKind.IRQ_LOST, "edu", 0) is None
    assert other.silent() == (FaultKind.IRQ_LOST,)
    assert other.draw(FaultKind.IRQ_LOST, "edu1", 0)
    assert other.silent() == ()


def draws(plan, count=200):
    schedule = Schedule(plan)
    for now in range(count):
        for kind in (FaultKind.IRQ_LOST, FaultKind.REG_BITFLIP):
            for device in ("edu", "ringdev"):
                drawn = schedule.draw(kind, device, now)
                if drawn:
                    yield now, kind, device, drawn.dice.getrandbits(31)


RULES = (
    Rule(FaultKind.IRQ_LOST, 0.1),
    Rule(FaultKind.REG_BITFLIP, 0.05),
    Rule(FaultKind.IRQ_LOST, 0.02),
)


def test_a_seed_decides_everything():
    assert list(draws(FaultPlan(7, RULES))) == list(draws(FaultPlan(7, RULES)))
    assert list(draws(FaultPlan(7, RULES))) != list(draws(FaultPlan(8, RULES)))


def test_taking_a_rule_away_leaves_the_others_alone():
    whole = [d for d in draws(FaultPlan(7, RULES)) if d[1] is FaultKind.REG_BITFLIP]
    alone = list(draws(FaultPlan(7, RULES[1:2])))
    assert whole == alone != []


def test_nothing_happens_before_the_beginning_nor_after_the_end():
    schedule = Schedule(FaultPlan(1, (Rule(FaultKind.PM_FAIL, numbers=(0,)),)))

    def draw():
        return schedule.draw(FaultKind.PM_FAIL, "edu", 0)

    schedule.hold()
    assert not draw()
    schedule.begin()
    assert draw(), "what was held back did not count"
    schedule.quiesce()
    schedule.begin()
    assert not draw()


def test_an_explicit_plan_does_exactly_what_a_random_one_did():
    plan = FaultPlan(7, RULES)
    expected = list(draws(plan))
    schedule = Schedule(plan)
    for now in range(200):
        for kind in (FaultKind.IRQ_LOST, FaultKind.REG_BITFLIP):
            for device in ("edu", "ringdev"):
                schedule.draw(kind, device, now)
    fixed = explicit(plan, schedule.fired)
    assert all(rule.rate == 0 for rule in fixed.rules)
    assert list(draws(fixed)) == expected


def test_a_plan_is_data():
    plan = FaultPlan(3, (*RULES, Rule(FaultKind.REG_STUCK, numbers=(1, 4), register="x")), 0.25)
    assert FaultPlan.from_data(plan.to_data()) == plan
    assert plan.to_data()["rules"][0] == {"kind": "irq_lost", "rate": 0.1}


@pytest.mark.parametrize(
    "rule",
    [
        {"kind": "irq_eaten"},
        {"rate": 0.1},
        {"kind": "irq_lost", "colour": 1},
        {"kind": "irq_lost", "rate": 2.0},
        {"kind": "irq_lost", "numbers": [-1]},
    ],
)
def test_a_plan_that_cannot_be_is_refused(rule):
    with pytest.raises(UsageError):
        FaultPlan.from_data({"rules": [rule]})


def test_every_kind_is_described_and_profiles_use_known_ones():
    assert set(FACTS) == set(FaultKind)
    assert set(PROFILES) == {"calm", "lossy", "hostile", "removal", "oom"}
    guest = {kind for kind, facts in FACTS.items() if facts.side is Side.GUEST}
    assert {rule.kind for rule in PROFILES["oom"]} == guest


# --- faults that a model acts out


@pytest.fixture
def ring():
    driver = Driver(entries=8, cq_entries=8)
    driver.run()
    return driver


def test_ringdev_completes_out_of_order(ring):
    ring.bench.host.faults["completion_reorder"] = [0]
    ring.submit(Opcode.NOP, 1)
    ring.submit(Opcode.NOP, 2)
    ring.run()
    assert [tag for tag, _, _ in ring.completions()] == [2, 1]
    ring.bench.host.faults["completion_reorder"] = [0]
    ring.submit(Opcode.NOP, 3)
    ring.run()
    assert [tag for tag, _, _ in ring.completions()] == [3]


@pytest.mark.parametrize(("number", "seen"), [(0, [(2, 0, 4)]), (1, [(1, 0, 5)]), (2, [])])
def test_ringdev_writes_bad_completions(ring, number, seen):
    ring.bench.host.faults["desc_bad"] = [number]
    ring.submit(Opcode.READ, 1, 4, BUFFER)
    ring.run()
    assert ring.completions() == seen


def test_ringdev_says_that_it_could_not_do_a_command(ring):
    before = bytes(ring.device.store)
    ring.bench.host.faults["command_error"] = [0]
    ring.submit(Opcode.WRITE, 1, 4, BUFFER)
    ring.submit(Opcode.NOP, 2)
    ring.run()
    assert ring.completions() == [(1, Status.BROKEN, 0), (2, Status.OK, 0)]
    assert bytes(ring.device.store) == before


def test_ringdev_firmware_and_reset_fail(ring):
    ring.bench.host.faults = {"fw_error": [0], "reset_fail": [0]}
    ring.submit(Opcode.NOP, 1)
    ring.run()
    assert (ring.read(0x10), ring.read(0x14)) == (4, Error.INTERNAL)
    ring.device.write(0, 0x0C, 4, 2)
    assert ring.read(0x10) == 4
    ring.device.write(0, 0x0C, 4, 2)
    assert ring.read(0x10) == 0


def test_edu_firmware_gives_a_command_up():
    bench = Bench(Edu)
    bench.enable()
    bench.host.faults["fw_error"] = [0, 0]
    bench.device.write(0, 8, 4, 3)
    bench.device.write(0, 0x98, 4, 1)
    bench.run(10**9)
    assert bench.device.status & 1
    assert bench.device.dma_command & 1
