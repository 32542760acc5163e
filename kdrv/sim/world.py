"""The simulator as a :class:`~kdrv.machine.contract.World`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from kdrv.core.context import Context
from kdrv.core.errors import UsageError
from kdrv.devices import catalog
from kdrv.devices.clock import Clock
from kdrv.devices.host import Host
from kdrv.devices.model import Device
from kdrv.devices.pci import PciDevice
from kdrv.kernel.arch import Arch
from kdrv.machine.console import Console
from kdrv.machine.contract import BootSpec, DeviceSpec, named
from kdrv.machine.platform import PLATFORM_KIND
from kdrv.sim import pcidev, platform, port
from kdrv.sim.calendar import Calendar
from kdrv.sim.engine import Engine, open_door
from kdrv.sim.faults import CALM, FaultPlan, Schedule
from kdrv.sim.launcher import borrowed
from kdrv.sim.machine import SimMachine
from kdrv.sim.pcidev import PciTransport
from kdrv.sim.platform import PlatformDevice, PlatformTransport
from kdrv.sim.port import Port
from kdrv.sim.trace import Trace
from kdrv.sim.vhost import Backend, VhostServer
from kdrv.toolchain.base import Bind, Toolchain

# All of these are constant: the kernel's command line enters its pool of random numbers.
LINUX, INITRD, TREE = "/run/kdrv/linux", "/run/kdrv/initrd", "/run/kdrv/tree"
TIME, CHANNEL, DEVICE, PLATFORM = "t", "c", "d", "p"
MOST_DEVICES = 8
"""``arch/um/drivers/virt-pci.c``: MAX_DEVICES."""
MOST_MEMORY = 384
"""In MiB. Memory begins at 1.5 GiB, modules come after it, and the code of Rust's reaches addresses
below 2 GiB alone (``-Crelocation-model=static``)."""
PATIENCE = 30.0


class SimWorld:
    """Boots User Mode Linux kernels. ``patience`` is in seconds of the host's time.

    ``patience`` bounds how long a kernel may compute without waiting for anything: a busy loop
    costs no virtual time, so no virtual timeout can end it. ``plan`` says what goes wrong and how
    long devices take: same plan, same history.
    """

    name = "sim"

    def __init__(
        self,
        ctx: Context,
        toolchain: Toolchain,
        *,
        patience: float = PATIENCE,
        plan: FaultPlan = CALM,
    ) -> None:
        self._ctx = ctx
        self._toolchain = toolchain
        self._patience = patience
        self._plan = plan

    def check(self, spec: BootSpec) -> None:
        """See :meth:`kdrv.machine.contract.World.check`."""
        _check(spec)

    @contextmanager
    def boot(self, spec: BootSpec) -> Iterator[SimMachine]:
        """See :class:`~kdrv.machine.contract.World`. Raises :class:`UsageError`."""
        _check(spec)
        clock, trace, console = Clock(), Trace(), Console()
        schedule = Schedule(self._plan)
        # A device that cannot even be found says nothing of its driver.
        schedule.hold()
        with ExitStack() as stack:
            calendar = Calendar(clock)
            stack.callback(calendar.close)

            def connect(backend: Backend) -> VhostServer:
                server = VhostServer(
                    backend,
                    before=calendar.catch_up,
                    # Where the loop may hand over to the host, the kernel's time must be known.
                    after=lambda: calendar.limit(here=bool(agent.received)),
                )
                stack.callback(server.close)
                return server

            agent = Port(clock, connect)
            plugged = named(spec.devices)
            transports = [
                PciTransport(name, clock, trace, schedule, _maker(device), connect)
                for name, device in plugged
                if device.kind != PLATFORM_KIND
            ]
            described = platform.layout([d for d in plugged if d[1].kind == PLATFORM_KIND])
            soc = PlatformTransport(described, clock, trace, schedule, connect)
            binds = self._binds(spec, described)
            launcher = stack.enter_context(borrowed(self._ctx, self._toolchain, binds))
            place = launcher.place
            doors = [
                open_door(place, TIME, calendar),
                open_door(place, CHANNEL, agent.server),
                open_door(place, PLATFORM, soc.server),
                *(open_door(place, f"{DEVICE}{i}", t.server) for i, t in enumerate(transports)),
            ]
            argv = [LINUX, *kernel_arguments(spec, len(transports))]
            argv += [f"dtb={TREE}"] if described else []
            output = place / "console"
            with output.open("wb") as console_file:
                child = launcher.start(argv, console_file.fileno())
            pci = {transport.device.name: transport.model for transport in transports}
            devices: dict[str, Device] = {**pci, **soc.models}
            machine = SimMachine(
                launcher.describe(argv),
                child,
                output,
                console,
                agent,
                transports,
                devices,
                trace,
                schedule,
            )
            engine = Engine(calendar, doors, self._patience, machine.watch, machine.floods)
            stack.callback(engine.close)
            machine.attach(engine)
            stack.callback(machine.close)
            yield machine

    def _binds(self, spec: BootSpec, described: Sequence[PlatformDevice]) -> list[Bind]:
        """What the kernel finds in its sandbox."""
        binds = [Bind(spec.kernel.image, LINUX), Bind(spec.initramfs, INITRD)]
        if described:
            text = platform.source(described, PLATFORM)
            binds.append(Bind(platform.device_tree(self._ctx, self._toolchain, text), TREE))
        return binds


def kernel_arguments(spec: BootSpec, devices: int) -> tuple[str, ...]:
    """The kernel's command line, in an order that never changes."""
    return (
        f"mem={spec.memory_mib}M",
        f"time-travel=ext:{TIME}",
        "umid=kdrv",
        "norandmaps",
        # Twice as fast as ptrace; "auto" falls back to it where the host forbids filters.
        "seccomp=auto",
        "con=null",
        "con0=null,fd:1",
        "console=tty0",
        "earlyprintk",
        f"initrd={INITRD}",
        "kdrv_agent=/dev/hvc0",
        f"virtio_uml.device={CHANNEL}:{port.VIRTIO_ID}",
        *(f"virtio_uml.device={DEVICE}{i}:{pcidev.VIRTIO_ID}" for i in range(devices)),
        *spec.cmdline,
    )


def _own(options: Mapping[str, str | int | bool]) -> dict[str, str | int | bool]:
    """The model's options: ``model`` asks QEMU for what is always so here."""
    return {name: value for name, value in options.items() if name != "model"}


def _maker(device: DeviceSpec) -> Callable[[Host], PciDevice]:
    return lambda host: catalog.make(device.kind, host, _own(device.options))


def _check(spec: BootSpec) -> None:
    if spec.kernel.arch is not Arch.UM:
        raise UsageError(
            f"the simulator cannot boot a kernel for {spec.kernel.arch}",
            expected="a kernel built for um (User Mode Linux)",
            remedy="kdrv build --arch um",
        )
    if spec.cpus != 1:
        raise UsageError(
            f"the simulator cannot have {spec.cpus} processors: virtual time excludes SMP",
            expected="one processor",
            remedy="run the test with --qemu",
        )
    if spec.memory_mib > MOST_MEMORY:
        raise UsageError(
            f"the simulator cannot have {spec.memory_mib} MiB of memory",
            expected=f"at most {MOST_MEMORY} MiB: modules lie above it and must be below 2 GiB",
            remedy="set memory = 256 in [machine] of kdrv.toml",
        )
    pci = [device for device in spec.devices if device.kind != PLATFORM_KIND]
    if len(pci) > MOST_DEVICES:
        raise UsageError(
            f"the simulator cannot have {len(pci)} PCI devices",
            expected=f"at most {MOST_DEVICES} (MAX_DEVICES of arch/um/drivers/virt-pci.c)",
        )
    for device in pci:
        catalog.model_of(device.kind, _own(device.options))
