"""Markup that is safe by construction: every text is escaped where it is placed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

WHOLE = 25
"""Rows of a table that print keeps on one page."""


class Html(str):
    """A text that is markup already. All other texts are escaped."""

    __slots__ = ()


def element(tag: str, *children: object, **attributes: object) -> Html:
    """Return an element; `class_` is the attribute class, `data_chart` data-chart."""
    marks = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for name, value in attributes.items()
    )
    return Html(f"<{tag}{marks}>{joined(children)}</{tag}>")


def joined(children: Iterable[object], between: str = "") -> Html:
    """Return children side by side; `between` is text."""
    parts = (child if isinstance(child, Html) else escape(str(child)) for child in children)
    return Html(escape(between).join(parts))


def section(mark: str, title: str, *children: object) -> Html:
    """Return a section of the page under a heading; `mark` is its id."""
    heading = element("h2", title, id=f"{mark}-title")
    return element("section", heading, *children, id=mark, aria_labelledby=f"{mark}-title")


def paragraph(*children: object, **attributes: object) -> Html:
    """Return a paragraph."""
    return element("p", *children, **attributes)


def details(summary: str, *children: object) -> Html:
    """Return content that is folded away until it is asked for."""
    return element("details", element("summary", summary), *children)


def table(
    headings: Sequence[object],
    rows: Iterable[Sequence[object]],
    *,
    caption: str,
    texts: int = 1,
    groups: Sequence[tuple[str, int]] = (),
) -> Html:
    """Return a table in a box that scrolls by itself; the first `texts` columns are text.

    The first cell of a row is its heading. Numbers are set right-aligned. `groups` are headings over
    so many columns each.
    """
    head = [_cell("th", cell, place >= texts, "col") for place, cell in enumerate(headings)]
    over = [element("th", title, colspan=span, scope="colgroup") for title, span in groups]
    body = [element("tr", *_row(row, texts)) for row in rows]
    return element(
        "div",
        element(
            "table",
            element("caption", caption),
            element("thead", *([element("tr", *over)] if over else []), element("tr", *head)),
            element("tbody", *body),
        ),
        class_="scroll whole" if len(body) <= WHOLE else "scroll",
        tabindex="0",
        role="group",
        aria_label=caption,
    )


def _row(row: Sequence[object], texts: int) -> list[Html]:
    first = _cell("th", row[0], texts < 1, "row")
    rest = (_cell("td", cell, place >= texts, "") for place, cell in enumerate(row[1:], start=1))
    return [first, *rest]


def _cell(tag: str, child: object, number: bool, scope: str) -> Html:
    attributes = {"class_": "number"} if number else {}
    if scope:
        attributes["scope"] = scope
    return element(tag, child, **attributes)
