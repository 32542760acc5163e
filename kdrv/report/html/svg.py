"""SVG elements: text and attributes are escaped, so that nothing in them can become markup."""

from __future__ import annotations

from markupsafe import Markup, escape

from kdrv.report.html.text import clean

Attribute = str | float


def element(tag: str, *inside: str, **attributes: Attribute) -> Markup:
    """An element. Names end in ``_`` where Python reserves them, and have ``_`` for ``-``."""
    shown = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(clean(_shown(value)))}"'
        for name, value in attributes.items()
    )
    content = "".join(escape(one if isinstance(one, Markup) else clean(one)) for one in inside)
    return Markup(f"<{tag}{shown}>{content}</{tag}>")


def title(text: str) -> Markup:
    """What is shown while the pointer is over the parent."""
    return element("title", text)


def group(*inside: str, **attributes: Attribute) -> Markup:
    """Elements together."""
    return element("g", *inside, **attributes)


def path(data: str, **attributes: Attribute) -> Markup:
    """A path by its commands."""
    return element("path", d=data, **attributes)


def picture(width: float, height: float, label: str, *inside: str, class_: str) -> Markup:
    """A whole picture with a ``label`` for those who do not see it."""
    return element(
        "svg",
        title(label),
        *inside,
        class_=class_,
        viewBox=f"0 0 {_shown(width)} {_shown(height)}",
        width=width,
        height=height,
        role="img",
    )


def _shown(value: Attribute) -> str:
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")
