"""The page of a campaign, from its result and the driver's source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from kdrv.core.show import duration
from kdrv.explore.campaign import CampaignResult
from kdrv.explore.lines import LineCoverage
from kdrv.report.html.bugs import bug_views, happens
from kdrv.report.html.charts import steps
from kdrv.report.html.environment import environment
from kdrv.report.html.source import source_files
from kdrv.report.html.text import count, percent, plural

NO_LINES = LineCoverage({}, {}, ())


@dataclass(frozen=True)
class Figure:
    """A headline figure: its name, its value, and what explains it."""

    name: str
    value: str
    remark: str = ""
    tone: str = ""


@dataclass(frozen=True)
class FaultView:
    """A kind of fault and how often it fired; ``share`` is of the most frequent one's."""

    kind: str
    words: str
    times: str
    share: float


def campaign_page(
    result: CampaignResult,
    lines: LineCoverage | None,
    sources: Mapping[str, str],
    title: str,
    *,
    commands: Mapping[str, str] | None = None,
) -> str:
    """A campaign as one HTML page.

    ``lines`` is the coverage of the driver's lines where it was measured, ``sources`` the driver's
    files by their names in it, ``commands`` the command lines that replay bugs, by fingerprint.
    """
    coverage = lines or NO_LINES
    most = max(result.fired.values(), default=1)
    bugs = bug_views(result, commands or {})
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            title=title,
            result=result,
            verdict=_verdict(result),
            subtitle=f"{result.identity.module} on Linux {result.identity.kernel}",
            figures=_figures(result, coverage),
            charts=_charts(result),
            faults=[
                FaultView(kind.value, happens(kind), count(times), times / most)
                for kind, times in sorted(
                    result.fired.items(), key=lambda each: (-each[1], each[0])
                )
            ],
            never=[(kind.value, happens(kind)) for kind in result.never],
            bugs=bugs,
            more_bugs=len(result.bugs) - len(bugs),
            coverage=coverage,
            files=source_files(coverage, sources),
        )
    )


def _verdict(result: CampaignResult) -> tuple[str, str]:
    """In two or three words, and the class of their colour."""
    words = plural(len(result.bugs), "bug") if result.bugs else "no bug found"
    words += ", interrupted" if result.interrupted else ""
    return words, "bad" if result.bugs else "fine"


def _figures(result: CampaignResult, coverage: LineCoverage) -> list[Figure]:
    seconds = max(result.seconds, 1e-9)
    ratio = result.virtual_seconds / seconds
    fired = sum(result.fired.values())
    kinds = plural(len(result.fired), "kind")
    reached = (
        Figure(
            "lines reached",
            percent(coverage.share),
            f"{count(coverage.covered)} of {count(coverage.reachable)}",
        )
        if coverage.reachable
        else Figure("lines reached", "\N{EN DASH}", "not measured")
    )
    return [
        Figure("runs", count(result.runs), f"{count(result.checked_runs)} checked"),
        Figure("runs a second", f"{result.runs / seconds:.1f}", plural(result.jobs, "job")),
        Figure("real time", duration(result.seconds), "interrupted" if result.interrupted else ""),
        Figure(
            "simulated time",
            duration(result.virtual_seconds),
            f"{ratio:.3g} times real time" if result.runs else "",
        ),
        reached,
        Figure("faults fired", count(fired), kinds),
        Figure(
            "bugs",
            count(len(result.bugs)),
            f"met {plural(sum(result.met.values()), 'time')}" if result.bugs else "",
            "bad" if result.bugs else "fine",
        ),
    ]


def _charts(result: CampaignResult) -> list[Markup]:
    samples = result.samples
    return [
        steps(name, [(s.at, value) for s, value in zip(samples, values, strict=True)], end, kind)
        for end in [result.seconds]
        for name, values, kind in (
            ("runs", [s.runs for s in samples], "runs"),
            ("places in the code reached", [s.covered for s in samples], "covered"),
            ("bugs", [s.bugs for s in samples], "bugs"),
        )
    ]
