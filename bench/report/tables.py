"""The board as CSV with every column in full precision, and as a table for the terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pandas as pd

from bench.record.kind import SIDES
from bench.record.kinds import SPEEDUP, kind_of
from bench.record.rows import RowName
from bench.report.board import Board, Column, Row
from bench.report.cell import Cell
from bench.report.formats import NOTHING, cell_text, mean_of, number, smoke_notes, title_of
from bench.report.rank import Standing
from bench.report.verdicts import is_ranked

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Part = tuple[str, Callable[[Row], str]]
BRIEF = (("removed.params", "removed\n%"), ("params.stored", "parameters\n"), ("cost.seconds", "compress\ns"))


def board_csv(board: Board) -> str:
    """`leaderboard.csv`: one line for each row."""
    return _csv(board_frame(board))


def long_csv(board: Board) -> str:
    """`long.csv`: one line for each metric of each record."""
    return _csv(board.long)


def paired_csv(board: Board) -> str:
    """`paired.csv`: one line for each comparison with a control."""
    columns = [*RowName._fields, "against", "side", "metric", "n", "difference", "low", "high", "p"]
    lines = [
        (*pair.row, pair.control, kind_of(pair.metric).side, pair.metric, pair.n, d.value, d.low, d.high, d.p)
        for pair in board.pairs
        for d in [pair.difference]
    ]
    return _csv(pd.DataFrame(lines, columns=columns))


def sides_csv(board: Board) -> str:
    """`sides.csv`: one line for every two sides of quality in each group: whether they order its rows alike."""
    columns = ["model", "group", "side", "other side", "metric", "other metric", "rows", "pairs", "same order"]
    lines = [
        (a.model, a.group, *a.sides, *a.metrics, a.rows, a.pairs, a.same, a.tau, a.low, a.high)
        for a in board.agreements
    ]
    frame = pd.DataFrame(lines, columns=[*columns, "tau", "low", "high"])
    return str(frame.to_csv(index=False, lineterminator="\n"))


def reproduction_csv(board: Board) -> str:
    """`reproduction.csv`: one line for each published number of a method or control here."""
    heads = [
        "about",
        "as published",
        "published model",
        "params",
        "ratio",
        "finetuned",
        "published metric",
        "printed",
        "metric",
        "published",
        "verdict",
        "why",
        *RowName._fields,
        "ours",
        "low",
        "high",
        "delta",
        "source",
        "conditions",
    ]
    lines = [
        (
            p.row.of,
            p.row.method,
            p.row.model,
            p.row.params,
            p.row.ratio,
            p.row.finetuned,
            p.metric,
            p.value,
            p.metric_id,
            p.number,
            c.state,
            c.why,
            *(c.row or ("",) * len(RowName._fields)),
            c.ours,
            c.low,
            c.high,
            c.delta,
            p.source,
            p.conditions,
        )
        for c in board.published
        for p in [c.published]
        if p.row.of
    ]
    return _csv(pd.DataFrame(lines, columns=heads, dtype=object))


def board_frame(board: Board) -> pd.DataFrame:
    """The wide table: under a metric's id its value, or its status where there is none.

    After it come, where any row has them, `<id> stderr`, `low` and `high` (95 % interval), `std` (between seeds),
    `n`, `seeds` and `rank`. `rank` alone is the rank by the headline metric, `ranked among` its group, `ties` the rows
    without a significant difference, `not ranked` why there is no rank. `<side> metric` and `<side> rank` are those of
    each side of quality. `smoke` lists the columns whose value comes
    from too few items.
    """
    lines = [_line(board, row) for row in board.rows]
    numbers = [name for column in board.columns for name in _numbers(column, Cell(None), None)]
    kept = [name for name in numbers if " " not in name or any(line[name] is not None for line in lines)]
    heads = [*RowName._fields, "seeds", "status", "rank", "ranked among", "ties", "not ranked"]
    sides = [f"{side} {what}" for side in SIDES for what in ("metric", "rank")]
    sides = [name for name in sides if any(line[name] is not None for line in lines)]
    return pd.DataFrame(lines, columns=[*heads, *sides, *kept, "smoke", "notes"], dtype=object)


def print_table(board: Board, console: Console) -> None:
    """Print the key columns, a table for each model; a narrow terminal gets fewer columns, none of them cut."""
    if not board.rows:
        console.print("No records yet: `leanboard run SUITE` makes some.", markup=False)
    for model in board.models():
        parts = _terminal_parts(board, model)
        left_out: list[str] = []
        wide = console.options.update(width=1000)
        while console.measure(_rich(board, model, parts, []), options=wide).maximum > console.width and len(parts) > 3:
            titles = [title.split("\n")[0] for title, _ in parts]
            least = next((titles.index(t) for t in ("compress", "parameters") if t in titles), len(parts) - 2)
            left_out.append(titles[least])
            del parts[least]
        console.print(_rich(board, model, parts, left_out))


def _rich(board: Board, model: str, parts: list[Part], left_out: list[str]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    caption = _caption(board, model)
    if left_out:
        caption += f"\nno room here for: {', '.join(left_out)}; all of it is in leaderboard.md"
    table = Table(
        title=Text(model, "bold"),
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption=Text(caption, "dim"),
        caption_justify="left",
    )
    for header, _ in parts:
        is_text = header in ("method", "status")
        table.add_column(
            Text(header),
            justify="left" if is_text else "right",
            no_wrap=header != "status",
            overflow="fold",
            max_width=24 if header == "status" else None,
        )
    for row in board.of(model):
        style = "bold" if row.identity.method == "dense" else "red" if row.status != "ok" else ""
        table.add_row(*(Text(show(row)) for _, show in parts), style=style)
    return table


def _csv(frame: pd.DataFrame) -> str:
    """Without the column of calibration texts, where no row names one."""
    left_out = [] if frame["calibration"].any() else ["calibration"]
    return str(frame.drop(columns=left_out).to_csv(index=False, lineterminator="\n"))


def _line(board: Board, row: Row) -> dict[str, object]:
    line: dict[str, object] = {**row.identity._asdict(), "seeds": row.seeds, "status": row.status}
    line |= _standing(board, row)
    for side in SIDES:
        standing = board.on_side(row.identity, side)
        line[f"{side} metric"] = board.headlines[row.identity.model].sides.get(side)
        line[f"{side} rank"] = standing.text if standing is not None and standing.is_ranked else None
    for column in board.columns:
        standing = board.standings.get(row.identity, {}).get(column.id)
        line |= _numbers(column, row.cells.get(column.id, Cell(None)), standing)
    line["smoke"] = " ".join(c.id for c in board.columns if c.id in board.smoke and row.value(c.id) is not None)
    line["notes"] = "; ".join(" ".join(note.split()) for note in row.notes)
    return line


def _standing(board: Board, row: Row) -> dict[str, object]:
    standing = board.standing(row.identity)
    if standing is None:
        return {"rank": None, "ranked among": None, "ties": None, "not ranked": "no quality was measured"}
    labels = board.labels(row.identity.model)
    return {
        "rank": standing.text if standing.is_ranked else None,
        "ranked among": standing.group or None,
        "ties": ", ".join(labels[other] for other in standing.ties) or None,
        "not ranked": standing.reason or None,
    }


def _numbers(column: Column, cell: Cell, standing: Standing | None) -> dict[str, object]:
    low, high = cell.interval or (None, None)
    has_value = cell.value is not None
    return {
        column.id: cell.value if has_value else ", ".join(dict.fromkeys(cell.lost)) or None,
        f"{column.id} stderr": cell.stderr,
        f"{column.id} low": low,
        f"{column.id} high": high,
        f"{column.id} std": cell.std,
        f"{column.id} n": cell.n if cell.n > 1 else None,
        f"{column.id} seeds": cell.seeds if cell.seeds > 1 or (has_value and cell.lost) else None,
        f"{column.id} rank": standing.text if standing is not None and standing.is_ranked else None,
    }


def _terminal_parts(board: Board, model: str) -> list[Part]:
    labels = board.labels(model)
    columns = {column.id: column for column in board.columns_of(model)}
    quality, mean = columns.get(board.quality[model] or ""), mean_of(board, model)
    sides = [columns[metric] for metric in board.headlines[model].sides.values()]
    speed = next((c for c in columns.values() if c.name == SPEEDUP), None)
    parts: list[Part] = [("method", lambda row: labels[row.identity])]
    if any(row.seeds > 1 for row in board.of(model)):
        parts.append(("seeds", lambda row: str(row.seeds)))
    if is_ranked(board, model):
        parts.append(("rank", lambda row: _rank(board, row)))
    parts += [_short(columns[id_], title) for id_, title in BRIEF[:2] if id_ in columns]
    parts += [_full(board, column) for column in dict.fromkeys([quality, mean, *sides, speed]) if column is not None]
    parts += [_short(columns[id_], title) for id_, title in BRIEF[2:] if id_ in columns]
    return [*parts, ("status", lambda row: row.status)]


def _rank(board: Board, row: Row) -> str:
    standing = board.standing(row.identity)
    return NOTHING if standing is None else standing.text


def _short(column: Column, title: str) -> Part:
    return title, lambda row: number(row.value(column.id), column.unit)


def _full(board: Board, column: Column) -> Part:
    title, protocol = title_of(column, column.id in board.smoke)
    if column.kind.is_quality:
        title, protocol = title.replace(" ", "\n", 1), protocol.replace(" ", "\n")
    return (
        f"{title}\n{protocol}",
        lambda row: cell_text(row.cells.get(column.id), column.unit) if row.has_checkpoint else NOTHING,
    )


def _caption(board: Board, model: str) -> str:
    how = "ranks among rows of one target and recovery" if is_ranked(board, model) else "not ranked"
    lines = [f"{how}; ± standard error, (–) 95 % interval, ↓ lower is better, ↑ higher is better"]
    lines += [f"dense gate {board.gates[model].state}"] * (board.gates[model].state != "passed")
    columns = board.columns_of(model)
    lines += [f"{note}, shows that all works and not how good a model is" for note in smoke_notes(board, columns)]
    lines += [f"{', '.join(rows)}: {' '.join(remark.split())}" for remark, rows in board.remarks(model).items()]
    return "\n".join(lines)
