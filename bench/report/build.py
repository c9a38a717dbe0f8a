"""Build the board from the records that count.

Two metric ids never share a column, a mean exists only where all its members do, and failed or skipped cells show why.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from math import sqrt
from statistics import fmean

from bench.errors import ProtocolMismatch
from bench.record.kinds import form_of, kind_of, split
from bench.record.rows import RowName
from bench.record.schema import BaseRecord, MeasureRecord, Metric
from bench.record.text import AnyRecord
from bench.report.board import WORSE, Board, Column, Row
from bench.report.cards import cards_of
from bench.report.cell import cell_of
from bench.report.derived import with_derived, with_means, with_signals
from bench.report.evidence import evidence_of
from bench.report.frame import Run, current, dense_of, long_frame, metrics_of, status_text, text_notes
from bench.report.gates import Signal, dense_gate, signals_of
from bench.report.headline import bases_of, headline_of, means_of
from bench.report.order import column_place, is_worse_than_random, row_place
from bench.report.paired import pairs
from bench.report.published import Published, known_dense
from bench.report.rank import Ranker, Standings
from bench.report.reproduction import compare
from bench.report.sides import agreements
from bench.task_group import TaskGroup


def build(
    records: Sequence[AnyRecord],
    groups: Sequence[TaskGroup],
    published: Sequence[Published] = (),
    deterministic: Collection[str] = (),
) -> Board:
    """The board of these records, in any order; seeds change nothing for the `deterministic` methods."""
    records = sorted(records, key=lambda record: record.key)
    found, notes = current(records)
    runs, groups = with_derived(found, groups), with_means(groups)
    models = sorted({identity.model for identity in runs})
    dense = {model: dense_of(runs, model) for model in models}
    signals = {model: with_signals(signals_of(dense[model])) for model in models}
    gates = {model: dense_gate(dense[model], known_dense(published, model)) for model in models}
    known = _metrics_of_tasks(run for seeds in runs.values() for run in seeds.values())
    order = {member: i for i, member in enumerate(name for group in groups for name in group.by_name)}
    columns: dict[str, Column] = {}
    rows = [_row(identity, runs[identity], groups, signals, known, columns) for identity in sorted(runs)]
    headlines = {
        model: headline_of([r for r in rows if r.identity.model == model], columns, groups, signals[model])
        for model in models
    }
    quality = {model: headline.metric for model, headline in headlines.items()}
    rows = [
        replace(row, notes=(*row.notes, WORSE))
        if is_worse_than_random(row, rows, columns.get(quality[row.identity.model] or ""))
        else row
        for row in rows
    ]
    board = Board(
        rows=tuple(sorted(rows, key=lambda row: row_place(row, quality, columns))),
        columns=tuple(sorted(columns.values(), key=lambda column: column_place(column, order))),
        smoke=_smoke(rows, columns, runs, groups),
        groups=tuple(groups),
        notes=tuple(notes + text_notes(records)),
        long=long_frame(records),
        headlines=headlines,
        gates=gates,
        signals=signals,
    )
    board = _compared(replace(board, published=tuple(compare(published, board.rows, gates))), runs)
    return replace(board, cards=cards_of(board, runs, deterministic))


def _compared(board: Board, runs: Mapping[RowName, Mapping[int, Run]]) -> Board:
    """Add every row's standing by each metric that may rank it, and its comparisons with the controls."""
    bases = {
        model: list(bases_of(board.columns_of(model), board.groups, board.signals[model])) for model in board.models()
    }
    parts = sorted({part for listed in bases.values() for basis, _ in listed for part in basis.parts})
    ranking = Ranker(runs, evidence_of(runs, parts), board.gates)
    standings: Standings = {identity: {} for identity in runs}
    for model, listed in bases.items():
        for basis, why in listed:
            for identity, standing in ranking.of(model, basis, why).items():
                standings[identity][basis.metric] = standing
    leading = {model: set(headline.sides.values()) for model, headline in board.headlines.items()}
    shown = {
        model: [basis for basis, _ in listed if basis.metric in leading[model] or not kind_of(basis.metric).is_part]
        for model, listed in bases.items()
    }
    agreed = [
        agreement
        for model, listed in bases.items()
        for able in [{basis.metric: basis for basis, why in listed if not why}]
        for sides in [board.headlines[model].sides]
        for agreement in agreements(ranking, model, {s: able[m] for s, m in sides.items() if m in able})
    ]
    return replace(board, standings=standings, pairs=tuple(pairs(ranking, shown)), agreements=tuple(agreed))


def _metrics_of_tasks(runs: Iterable[Run]) -> dict[str, list[str]]:
    """Task id -> the metric ids that it measures, taken from the records that ended well."""
    known: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        for task, measure in run.measures.items():
            known[task] |= {metric.id for metric in measure.metrics}
    return {task: sorted(ids) for task, ids in known.items()}


def _row(
    identity: RowName,
    seeds: Mapping[int, Run],
    groups: Sequence[TaskGroup],
    signals: Mapping[str, Mapping[str, Signal]],
    known: Mapping[str, list[str]],
    columns: dict[str, Column],
) -> Row:
    """The row of one identity; adds the columns that it needs to `columns`."""
    found: dict[str, list[Metric]] = defaultdict(list)
    lost: dict[str, list[str]] = defaultdict(list)
    missing: dict[str, tuple[str, ...]] = {}
    for seed in sorted(seeds):
        values, failures = _values(seeds[seed], known)
        means, absent = _group_means(values, groups, signals[identity.model])
        missing |= absent
        for metric in [*values.values(), *means]:
            found[metric.id].append(metric)
            _add_column(columns, metric)
        for id_, text in failures.items():
            lost[id_].append(text)
            columns.setdefault(id_, Column(id_, "", "none"))
    for id_ in missing:
        columns.setdefault(id_, Column(id_, form_of(id_).unit, form_of(id_).direction))
    made = [run.artifact for _, run in sorted(seeds.items()) if run.artifact is not None]
    measured = [measure for _, run in sorted(seeds.items()) for _, measure in sorted(run.measures.items())]
    disturbed = _disturbed(measured)
    cells = {
        id_: replace(cell_of(found[id_], lost[id_]), is_disturbed=id_ in disturbed)
        for id_ in sorted(found.keys() | lost.keys())
    }
    is_whole = all(m.status == "ok" for m in measured) and not any(run.stale for run in seeds.values())
    bad = sorted({status_text(artifact) for artifact in made if artifact.status != "ok"})
    status = ", ".join(bad) or ("ok" if is_whole else "incomplete")
    trouble = [f"compressing, {_trouble(artifact)}" for artifact in made if artifact.error]
    trouble += [f"{m.task}, {_trouble(m)}" for m in measured if m.error and m.status != "skipped"]
    return Row(identity, len(seeds), status, cells, missing, tuple(dict.fromkeys(trouble)))


def _disturbed(measured: Iterable[MeasureRecord]) -> set[str]:
    """The metric ids whose values other work on the machine may have changed: all but bytes of disturbed records."""
    return {m.id for record in measured if record.evidence.disturbed for m in record.metrics if m.unit != "bytes"}


def _add_column(columns: dict[str, Column], metric: Metric) -> None:
    """Add the column of a metric.

    Raises:
        ProtocolMismatch: the column holds numbers of another unit or direction under the same id.
    """
    column = Column(metric.id, metric.unit, metric.direction)
    other = columns.get(metric.id, column)
    if other.unit and (other.unit, other.direction) != (column.unit, column.direction):
        raise ProtocolMismatch(
            f"{metric.id}: some records give it in {other.unit} ({other.direction}), others in {column.unit} "
            f"({column.direction}): the two cannot share a column"
        )
    columns[metric.id] = column


def _trouble(record: BaseRecord) -> str:
    return f"seed {record.seed}: {status_text(record)}: {record.error.message if record.error else ''}"


def _values(run: Run, known: Mapping[str, list[str]]) -> tuple[dict[str, Metric], dict[str, str]]:
    """The numbers of one run by metric id, and the status of the rest (by task id where its metrics are not known)."""
    values: dict[str, Metric] = {}
    failures: dict[str, str] = {}
    records = sorted(run.measures.values(), key=lambda m: (m.provenance.created, m.key))
    if run.artifact is not None:
        values |= {metric.id: metric for metric in metrics_of(run.artifact)}
    for record in records:
        if record.status == "ok":
            values |= {metric.id: metric for metric in metrics_of(record)}
        else:
            failures |= dict.fromkeys(known.get(record.task) or [record.task], status_text(record))
    for task, engine in run.stale.items():
        failures |= dict.fromkeys(known.get(task) or [task], f"stale:{engine}")
    return values, {id_: text for id_, text in failures.items() if id_ not in values}


def _group_means(
    values: Mapping[str, Metric], groups: Sequence[TaskGroup], signals: Mapping[str, Signal]
) -> tuple[list[Metric], dict[str, tuple[str, ...]]]:
    """The means under each protocol that any member has, and the members missing where the group has no mean.

    `n` of a mean is the item count of its smallest task.
    """
    found, missing = [], {}
    for group in groups:
        for mean in means_of(values, [group], signals):
            absent = tuple(part for part in mean.parts if part not in values)
            if absent and mean.is_whole and not group.metric_kind.is_derived:  # it lacks what the task lacks
                missing[mean.id] = absent
            elif not absent:
                found.append(mean_of_metrics(mean.id, [values[part] for part in mean.parts], group.is_mixed))
    return found, missing


def mean_of_metrics(id_: str, members: Sequence[Metric], is_mixed: bool = False) -> Metric:
    """The unweighted mean of several tasks under one protocol, or (`is_mixed`) each under its own.

    Raises:
        ProtocolMismatch: they were measured under several protocols.
    """
    protocols = sorted({split(metric.id)[2] for metric in members})
    if len(protocols) > 1 and not is_mixed:
        raise ProtocolMismatch(f"{id_}: a mean over protocols {' and '.join(protocols)} would mix what is not alike")
    errors = [metric.stderr for metric in members if metric.stderr is not None]
    return Metric(
        id=id_,
        value=fmean(metric.value for metric in members),
        unit=form_of(id_).unit,
        direction=form_of(id_).direction,
        n=min(metric.n for metric in members),
        stderr=sqrt(sum(e * e for e in errors)) / len(members) if len(errors) == len(members) else None,
    )


def _smoke(
    rows: Sequence[Row],
    columns: Collection[str],
    runs: Mapping[RowName, Mapping[int, Run]],
    groups: Sequence[TaskGroup],
) -> frozenset[str]:
    """The columns of kinds that need more than two items a task, and have fewer than they need."""
    few = {
        id_
        for row in rows
        for id_, cell in row.cells.items()
        for kind in [kind_of(id_).over or kind_of(id_)]
        if id_ in columns and kind.is_share and 0 < cell.n < kind.least
    }
    sums = {
        metric.id
        for seeds in runs.values()
        for run in seeds.values()
        for record in run.measures.values()
        for metric in record.metrics
        for kept in [record.evidence.sums.get(split(metric.id)[1])]
        if kept is not None and 2 < kind_of(metric.id).least > len(kept.nll)
    }
    means = {group.mean(suffix) for id_ in sums for group in groups if (suffix := group.suffix(id_))}
    return frozenset(few | sums | (means & set(columns)))
