"""Why a requested symbol is not in the final configuration, in words, and what to change.

The kernel drops a setting whose conditions do not hold without a word. Here the tree's Kconfig is
read (:mod:`kdrv.kernel.kconfig_tree`), valued by the finished ``.config``, and walked from the
symbol down to the first thing a person can change.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kdrv.build.explain_one import Explainer
from kdrv.build.explain_probe import Probe
from kdrv.build.explain_rust import rust_problem
from kdrv.build.explain_world import Cause, Explanation, World
from kdrv.build.lane import Fragment
from kdrv.build.make import Make
from kdrv.core.context import Context
from kdrv.core.errors import KdrvError
from kdrv.kernel.kconfig import Setting, compare, merge, read_settings
from kdrv.kernel.kconfig_expr import Values
from kdrv.kernel.kconfig_tree import KconfigTree

__all__ = ["Cause", "Explanation", "explain", "explain_lane"]


def explain_lane(ctx: Context, make: Make, config: Path) -> tuple[Explanation, ...]:
    """An explanation for each symbol that the lane asks for and ``config`` does not have.

    Quick when nothing is missing: two files are read and compared. Raises
    :class:`kdrv.core.errors.UsageError` for a fragment with a line that is no setting.
    """
    lane = make.lane
    requested = lane.settings
    if not compare(requested, read_settings(config)):
        return ()
    base = lane.base.settings if isinstance(lane.base, Fragment) else {}
    variables = dict(word.split("=", 1) for word in lane.make_variables())
    probe = Probe(make.tree.path, make.output, make.toolchain, variables, ctx)
    with ctx.events.step("finding out why Kconfig dropped what was asked for"):
        return explain(probe, config, requested, base)


def explain(
    probe: Probe,
    final_config: Path,
    requested: Mapping[str, Setting],
    base: Mapping[str, Setting] | None = None,
) -> tuple[Explanation, ...]:
    """An explanation for each of ``requested`` that ``final_config`` does not have.

    Symbols that only follow another missing one come last. ``base`` are settings that nobody
    insists on but that may be the cause. When kdrv cannot read the tree's Kconfig, the
    explanations say so. Takes a few seconds when something is missing.
    """
    final = read_settings(final_config)
    missing = compare(requested, final)
    if not missing:
        return ()
    try:
        tree = KconfigTree(probe.tree, probe.environment, probe.run)
    except KdrvError as error:
        return tuple(
            Explanation(
                symbol=one.setting.symbol,
                wanted=one.setting.value,
                got=one.got,
                summary=f"{one.setting} became {one.got}; why is not known: {error.message}",
                change=error.remedy,
                place=one.setting.place,
            )
            for one in missing
        )
    world = World(
        tree=tree,
        values=Values({setting.symbol: setting.value for setting in final.values()}, tree),
        settings=merge(base or {}, requested),
        arch=probe.make.get("ARCH", probe.environment["SRCARCH"]),
        rust_problem=lambda: rust_problem(probe.rust_is_available()),
    )
    explainer = Explainer(world, probe.tree, {one.setting.symbol for one in missing})
    return tuple(sorted(map(explainer.explain, missing), key=lambda explained: explained.follows))
