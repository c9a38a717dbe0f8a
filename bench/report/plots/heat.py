"""Heat map: the change of each row on each task against the dense model, in percentage points."""

from __future__ import annotations

from typing import Any

from bench.record.kinds import split
from bench.report.board import Board, Column, Row
from bench.report.formats import broken
from bench.report.plots.style import INK, QUIET, canvas, plain, settled

LOSS, NONE, GAIN = "#b35806", "#f7f7f7", "#542788"
"""Orange to purple, which colour-blind readers can distinguish."""
CELL = 10
"""Width of a cell in characters."""


def heat_map(board: Board, model: str) -> Any | None:
    """The figure; None where no compressed row shares two tasks or more with the dense model."""
    from matplotlib.colors import LinearSegmentedColormap

    rows, columns, changes = changes_of(board, model)
    if len(columns) < 2 or not rows:
        return None
    figure, axes = canvas(max(7.0, 3.2 + 0.78 * len(columns)), 1.7 + 0.27 * len(rows))
    reach = max(5.0, *(abs(change) for line in changes for change in line if change is not None))
    colours = LinearSegmentedColormap.from_list("change", [LOSS, NONE, GAIN])
    numbers = [[float("nan") if change is None else change for change in line] for line in changes]
    axes.imshow(numbers, cmap=colours, vmin=-reach, vmax=reach, aspect="auto")
    for i, line in enumerate(changes):
        for j, change in enumerate(line):
            text = "–" if change is None else f"{change:+.1f}".replace("-", "−")
            colour = QUIET if change is None else "white" if abs(change) > 0.6 * reach else INK
            axes.text(j, i, text, ha="center", va="center", fontsize=8, color=colour)
    labels, protocols = board.labels(model), {column.protocol for column in columns}
    axes.set_yticks(range(len(rows)), [plain(labels[row.identity]) for row in rows])
    axes.set_xticks(range(len(columns)), [_task(column, has_protocol=len(protocols) > 1) for column in columns])
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_title(f"{plain(model)}: change by task", loc="left", fontweight="bold", pad=10)
    shared = f"; {protocols.pop()}" if len(protocols) == 1 else ""
    is_smoke = any(column.id in board.smoke for column in columns)
    smoke = f"; smoke: fewer than {columns[0].kind.least} items" * is_smoke
    axes.set_xlabel(f"percentage points against the dense model{shared}{smoke}", color=QUIET)
    return settled(figure)


def changes_of(board: Board, model: str) -> tuple[list[Row], list[Column], list[list[float | None]]]:
    """Rows, tasks and their changes (percentage points), for the tasks that the dense model was measured on.

    Where a task has several accuracies and a group counts one of them, that one is taken.
    """
    dense = next((row for row in board.of(model) if row.identity.method == "dense"), None)
    counted = {member for group in board.groups for member in group.by_name}
    shares = [c for c in board.columns_of(model) if c.kind.is_share and c.kind.side == "knows"]
    columns = [c for c in shares if dense and dense.value(c.id) is not None]
    columns = [c for c in columns if c.name in counted] or columns
    rows = [
        row
        for row in board.of(model)
        if row is not dense and sum(row.value(column.id) is not None for column in columns) > 1
    ]
    columns = [c for c in columns if any(row.value(c.id) is not None for row in rows)]
    return rows, columns, [[_change(row, dense, column) for column in columns] for row in rows]


def _change(row: Row, dense: Row | None, column: Column) -> float | None:
    ours, whole = row.value(column.id), dense.value(column.id) if dense else None
    return None if ours is None or whole is None else 100 * (ours - whole)


def _task(column: Column, has_protocol: bool) -> str:
    """Name and metric (and protocol) of a task on lines of their own; text wider than a cell is broken."""
    name, metric, _ = split(column.id)
    return "\n".join([*broken(name, CELL), metric, *(broken(column.protocol, CELL) if has_protocol else [])])
