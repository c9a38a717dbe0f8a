"""A page for each row: its identity, its scores, its layers, its cost, and the commands that make it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.record.kinds import SPEEDUP, kind_of
from bench.record.rows import command
from bench.record.schema import ArtifactRecord, BaseRecord
from bench.report.board import WORSE, Board, Row
from bench.report.formats import difference, number, title_of, writer
from bench.report.frame import Run, status_text
from bench.report.paired import Pair
from bench.report.plots.looks import Look, Series, series_of
from bench.report.site.index import rank_tip
from bench.report.site.names import mark_of, method_href, number_of, published_line, row_href, variant

STRIP = 56
"""Height of the drawing of what is left of each layer, in units of the picture; a layer is 10 wide."""


Widths = Sequence[tuple[int, int, int]]


def row_page(
    board: Board, row: Row, runs: Mapping[int, Run], looks: Mapping[Series, Look], whole: Widths
) -> dict[str, Any]:
    """The values for the template of a row; `whole` are the widths of the dense model, empty where not known."""
    model = row.identity.model
    dense = next((other for other in board.of(model) if other.identity.method == "dense"), None)
    made = [run.artifact for _, run in sorted(runs.items()) if run.artifact is not None]
    ranked = board.standings.get(row.identity, {})
    standing, labels = board.standing(row.identity), board.labels(model)
    return {
        "row": row,
        "variant": variant(row.identity),
        "look": mark_of(looks[series_of(row.identity)]),
        "method_href": method_href(row.identity.method),
        "standing": standing,
        "rank_tip": rank_tip(standing),
        "ties": [(labels[tie], row_href(tie)) for tie in standing.ties] if standing else [],
        "is_worse": WORSE in row.notes,
        "facts": list(_facts(board, row, dense)),
        "scores": _scores(board, row, dense, {id_: s.text for id_, s in ranked.items() if s.is_ranked}),
        "layers": _layers(made, whole),
        "pairs": [_pair(p) for p in board.pairs if p.row == row.identity],
        "published": [published_line(c) for c in board.published if c.row == row.identity and c.state != "not run"],
        "texts": list(_texts(runs)),
        "costs": [_cost(artifact) for artifact in made if artifact.cost],
        "seeds": [_seed(a) for a in made],
        "failures": list(_failures(runs)),
        "remarks": row.notes,
    }


def _facts(board: Board, row: Row, dense: Row | None) -> Iterator[dict[str, str]]:
    """The few numbers that come first, with those of the dense model."""
    headline = board.headlines[row.identity.model]
    leading = list(dict.fromkeys([headline.metric, *headline.sides.values()]))
    wanted = (*leading, "removed.params", SPEEDUP, "generate.peak_memory", "cost.seconds")
    order = {metric: i for i, metric in enumerate(leading)}
    for column in sorted(board.columns_of(row.identity.model), key=lambda column: order.get(column.id, len(order))):
        value = row.value(column.id)
        if (column.id in wanted or column.name in wanted) and value is not None:
            shown = number_of(row.cells[column.id], column.unit)
            title, protocol = title_of(column, column.id in board.smoke)
            reference = dense.value(column.id) if dense and dense is not row else None
            is_compared = column.id in leading or column.name == "generate.peak_memory"
            standing = board.standings.get(row.identity, {}).get(column.id) if column.id in leading else None
            yield {
                "title": title,
                "side": (column.kind.side or "") * (column.id in leading),
                "rank": f"rank {standing.text} of {standing.of}" if standing and standing.is_ranked else "",
                "protocol": protocol,
                "text": shown.text,
                "error": shown.error,
                "dense": number(reference, column.unit) if reference is not None and is_compared else "",
            }


def _scores(board: Board, row: Row, dense: Row | None, ranks: Mapping[str, str]) -> dict[str, list[dict[str, Any]]]:
    """All numbers of the row, by section: with protocol, n, interval, the dense model's number and the rank."""
    found: dict[str, list[dict[str, Any]]] = {}
    for column in board.columns_of(row.identity.model):
        cell = row.cells.get(column.id)
        missing = row.missing.get(column.id)
        if cell is None and not missing:
            continue
        reference = dense.value(column.id) if dense and dense is not row else None
        signal = board.signals[row.identity.model].get(column.id)
        remark = f"lacks {', '.join(missing)}" if missing else ""
        if signal is not None and signal.has_signal is False:
            remark = signal.reason
        found.setdefault(column.kind.section, []).append(
            {
                "id": column.id,
                "title": title_of(column)[0],
                "protocol": column.protocol,
                "remark": remark,
                "number": number_of(cell, column.unit),
                "n": f"{cell.n:,}" if cell and cell.n > 1 else "",
                "dense": number(reference, column.unit) if reference is not None else "",
                "rank": ranks.get(column.id, ""),
            }
        )
    return found


def _texts(runs: Mapping[int, Run]) -> Iterator[dict[str, Any]]:
    """The texts that the checkpoints wrote after fixed beginnings, and those of the dense model."""
    for seed, run in sorted(runs.items()):
        for task, measure in sorted(run.measures.items()):
            texts = measure.evidence.texts
            names = [name for name in ("beginning", "measured", "dense") if name in texts]
            if {"beginning", "measured"} <= set(names):
                lines = [dict(zip(names, line, strict=True)) for line in zip(*map(texts.get, names), strict=True)]
                yield {"seed": seed, "task": task, "lines": lines}


def _layers(made: Sequence[ArtifactRecord], whole: Widths) -> dict[str, Any] | None:
    """The kept widths of each layer, as bars over bars of the full widths; None where no record has them."""
    widths = next((artifact.widths for artifact in made if artifact.widths), [])
    if not widths:
        return None
    has_dense = len(whole) == len(widths)
    full = whole if has_dense else [tuple(max(w[i] for w in widths) for i in range(3))] * len(widths)
    strips = []
    for i, title in ((0, "attention heads"), (2, "MLP channels")):
        kept = [w[i] / f[i] if f[i] else 0.0 for w, f in zip(widths, full, strict=True)]
        least, most = min(w[i] for w in widths), max(w[i] for w in widths)
        strips.append(
            {
                "title": title,
                "kept": bars(kept),
                "full": bars([1.0] * len(widths)),
                "of": max(f[i] for f in full),
                "range": f"{least:,}" if least == most else f"{least:,} to {most:,}",
            }
        )
    return {
        "strips": strips,
        "widths": widths,
        "ticks": range(0, len(widths), 5),
        "has_dense": has_dense,
        "is_whole": has_dense and list(widths) == list(whole),
        "width": 10 * len(widths),
        "height": STRIP,
    }


def bars(fractions: Sequence[float]) -> str:
    """One path of upright bars, one for each fraction."""
    return "".join(f"M{10 * i + 1} {STRIP}v-{STRIP * f:.1f}h8V{STRIP}z" for i, f in enumerate(fractions) if f > 0)


def _pair(pair: Pair) -> dict[str, str]:
    value, interval, p = difference(pair)
    verdict = {True: "better", False: "worse", None: "no difference found"}[pair.is_better]
    return {
        "control": pair.control,
        "metric": pair.metric,
        "value": f"{value} {kind_of(pair.metric).gap.unit}",
        "interval": interval,
        "p": p,
        "n": f"{pair.n:,}",
        "verdict": verdict,
    }


def _cost(artifact: ArtifactRecord) -> dict[str, Any]:
    cost = artifact.cost
    assert cost is not None
    write = writer(1e9, "bytes")[0]
    stages = [
        {
            "stage": stage,
            "seconds": f"{cost.seconds.get(stage, 0.0):,.2f}",
            "peak": f"{write(cost.peaks[stage])} GB" if stage in cost.peaks else "–",
        }
        for stage in dict.fromkeys(("load", "compress", "recover", "finalize", "save", "reload", *sorted(cost.seconds)))
        if stage in cost.seconds
    ]
    counts = {
        "calibration tokens": cost.calibration_tokens,
        "optimiser steps": cost.optimiser_steps,
        "trained parameters": cost.trainable_parameters,
    }
    return {"seed": artifact.seed, "stages": stages, "counts": {name: f"{n:,}" for name, n in counts.items() if n}}


def _seed(artifact: ArtifactRecord) -> dict[str, Any]:
    """The provenance of one checkpoint, and the commands that make it again."""
    where = artifact.provenance
    config = artifact.ingredients.get("config")
    machine = {name: str(value) for name, value in sorted(where.machine.items()) if value is not None}
    return {
        "seed": artifact.seed,
        "key": artifact.key,
        "created": where.created,
        "commit": where.commit or "not known",
        "dirty": where.dirty,
        "packages": dict(sorted(where.packages.items())),
        "machine": machine,
        "command": _command(artifact),
        "config": {k: str(v) for k, v in sorted(config.items())} if isinstance(config, dict) else {},
        "status": status_text(artifact),
    }


def _command(artifact: ArtifactRecord) -> list[str]:
    """Shell lines: the commit, and the command that made the record with this row alone; the model's own commit."""
    commit, model = artifact.provenance.commit, artifact.provenance.model_revision
    return [
        *[f"git checkout {shlex.quote(commit or '')}"] * (commit is not None),
        *[f"# {artifact.model} is the repository's commit {model}"] * (model is not None),
        command(artifact),
    ]


def _failures(runs: Mapping[int, Run]) -> Iterator[dict[str, Any]]:
    """The cells that did not end well, in the order of seeds and tasks."""
    for seed, run in sorted(runs.items()):
        records: list[tuple[str, BaseRecord]] = [("compressing", run.artifact)] if run.artifact is not None else []
        records += [(task, measure) for task, measure in sorted(run.measures.items())]
        for what, record in records:
            if record.error is not None:
                yield {
                    "seed": seed,
                    "what": what,
                    "status": status_text(record),
                    "stage": record.error.stage,
                    "message": record.error.message,
                    "traceback": record.error.traceback,
                }
