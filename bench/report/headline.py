"""The headline of a model's board: the metric that is the first to rank its rows, and the others that count."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.record.kinds import name_of, split
from bench.report.board import Column, Headline, Row
from bench.report.gates import Signal
from bench.report.rank import Basis
from bench.task_group import TaskGroup

SIGNAL_MEAN = "signal_mean"


@dataclass(frozen=True)
class Mean:
    """A mean over tasks: of all members of a group, or (`is_whole` False) of those that the dense model can do."""

    id: str
    parts: tuple[str, ...]
    is_whole: bool


def means_of(metrics: Iterable[str], groups: Sequence[TaskGroup], signals: Mapping[str, Signal]) -> Iterator[Mean]:
    """The means that rows with these metric ids may have.

    The mean over the tasks with signal names them in its id: another selection is another metric.
    """
    ids = tuple(metrics)
    for group in groups:
        for suffix in sorted({suffix for id_ in ids if (suffix := group.suffix(id_))}):
            parts = group.parts(suffix)
            yield Mean(group.mean(suffix), parts, True)
            able = tuple(part for part in parts if part in signals and signals[part].has_signal)
            if group.metric_kind.is_share and 1 < len(able) < len(parts):
                names = "+".join(sorted(split(part)[0] for part in able))
                yield Mean(f"{group.name}.{SIGNAL_MEAN}@{suffix}/{names}", able, False)


def headline_of(
    rows: Sequence[Row], columns: Mapping[str, Column], groups: Sequence[TaskGroup], signals: Mapping[str, Signal]
) -> Headline:
    """The headline of the rows of one model.

    A group's mean where it is complete and the dense model has signal on every task; else the perplexity (or another
    kind that `leads`) that most rows have, and next to it the tasks with signal and their mean. A metric that only one
    of several rows has is left out, as it compares nothing.
    """
    counted = _counts(rows)
    means = [column for column in columns.values() if column.kind.over and counted[column.id]]
    whole = [column for column in means if not without_signal(column.id, groups, signals)]
    leading = [column for column in columns.values() if column.kind.leads and counted[column.id]]
    group_means = [column for column in whole if split(column.id)[1] != SIGNAL_MEAN]
    for choice, reason in (
        (group_means, "complete, with signal on every task"),
        (leading, "no mean is complete with signal on every task"),
        (whole, "the tasks on which the dense model has signal"),
        (means, "the only measure of quality here"),
    ):
        if choice:
            metric = min(choice, key=lambda column: (-counted[column.id], *preference(column))).id
            counts = {id_: signal for id_, signal in sorted(signals.items()) if is_headline(id_, groups)}
            able = [id_ for id_, signal in counts.items() if signal.has_signal and counted[id_]]
            compared = {c.id for c in [*leading, *whole] if counted[c.id] >= min(2, len(rows))}
            others = sorted(compared - {metric})
            unable = tuple(signal for signal in counts.values() if signal.has_signal is False)
            return Headline(metric, (*others, *able), unable, reason)
    return Headline(None, (), (), "no quality was measured")


def without_signal(mean: str, groups: Sequence[TaskGroup], signals: Mapping[str, Signal]) -> list[str]:
    """The tasks of a mean on which signal is missing or not known."""
    whose, name, suffix = split(mean)
    if name == SIGNAL_MEAN:
        return []
    group = next(group for group in groups if group.name == whose)
    shares = group.parts(suffix) if group.metric_kind.is_share else ()
    return [id_ for id_ in shares if id_ not in signals or not signals[id_].has_signal]


def is_headline(metric: str, groups: Sequence[TaskGroup]) -> bool:
    """Whether an accuracy counts for its task: the one that a group chose, or any of a task in no group."""
    members = {member for group in groups for member in group.by_name}
    return name_of(metric) in members or split(metric)[0] not in {split(member)[0] for member in members}


def bases_of(
    columns: Sequence[Column], groups: Sequence[TaskGroup], signals: Mapping[str, Signal]
) -> Iterator[tuple[Basis, str]]:
    """The bases that could rank the rows of a model, each with the reason why it may not ('' where it may)."""
    means = {mean.id: mean for mean in means_of([column.id for column in columns], groups, signals)}
    for column in columns:
        basis = Basis(column.id, (column.id,), column.direction == "higher")
        if column.kind.leads:
            yield basis, ""
        elif column.id in means:
            lacking = without_signal(column.id, groups, signals)
            why = f"signal missing or not known on {', '.join(lacking)}" if lacking else ""
            yield Basis(column.id, means[column.id].parts, column.direction == "higher"), why
        elif column.kind.is_share and is_headline(column.id, groups):
            signal = signals.get(column.id)
            why = "signal not known: the dense model was not measured" if signal is None else signal.reason
            yield basis, "" if signal is not None and signal.has_signal else why


def preference(column: Column) -> tuple[bool, float, int, str]:
    """Sort key among equals: the kind's first metric, then the most windows (no limit is most), then the longest."""
    window = re.match(r"\d+", column.protocol)
    limit = re.search(r"/limit(\d+)", column.protocol)
    return (
        column.name not in column.kind.first,
        -float(limit[1]) if limit else -math.inf,
        -int(window[0] if window else 0),
        column.id,
    )


def _counts(rows: Sequence[Row]) -> Counter[str]:
    """For each column, the number of rows with a checkpoint that have a value in it."""
    ok = [row for row in rows if row.has_checkpoint]
    return Counter(id_ for row in ok for id_, cell in row.cells.items() if cell.value is not None)
