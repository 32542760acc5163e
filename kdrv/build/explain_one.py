"""The explanation of one missing symbol: which case it is, its chain, its summary, its remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from kdrv.build.explain_causes import Causes, best_definition
from kdrv.build.explain_ways import Way, ways_down, ways_up
from kdrv.build.explain_world import Cause, Explanation, World
from kdrv.kernel.kconfig import PREFIX, Missing
from kdrv.kernel.kconfig_expr import LETTERS, MODULE, NO, YES, Compare, Kind

SHOWN = 2
_VALUE_FORMS = {
    Kind.BOOL: "y or n",
    Kind.TRISTATE: "y, m or n",
    Kind.STRING: "a string in quotes",
    Kind.INT: "a decimal number",
    Kind.HEX: "a hexadecimal number (0x…)",
}


class Explainer:
    """Explains missing symbols of one configuration; ``missing`` are all that are missing."""

    def __init__(self, world: World, tree: Path, missing: set[str]) -> None:
        self._world = world
        self._tree = tree
        self._missing = missing

    def explain(self, missing: Missing) -> Explanation:
        """The explanation of one of them."""
        world, symbol, value = self._world, missing.setting.symbol, missing.setting.value
        kind = world.tree.kind(symbol)
        if not world.tree.definitions(symbol):
            return self._unknown(missing)
        if heirs := world.tree.transitional(symbol):
            return self._renamed(missing, heirs)
        if not _fits(value, kind):
            return self._misfit(missing, kind)
        if kind not in (Kind.BOOL, Kind.TRISTATE):
            return self._value(missing)
        if LETTERS.index(value) > LETTERS.index(missing.got):
            return self._too_low(missing, kind)
        return self._too_high(missing)

    def _too_low(self, missing: Missing, kind: Kind) -> Explanation:
        """y or m was asked for, and it became less."""
        world, symbol = self._world, missing.setting.symbol
        wanted = LETTERS.index(missing.setting.value)
        # A bool whose conditions are worth m is visible: scripts/kconfig, sym_calc_visibility().
        level = wanted if kind is Kind.TRISTATE else MODULE
        chain = tuple(Causes(world).why_low(symbol, level))
        deeper = {cause.symbol for cause in chain if cause.depth > 0}
        if root := next((other for other in sorted(deeper & self._missing) if other != symbol), ""):
            change = f"mend {PREFIX}{root}; {PREFIX}{symbol} follows it"
            end = next(n for n, cause in enumerate(chain) if cause.symbol == root)
            chain = chain[:end]
            return self._made(missing, self._reasons(chain), change, chain, follows=root)
        reasons = self._reasons(chain)
        ways = ways_up(world, symbol, wanted)
        if missing.got == "m":
            reasons += f". {symbol} can be at most m then"
        return self._made(missing, reasons, self._change(ways, symbol), chain, ways)

    def _too_high(self, missing: Missing) -> Explanation:
        """n was asked for, or m, and it became more."""
        world, symbol = self._world, missing.setting.symbol
        if missing.setting.value == "m" and world.level("MODULES") == NO:
            place = str(world.tree.definitions(symbol)[0].place)
            cause = Cause(symbol, "without CONFIG_MODULES there is no m, and m means y", place, 0)
            ways = ways_up(world, "MODULES", YES)
            return self._made(missing, cause.text, self._change(ways, symbol), (cause,), ways)
        chain = tuple(Causes(world).why_high(symbol))
        ways = ways_down(world, symbol) if missing.setting.value == "n" else ()
        change = self._change(ways, symbol)
        if missing.setting.value == "m":
            change = f"ask for {PREFIX}{symbol}=y, or turn off what needs it built in"
        return self._made(missing, self._reasons(chain), change, chain, ways)

    def _value(self, missing: Missing) -> Explanation:
        """A number or a string that did not come through."""
        world, setting = self._world, missing.setting
        symbol = setting.symbol
        if not world.has_prompt(symbol):
            place = world.tree.definitions(symbol)[0].place
            cause = Cause(
                symbol, f"{symbol} cannot be set by hand: Kconfig computes it", str(place), 0
            )
            return self._made(missing, cause.text, f"remove {setting}", (cause,))
        definition, unmet = best_definition(world, symbol, MODULE)
        if unmet:
            causes = Causes(world)
            chain = tuple(c for u in unmet for c in causes.condition(symbol, u, MODULE, 0))
            ways = ways_up(world, symbol, MODULE)
            return self._made(
                missing, self._reasons(chain), self._change(ways, symbol), chain, ways
            )
        for bounds in definition.ranges:
            if world.values.tristate(bounds.condition) and isinstance(bounds.what, Compare):
                low, high = (
                    world.values.text(bounds.what.left),
                    world.values.text(bounds.what.right),
                )
                text = f"{symbol} must be from {low} to {high}"
                cause = Cause(symbol, text, str(bounds.place), 0)
                return self._made(missing, text, f"set {PREFIX}{symbol} within it", (cause,))
        text = f"{symbol} can be set, and something later set it to {missing.got}"
        cause = Cause(symbol, text, str(definition.place), 0)
        return self._made(missing, text, f"look for a second {PREFIX}{symbol}=", (cause,))

    def _misfit(self, missing: Missing, kind: Kind) -> Explanation:
        """A value of the wrong type."""
        setting = missing.setting
        place = str(self._world.tree.definitions(setting.symbol)[0].place)
        text = f"{setting.symbol} is of type {kind}, which {setting.value!r} is not"
        cause = Cause(setting.symbol, text, place, 0)
        change = f"set {PREFIX}{setting.symbol} to {_VALUE_FORMS.get(kind, 'another value')}"
        return self._made(missing, text, change, (cause,))

    def _renamed(self, missing: Missing, heirs: Sequence[str]) -> Explanation:
        """A name of the past that the tree still knows."""
        symbol = missing.setting.symbol
        place = str(self._world.tree.definitions(symbol)[0].place)
        new = " and ".join(PREFIX + heir for heir in heirs)
        text = f"{symbol} is the old name of {new}"
        change = f"ask for {new} instead"
        return self._made(missing, text, change, (Cause(symbol, text, place, 0),))

    def _unknown(self, missing: Missing) -> Explanation:
        """A symbol that this architecture's Kconfig does not define."""
        world, symbol = self._world, missing.setting.symbol
        if place := _elsewhere(self._tree, symbol):
            arch = re.match(r"arch/(\w+)/", place)
            whose = f"ARCH={arch[1]}" if arch else "other architectures"
            text = f"{symbol} exists for {whose} only, and this is ARCH={world.arch}"
            change = f"remove {missing.setting}, or build for another architecture"
            return self._made(missing, text, change, (Cause(symbol, text, place, 0),))
        text = f"{symbol} does not exist in this tree"
        close = difflib.get_close_matches(symbol, world.tree.symbols, n=3, cutoff=0.75)
        similar = [name for name in close if world.has_prompt(name)]
        guess = (
            f"did you mean {' or '.join(PREFIX + name for name in similar)}? If not, "
            if similar
            else ""
        )
        change = f"{guess}remove or correct {missing.setting}"
        return self._made(missing, text, change, (Cause(symbol, text, "", 0),))

    def _reasons(self, chain: Sequence[Cause]) -> str:
        """The first reasons in words, how many more there are, and the leaf of a straight chain."""
        if not chain:
            return "Kconfig decides so"
        tops = [cause.text for cause in chain if cause.depth == 0]
        text = "; also, ".join(tops[:SHOWN])
        if len(tops) > SHOWN:
            text += f"; and {len(tops) - SHOWN} more"
        if len(tops) == 1 and len(chain) == 2:
            text += f"; {chain[1].text}"
        return text

    def _change(self, ways: Sequence[Way], symbol: str) -> str:
        if not ways:
            return f"no setting of ARCH={self._world.arch} was found that changes {PREFIX}{symbol}"
        return "; or ".join(str(way) for way in ways)

    def _made(
        self,
        missing: Missing,
        reasons: str,
        change: str,
        chain: tuple[Cause, ...],
        ways: Sequence[Way] = (),
        *,
        follows: str = "",
    ) -> Explanation:
        setting = missing.setting
        fix = next((way.settings for way in ways if way.only_settings and way.steps), {})
        return Explanation(
            symbol=setting.symbol,
            wanted=setting.value,
            got=missing.got,
            summary=f"{setting} became {missing.got}: {reasons}.",
            change=change,
            place=setting.place,
            chain=chain,
            fix=fix,
            follows=follows,
        )


def _fits(value: str, kind: Kind) -> bool:
    """Whether Kconfig takes the value for a symbol of this type: conf_set_sym_val()."""
    forms = {
        Kind.BOOL: "[yn]",
        Kind.TRISTATE: "[ymn]",
        Kind.INT: "-?[0-9]+|n",
        Kind.HEX: "(0[xX])?[0-9a-fA-F]+|n",
    }
    return kind not in forms or bool(re.fullmatch(forms[kind], value))


def _elsewhere(tree: Path, symbol: str) -> str:
    """``file:line`` of a definition in a Kconfig file that this architecture does not read."""
    pattern = re.compile(rf"^(?:menu)?config\s+{re.escape(symbol)}\s*$", re.M)
    for folder in ("arch", "drivers"):
        for file in sorted((tree / folder).rglob("Kconfig*")):
            plain = file.is_file() and not file.is_symlink()
            text = file.read_text(errors="replace") if plain else ""
            if found := pattern.search(text):
                line = text.count("\n", 0, found.start()) + 1
                return f"{file.relative_to(tree)}:{line}"
    return ""
