"""HTML and SVG as values: what is not markup already is escaped, so that no name can become an element.

``element("td", "<b>", class_="number")`` gives ``<td class="number">&lt;b&gt;</td>``. Names of models,
classes and nodes come from files that anyone may have written.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

Child = str | int | float | None | Iterable["Child"]
Value = str | int | float | bool | None

_VOID = frozenset({"meta", "line", "rect", "circle", "path", "polygon"})
"""Elements that have no children here, and no closing tag in HTML or a closed one in SVG."""


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(name: str, /, *children: Child, **attributes: Value) -> Markup:
    """Return an element.

    Args:
        name: Of the element.
        *children: Text, which is escaped; markup, which is not; any nesting of both; None is left out.
        **attributes: By name, a trailing underscore dropped and others turned into hyphens. True stands for a
            bare attribute, None and False for none.
    """
    given = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{name}{given}/>")
    return Markup(f"<{name}{given}>{joined(*children)}</{name}>")


def joined(*children: Child) -> Markup:
    """Return children without an element around them."""
    return Markup("".join(_text(child) for child in children))


def _text(child: Child) -> str:
    if isinstance(child, Markup):
        return child
    if child is None:
        return ""
    if isinstance(child, str | int | float):
        return html.escape(str(child))
    return joined(*child)


def _attribute(key: str, value: Value) -> str:
    name = key.removesuffix("_").replace("_", "-")
    if value is None or value is False:
        return ""
    if value is True:
        return f" {name}"
    text = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    return f' {name}="{html.escape(text)}"'
