"""The front page: for each model the table, its plot, and its headline and gate."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.protocol import FLAGS, flags_of
from bench.record.rows import RowName
from bench.report.board import WORSE, Board, Column, Row
from bench.report.formats import smoke_notes, title_of
from bench.report.four_sides import MEANING, first_on_all, tau_text
from bench.report.headline import is_baseline
from bench.report.matrix import KEYS, matrix_of
from bench.report.plots.looks import Looks, series_of
from bench.report.rank import Standing
from bench.report.site.names import Mark, Number, mark_of, method_href, number_of, row_href, variant

if TYPE_CHECKING:
    from bench.registry import MethodEntry

KEY = ("removed.params", "params.stored", "generate.speedup", "generate.peak_memory", "cost.seconds")
AXES = (*KEY, "generate.tokens_per_s", "bytes.disk", "bytes.resident", "macs.total", "cost.peak_memory")
BANDS = ((0.005, "nothing removed"), (0.15, "under 15 %"), (0.3, "15 to 30 %"), (0.45, "30 to 45 %"))
LAST_BAND = "over 45 %"


@dataclass(frozen=True)
class Head:
    """A column: `protocol` in pieces, between which a line may break; `view` is k (key), a (accuracy) or m (more).

    `kind` and `unit` are the metric's, `axis` is x or y where a plot may use it.
    """

    id: str
    title: str
    protocol: tuple[str, ...]
    tip: str
    view: str
    kind: str
    unit: str
    axis: str
    better: str


@dataclass(frozen=True)
class BoardLine:
    """A row: its `ranks` with a tip each, `cut` where another size begins, `ties` the numbers of the rows without a
    significant difference by the headline."""

    number: int
    href: str
    label: str
    method: str
    variant: str
    target: str
    track: str
    band: str
    mark: Mark
    ranks: tuple[tuple[Standing | None, str], ...]
    ties: str
    status: str
    is_worse: bool
    cut: bool
    cells: tuple[Number, ...]


def index_page(board: Board, methods: Mapping[str, MethodEntry], looks: Looks) -> dict[str, Any]:
    """The values for the template of the index."""
    numbers = {row.identity: i for i, row in enumerate(board.rows)}
    tracks = {row.identity.method: _track(row.identity.method, methods) for row in board.rows}
    sections = []
    for model in sorted(board.models(), key=lambda model: (board.quality[model] is None, model)):
        columns = _columns(board, model)
        sections.append(
            {
                "model": model,
                "ranks": _rank_heads(board, model),
                "agreements": [(a, tau_text(a)) for a in board.agreements if a.model == model],
                "firsts": first_on_all(board, model),
                "heads": [_head(board, model, column) for column in columns],
                "lines": _lines(board, model, columns, numbers, tracks, looks),
                "headline": board.headlines[model],
                "gate": board.gates[model],
                "remarks": board.remarks(model),
                "matrix": matrix_of(board, model),
            }
        )
    return {
        "sections": sections,
        "matrix_keys": len(KEYS),
        "tracks": sorted(set(tracks.values())),
        "bands": [*(name for _, name in BANDS), LAST_BAND],
        "methods": [_summary(board, method, track, methods) for method, track in sorted(tracks.items())],
        "published": Counter(comparison.state for comparison in board.published),
        "notes": board.notes,
        "records": int(board.long[["artifact_key", "measure_key"]].drop_duplicates().shape[0]),
    }


def band_of(row: Row) -> str:
    """The size band of a row, by the share of the parameters that was removed."""
    removed = row.value("removed.params") or 0.0
    return next((name for limit, name in BANDS if removed < limit), LAST_BAND)


def _head(board: Board, model: str, column: Column) -> Head:
    title, protocol = title_of(column, column.id in board.smoke)
    headline = board.headlines[model]
    leads = column.id in (headline.metric, *headline.sides.values())
    counts = leads or (column.id in headline.others and not column.kind.is_part)
    view = "k" if counts or column.name in KEY else "a" if column.kind.is_quality else "m"
    signal = board.signals[model].get(column.id)
    better = {"lower": "lower is better", "higher": "higher is better"}.get(column.direction, "")
    smoke = "; ".join(smoke_notes(board, [column]))
    flags = [f"+{flag}: {FLAGS[flag]}" for flag in flags_of(column.protocol)]
    tip = [column.id, *flags, better, signal.reason if signal is not None else "", smoke]
    axis = "y" if column.kind.is_quality else "x" if column.name in AXES else ""
    pieces = tuple(re.split(r"(?<=[/+])", protocol)) if protocol else ()
    tips = "; ".join(filter(None, tip))
    return Head(column.id, title, pieces, tips, view, column.kind.name, column.unit, axis, column.direction)


def _columns(board: Board, model: str) -> list[Column]:
    """The headlines of the sides first, then the others that count over tasks, then the rest in the board's order."""
    headline = board.headlines[model]
    found = [c for c in board.columns_of(model) if any(c.id in row.cells for row in board.of(model))]
    found = [c for c in found if not is_baseline(c)]
    first = [c.id for c in found if not c.kind.is_part and c.id in headline.others]
    leading = dict.fromkeys([headline.metric, *headline.sides.values(), *first])
    order = {id_: i for i, id_ in enumerate(leading)}
    return sorted(found, key=lambda column: order.get(column.id, len(order)))


def _lines(
    board: Board,
    model: str,
    columns: Sequence[Column],
    numbers: Mapping[RowName, int],
    tracks: Mapping[str, str],
    looks: Looks,
) -> list[BoardLine]:
    labels, lines = board.labels(model), []
    target = ""
    for row in board.of(model):
        identity, standing = row.identity, board.standing(row.identity)
        lines.append(
            BoardLine(
                number=numbers[identity],
                href=row_href(identity),
                label=labels[identity],
                method=identity.method,
                variant=variant(row.identity),
                target=identity.target,
                track=tracks[identity.method],
                band=band_of(row),
                mark=mark_of(looks[model][series_of(identity)]),
                ranks=tuple((s, rank_tip(s)) for s in _standings(board, row)),
                ties=" ".join(str(numbers[tie]) for tie in standing.ties) if standing else "",
                status=row.status,
                is_worse=WORSE in row.notes,
                cut=bool(target) and identity.target != target,
                cells=tuple(number_of(row.cells.get(column.id), column.unit) for column in columns),
            )
        )
        target = identity.target
    return lines


def _rank_heads(board: Board, model: str) -> list[tuple[str, str]]:
    """The columns of ranks with their tips: one for each side where several were measured, else one."""
    headline = board.headlines[model]
    what = "interval of ranks by {}, among rows of the same size and recovery, from paired tests corrected by Holm"
    if len(headline.sides) < 2:
        return [("rank", what.format("the headline metric"))]
    return [(side, f"{MEANING[side]}: {what.format(metric)}") for side, metric in headline.sides.items()]


def _standings(board: Board, row: Row) -> list[Standing | None]:
    """The standings in those columns."""
    sides = board.headlines[row.identity.model].sides
    return [board.on_side(row.identity, side) for side in sides] if len(sides) > 1 else [board.standing(row.identity)]


def rank_tip(standing: Standing | None) -> str:
    """A rank, or its absence, in words."""
    if standing is None:
        return "not ranked: no quality was measured"
    if not standing.is_ranked:
        return "the reference" if standing.reason == "reference" else f"not ranked: {standing.reason}"
    others = len(standing.ties)
    ties = f"; cannot be distinguished from {others} other{'s' * (others > 1)}" if others else ""
    return f"rank {standing.text} of {standing.of} by {standing.metric}, among {standing.group}{ties}"


def _track(method: str, methods: Mapping[str, MethodEntry]) -> str:
    return methods[method].cls.traits.track if method in methods else "other"


def _summary(board: Board, method: str, track: str, methods: Mapping[str, MethodEntry]) -> dict[str, Any]:
    card = board.cards.get(method)
    title = methods[method].cls.traits.title if method in methods else method
    return {
        "name": method,
        "title": title,
        "track": track,
        "href": method_href(method),
        "ticks": card.ticks if card else (),
        "rows": sum(row.identity.method == method for row in board.rows),
    }
