"""A machine that runs a kernel, seen from a test.

A world (QEMU, the simulator) implements :class:`Machine`; ``kdrv.guest`` talks to the agent in the
guest over the machine's :class:`Channel`; ``kdrv.machine.verdict`` judges what its
:class:`~kdrv.machine.console.Console` said. None of them knows which world it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from kdrv.kernel.arch import Arch
from kdrv.machine.console import Console


@dataclass(frozen=True)
class KernelImage:
    """A built kernel, ready to boot.

    ``image`` is what a world boots (vmlinux, Image, linux); ``vmlinux`` has the symbols;
    ``release`` is what ``uname -r`` will say; ``build`` is the build directory.
    """

    arch: Arch
    release: str
    image: Path
    vmlinux: Path
    build: Path


@dataclass(frozen=True)
class DeviceSpec:
    """A device the machine is to have: a ``kind`` a world knows, and its ``options``.

    Example: ``DeviceSpec("edu")``, ``DeviceSpec("platform", {"compatible": "acme,widget"})``.
    """

    kind: str
    options: Mapping[str, str | int | bool] = field(default_factory=dict)


def named(devices: Sequence[DeviceSpec]) -> list[tuple[str, DeviceSpec]]:
    """Every device with a name: its kind, numbered from the second of a kind on."""
    seen: dict[str, int] = {}
    result = []
    for device in devices:
        count = seen.get(device.kind, 0)
        seen[device.kind] = count + 1
        result.append((f"{device.kind}{count or ''}", device))
    return result


@dataclass(frozen=True)
class BootSpec:
    """Everything that decides how a machine starts.

    ``initramfs`` is an uncompressed cpio archive whose ``/init`` is the agent; ``cmdline`` is
    added to what the world itself needs on the kernel's command line.
    """

    kernel: KernelImage
    initramfs: Path
    devices: tuple[DeviceSpec, ...] = ()
    memory_mib: int = 256
    cpus: int = 1
    cmdline: tuple[str, ...] = ()


class Channel(Protocol):
    """The byte stream to the agent in the guest, apart from the console."""

    def send(self, data: bytes) -> None:
        """Send all of ``data``. Raises :class:`MachineEnded` when the machine is gone."""
        ...

    def receive(self, timeout: float) -> bytes:
        """Some bytes, or ``b""`` after ``timeout`` seconds without any.

        Raises :class:`MachineEnded` when the machine is gone. The seconds are the world's own:
        wall time in QEMU, virtual time in the simulator.
        """
        ...


class MachineEnded(Exception):
    """The machine stopped: power-off, reset, or death of the emulator.

    ``status`` is the emulator's exit status (negative: the signal that killed it) and ``reason``
    one phrase in words.
    """

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class Machine(Protocol):
    """A running machine. Close it by leaving the ``with`` block of :meth:`World.boot`."""

    @property
    def console(self) -> Console:
        """All the kernel has printed, as it comes."""
        ...

    @property
    def channel(self) -> Channel:
        """The way to the agent."""
        ...

    @property
    def alive(self) -> bool:
        """Whether the emulator still runs."""
        ...

    def clock(self) -> float:
        """The machine's own time in seconds: the host's in QEMU, virtual time in the simulator."""
        ...

    def pause(self, seconds: float) -> None:
        """Let the machine run on for ``seconds`` of its own time; a simulated one may end."""
        ...

    def describe(self) -> str:
        """The emulator's command line, to paste into a shell."""
        ...

    def diagnose(self) -> tuple[str, ...]:
        """What the world can tell of a machine that has gone silent, in lines.

        For example where the processors are (registers, symbols). Never raises, never blocks for
        more than a few seconds.
        """
        ...


class World(Protocol):
    """A place to boot machines in."""

    @property
    def name(self) -> str:
        """``qemu`` or ``sim``."""
        ...

    def check(self, spec: BootSpec) -> None:
        """Raise :class:`kdrv.core.errors.KdrvError` for a device that cannot be; boots nothing."""
        ...

    def boot(self, spec: BootSpec) -> AbstractContextManager[Machine]:
        """Start a machine; leaving the block ends it and all its processes.

        Returns as soon as the emulator runs; the kernel is still booting. Raises
        :class:`kdrv.core.errors.KdrvError` for a device or image that cannot be.
        """
        ...
