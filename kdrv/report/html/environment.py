"""The templates' environment, shared by all pages."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kdrv.report.html.text import clean, count, percent, plural


@cache
def environment() -> Environment:
    """Templates whose every text is cleaned and escaped."""
    found = Environment(
        loader=PackageLoader("kdrv.report.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_fit,
    )
    found.filters.update(percent=percent, count=count, plural=plural)
    return found


def _fit(value: object) -> object:
    return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value
