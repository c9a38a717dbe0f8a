"""Tables for papers and READMEs: LaTeX (booktabs) and short Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from bench.record.store import safe_name
from bench.report.board import Board, Column, Row
from bench.report.formats import broken, cell_text, escape, grid, title_of
from bench.report.plots.looks import names, series_of

SHOWN = ("removed.params", "generate.speedup", "generate.peak_memory")
SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "–": "--",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "≠": r"$\neq$",
}
HEAD = 14
"""Characters of a line in the head of a column: about as wide as its numbers."""
WIDE = 5
"""Up to this many columns of numbers fit between one-inch margins in footnote size; more are set smaller."""
LONG = 45
"""Up to this many rows fit on one page."""
Named = Sequence[tuple[Row, str]]
NOTE = (
    "± one standard error, over several seeds their standard deviation; (a–b) a 95 % interval. Bold: no row of the "
    "same size and recovery is significantly better (paired tests, Holm, 5 %)."
)


def paper_tables(board: Board) -> dict[str, bytes]:
    """File name -> content: for each model a `.tex` and a `.md` of the columns that count."""
    files: dict[str, bytes] = {}
    for model in board.models():
        files[f"{safe_name(model)}.board.tex"] = latex(board, model).encode()
        files[f"{safe_name(model)}.board.md"] = short_markdown(board, model).encode()
    return files


def latex(board: Board, model: str) -> str:
    """A `table` for a paper that uses booktabs: the dense model, then a block for each target.

    A table that is too long for a page becomes one table for each target, with the dense model in each.
    """
    lines = [r"% Made by `leanboard report`; needs \usepackage{booktabs}."]
    for title, part in _pages(model, _named(board, model)).items():
        lines += _table(board, model, title, part)
    return "\n".join(lines)


def _pages(model: str, named: Named) -> dict[str, Named]:
    """Title of a table -> its rows."""
    if len(named) <= LONG:
        return {model: named}
    return {
        model if target == "none" else f"{model}, {target}": [
            (row, name) for row, name in named if row.identity.target == target or row.identity.method == "dense"
        ]
        for target in dict.fromkeys(row.identity.target for row, _ in named)
    }


def _table(board: Board, model: str, title: str, named: Named) -> list[str]:
    columns = columns_of(board, model)
    heads = [title_of(column, column.id in board.smoke) for column in columns]
    size, smaller = ("footnotesize", "scriptsize") if len(columns) <= WIDE else ("scriptsize", "tiny")
    lines = [
        r"\begin{table}",
        rf"\centering\{size}\setlength{{\tabcolsep}}{{2pt}}",
        rf"\caption{{{tex(f'{title}. {NOTE}')}}}",
        rf"\label{{tab:{re.sub(r'[^a-z0-9-]+', '-', title.lower())}}}",
        rf"\begin{{tabular}}{{ll{'r' * len(columns)}}}",
        r"\toprule",
        " & ".join(["Method", "Target", *(_head(*head, smaller) for head in heads)]) + r" \\",
    ]
    target = None
    for row, name in named:
        if row.identity.target != target:
            lines.append(r"\midrule")
        target = row.identity.target
        cells = [_marked(board, row, column, tex, r"\textbf{%s}") for column in columns]
        lines.append(" & ".join([tex(name), tex(target), *cells]) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""]


def short_markdown(board: Board, model: str) -> str:
    """A table for a README: the same rows and columns."""
    columns = columns_of(board, model)
    titles = ["<br>".join(escape(part) for part in title_of(c, c.id in board.smoke) if part) for c in columns]
    rows = [
        [
            escape(name),
            escape(row.identity.target),
            *(_marked(board, row, column, escape, "**%s**") for column in columns),
        ]
        for row, name in _named(board, model)
    ]
    return "\n".join([*grid(["method", "target", *titles], rows, left=2), escape(NOTE), ""])


def columns_of(board: Board, model: str) -> list[Column]:
    """The removed fraction, the headline, those of the other sides, the other perplexities and means that count,
    speed-up and memory."""
    headline = board.headlines[model]
    found = [c for c in board.columns_of(model) if any(row.value(c.id) is not None for row in board.of(model))]
    leading = {headline.metric, *(column.id for column in board.telling(model).values())}
    counts = [c for c in found if c.id in leading or (c.id in headline.others and not c.kind.is_part)]
    counts.sort(key=lambda column: column.id != headline.metric)
    first, *rest = ([c for c in found if c.name == name] for name in SHOWN)
    return [*first, *counts, *(column for columns in rest for column in columns)]


def tex(text: str) -> str:
    """`text` on one line, with all characters escaped that mean something in LaTeX."""
    return "".join(SPECIAL.get(character, character) for character in " ".join(text.split()))


def _head(title: str, protocol: str, smaller: str) -> str:
    """A title and, in the size `smaller`, its protocol below, each on as many lines as it needs."""
    lines = [tex(line) for line in broken(title, HEAD)]
    lines += [rf"\{smaller} {tex(line)}" for line in broken(protocol, HEAD)]
    return r"\shortstack[r]{" + r"\\".join(lines) + "}"


def _named(board: Board, model: str) -> list[tuple[Row, str]]:
    """The rows with their methods' names, and preset and recovery where they differ within a method."""
    found = names({series_of(row.identity) for row in board.of(model)})
    return [(row, found[series_of(row.identity)]) for row in board.of(model)]


def _marked(board: Board, row: Row, column: Column, write: Callable[[str], str], bold: str) -> str:
    standing = board.standings.get(row.identity, {}).get(column.id)
    text = write(cell_text(row.cells.get(column.id), column.unit))
    return bold % text if standing is not None and standing.low == 1 else text
