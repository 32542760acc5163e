"""Which devices this QEMU has and which options they take, asked from QEMU itself.

The answers are kept in the cache, keyed by the toolchain; a wrong name or option is refused before
anything boots.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kdrv.core.context import Context
from kdrv.core.errors import UsageError
from kdrv.core.store import Store, digest
from kdrv.devices.catalog import MODELS
from kdrv.machine.contract import DeviceSpec
from kdrv.qemu.boards import Board
from kdrv.toolchain.base import Toolchain

KIND = "qemu-devices"
DEADLINE = 30.0
ALWAYS = ("id", "bus")
"""Options of ``-device`` itself, which its help does not list."""

_NAME = re.compile(r'^name "([^"]+)"', re.M)
_ALIAS = re.compile(r'^name "[^"]+".*alias "([^"]+)"', re.M)
_OPTION = re.compile(r"^  ([^\s=]+)=<", re.M)


class Catalog:
    """The devices of one QEMU program."""

    def __init__(self, toolchain: Toolchain, ctx: Context, board: Board) -> None:
        self._toolchain = toolchain
        self._ctx = ctx
        self._board = board

    def names(self) -> frozenset[str]:
        """All device names, aliases included (``-device help``)."""
        return self._remember("", lambda said: [*_NAME.findall(said), *_ALIAS.findall(said)])

    def options(self, device: str) -> frozenset[str]:
        """The options of a device (``-device NAME,help``)."""
        return self._remember(device, _OPTION.findall) | set(ALWAYS)

    def check(self, device: DeviceSpec) -> None:
        """Raise :class:`UsageError` unless QEMU has the device and all its options."""
        names = self.names()
        if device.kind not in names:
            raise UsageError(
                f"{self._board.program} has no device {device.kind!r}",
                expected=_expected(
                    device.kind,
                    names | MODELS.keys(),
                    "the name of a QEMU device, 'platform', or a model of kdrv's",
                ),
                remedy=f"list them: {self._say('help')}",
            )
        options = self.options(device.kind)
        for option in device.options:
            if option not in options:
                raise UsageError(
                    f"QEMU's device {device.kind} has no option {option!r}",
                    expected=_expected(option, options, "one of its options"),
                    remedy=f"list them: {self._say(device.kind + ',help')}",
                )

    def _say(self, what: str) -> str:
        return self._toolchain.command((self._board.program, "-device", what)).shell()

    def _remember(self, device: str, parse: Callable[[str], list[str]]) -> frozenset[str]:
        def ask(_: Path) -> Mapping[str, Any]:
            what = f"{device},help" if device else "help"
            command = self._toolchain.command((self._board.program, "-device", what))
            said = self._ctx.runner.run(command, deadline=DEADLINE).output
            return {"names": sorted(set(parse(said)))}

        key = digest("catalog-1", self._toolchain.identity, self._board.program, device)
        entry = Store(self._ctx).get(KIND, key, ask, waiting="the list of QEMU's devices")
        return frozenset(entry.facts["names"])


def device_option(device: DeviceSpec, **more: str) -> str:
    """The device as QEMU's ``-device`` and ``device_add`` read it: ``edu,dma_mask=4095``."""
    words = [device.kind]
    for name, value in {**device.options, **more}.items():
        text = ("on" if value else "off") if isinstance(value, bool) else str(value)
        words.append(f"{name}={text.replace(',', ',,')}")
    return ",".join(words)


def _expected(wrong: str, names: frozenset[str], what: str) -> str:
    near = difflib.get_close_matches(wrong, sorted(names), n=3, cutoff=0.6)
    return f"{what}; near to it: {', '.join(near)}" if near else what
