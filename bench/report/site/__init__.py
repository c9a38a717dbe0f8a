"""The board as a static site that works from a folder: no server, no outside request, the same bytes every time.

All text from records is escaped by the templates, and the pages' policy lets no other script run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.record.rows import RowName
from bench.report.board import Board
from bench.report.frame import Run
from bench.report.plots.looks import looks
from bench.report.site.index import index_page
from bench.report.site.method import method_page
from bench.report.site.names import method_href, row_href
from bench.report.site.row import row_page

if TYPE_CHECKING:
    from jinja2 import Environment

    from bench.registry import MethodEntry

TEMPLATES = Path(__file__).parent / "templates"
STATIC = ("style.css", "board.js")


def site(
    board: Board, runs: Mapping[RowName, Mapping[int, Run]], methods: Mapping[str, MethodEntry]
) -> dict[str, bytes]:
    """File name -> content: the index, a page for each row and each method, one style sheet and one script."""
    pages = _environment()
    look = {model: looks(row.identity for row in board.of(model)) for model in board.models()}
    files = {name: (TEMPLATES / name).read_bytes() for name in STATIC}
    files["index.html"] = _page(pages, "index.html", index_page(board, methods, look), top="")
    whole = {
        identity.model: run.artifact.widths
        for identity, seeds in sorted(runs.items())
        if identity.method == "dense"
        for run in seeds.values()
        if run.artifact is not None
    }
    for row in board.rows:
        content = row_page(board, row, runs[row.identity], look[row.identity.model], whole.get(row.identity.model, []))
        files[row_href(row.identity)] = _page(pages, "row.html", content, top="../")
    for method in sorted({row.identity.method for row in board.rows}):
        content = method_page(board, method, methods.get(method), look)
        files[method_href(method)] = _page(pages, "method.html", content, top="../")
    return files


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _page(pages: Environment, template: str, content: Mapping[str, Any], top: str) -> bytes:
    return pages.get_template(template).render(**content, top=top).encode()
