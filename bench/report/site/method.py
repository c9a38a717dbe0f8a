"""A page for each method: its card, its report card and its rows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from bench.report.board import Board
from bench.report.plots.looks import Looks, series_of
from bench.report.site.index import rank_tip
from bench.report.site.names import mark_of, number_of, published_line, row_href, variant

if TYPE_CHECKING:
    from bench.registry import MethodEntry


def method_page(board: Board, method: str, entry: MethodEntry | None, looks: Looks) -> dict[str, Any]:
    """The values for the template of a method; `entry` is None where only its records are here."""
    card = board.cards.get(method)
    columns = {column.id: column for column in board.columns}
    lines = []
    for row in board.rows:
        if row.identity.method == method:
            metric = board.quality[row.identity.model]
            standing = board.standing(row.identity)
            lines.append(
                {
                    "href": "../" + row_href(row.identity),
                    "identity": row.identity,
                    "variant": variant(row.identity),
                    "mark": mark_of(looks[row.identity.model][series_of(row.identity)]),
                    "standing": standing,
                    "rank_tip": rank_tip(standing),
                    "metric": metric or "",
                    "status": row.status,
                    "number": number_of(row.cells.get(metric or ""), columns[metric].unit if metric else ""),
                }
            )
    text = entry.card() if entry is not None else None
    return {
        "method": method,
        "traits": entry.cls.traits if entry is not None else None,
        "lines": lines,
        "card": _rendered(text) if text else None,
        "ticks": card.ticks if card else (),
        "published": _published(board, method),
    }


def _published(board: Board, method: str) -> dict[str, list[dict[str, str]]]:
    """The published numbers of a method with ours, by state."""
    found: dict[str, list[dict[str, str]]] = {}
    for state in ("reproduced", "off", "not run", "not comparable"):
        mine = [c for c in board.published if c.published.row.of == method and c.state == state]
        found |= {state: [published_line(comparison) for comparison in mine]} if mine else {}
    return found


def _rendered(card: str) -> Any:
    """A card's Markdown as HTML, without its title; raw HTML in it stays text, and no link runs anything."""
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    return Markup(MarkdownIt("commonmark", {"html": False}).enable("table").render(re.sub(r"\A# .*\n", "", card)))
