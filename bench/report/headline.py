"""The headline of a model's board: the metric that is the first to rank its rows, and the others that count."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.protocol import flags_of
from bench.record.kind import SIDES, Side
from bench.record.kinds import KINDS, PERPLEXITY, kind_of, name_of, split
from bench.report.board import Column, Headline, Row
from bench.report.gates import SHUFFLED, Signal
from bench.report.rank import Basis
from bench.task_group import TaskGroup

OF_SIGNAL = "signal_"
"""Begins the name of a mean over the tasks with signal."""


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
            names = "+".join(sorted(split(part)[0] for part in able))
            mean = f"{group.name}.{OF_SIGNAL}{group.metric_kind.mean}@{suffix}/{names}"
            if kind_of(mean).over and 1 < len(able) < len(parts):
                yield Mean(mean, able, False)


@dataclass(frozen=True)
class Choice:
    """The metric that stands for a side; `is_able`: the dense model has signal there, or none is needed."""

    metric: str
    reason: str
    is_able: bool


COMPLETE = "complete, with signal on every task"
ABLE = "the tasks on which the dense model has signal"
LEADS = "no mean is complete with signal on every task"
ONLY = "the only measure of quality here"
ORDER: tuple[Side, ...] = ("models text", "knows", "can say", "stays itself")
"""Which side orders the rows, where no mean of what the model knows is complete."""


def headline_of(
    rows: Sequence[Row], columns: Mapping[str, Column], groups: Sequence[TaskGroup], signals: Mapping[str, Signal]
) -> Headline:
    """The headline of the rows of one model, and that of each side of quality.

    Of the sides, what the model knows orders the rows where a mean is complete with signal on every task; else how it
    models text; else the tasks with signal of what it knows; else what it can say; else how far it stays itself. Of
    the others that count, a perplexity, mean or the like that only one of several rows has is left out, as it compares
    nothing there.
    """
    counted = _counts(rows)
    here = [column for column in columns.values() if counted[column.id] and not is_baseline(column)]
    sides = {side: found for side in SIDES if (found := _choice(side, here, counted, groups, signals))}
    metrics = {side: choice.metric for side, choice in sides.items()}
    ordering = [(_place(side, choice), choice) for side, choice in sides.items() if not kind_of(choice.metric).is_share]
    if not ordering:
        return Headline(None, (), (), "no quality was measured", metrics)
    _, chosen = min(ordering)
    counts = {id_: signal for id_, signal in sorted(signals.items()) if is_headline(id_, groups)}
    compared = [c for c in here if (c.kind.leads or c.kind.over) and not without_signal(c.id, groups, signals)]
    others = sorted({c.id for c in compared if counted[c.id] >= min(2, len(rows))} - {chosen.metric})
    others += [id_ for id_, signal in counts.items() if signal.has_signal and counted[id_] and id_ not in others]
    return Headline(
        chosen.metric,
        tuple(others),
        tuple(s for id_, s in counts.items() if s.has_signal is False and not kind_of(id_).is_derived),
        chosen.reason,
        metrics,
        frozenset(side for side, choice in sides.items() if choice.is_able),
    )


def _choice(
    side: Side,
    here: Sequence[Column],
    counted: Mapping[str, int],
    groups: Sequence[TaskGroup],
    signals: Mapping[str, Signal],
) -> Choice | None:
    """The headline of a side among the columns that have values; None where nothing of it was measured.

    What has no mean over tasks comes first (a perplexity, the divergence); then means, then single tasks.
    """
    mine = [c for c in here if c.kind.is_quality and c.kind.side == side]
    able = [c for c in mine if not without_signal(c.id, groups, signals)]
    leading = [c for c in able if c.kind.leads]
    means, able_means = ([c for c in columns if c.kind.over] for columns in (mine, able))
    shares = [c for c in mine if c.kind.is_share and is_headline(c.id, groups)]
    for choice, reason, is_able in (
        ([c for c in leading if not c.kind.is_part], LEADS, True),
        ([c for c in able_means if not split(c.id)[1].startswith(OF_SIGNAL)], COMPLETE, True),
        (able_means, ABLE, True),
        (leading, LEADS, True),
        ([c for c in shares if c in able], ABLE, True),
        (means, ONLY, False),
        ([c for c in mine if c.kind.leads] or shares, ONLY, False),
    ):
        if choice:
            return Choice(min(choice, key=lambda c: (-counted[c.id], *preference(c))).id, reason, is_able)
    return None


def _place(side: Side, choice: Choice) -> tuple[bool, int]:
    """Sort key of the sides: which of them orders the rows."""
    is_whole = side == "knows" and choice.reason == COMPLETE
    return not choice.is_able, 0 if is_whole else 1 + ORDER.index(side)


def without_signal(metric: str, groups: Sequence[TaskGroup], signals: Mapping[str, Signal]) -> list[str]:
    """The tasks of a metric on which signal is missing or not known; none where its kind needs none."""
    _, name, suffix = split(metric)
    kind = kind_of(metric).over or kind_of(metric)
    if name.startswith(OF_SIGNAL) or not kind.needs_signal:
        return []
    group = next((group for group in groups if group.mean(suffix) == metric), None)
    parts = group.parts(suffix) if group is not None else (metric,)
    return [id_ for id_ in parts if id_ not in signals or not signals[id_].has_signal]


def is_baseline(column: Column) -> bool:
    """Whether it is only there to be compared with, and not to count."""
    return SHUFFLED in flags_of(column.protocol)


def is_headline(metric: str, groups: Sequence[TaskGroup]) -> bool:
    """Whether a share counts for its task: the one that a group chose, or any of a kind and task in no group."""
    members = {member for group in groups for member in group.by_name}
    alike = {split(member)[0] for member in members if kind_of(member) is kind_of(metric)}
    return name_of(metric) in members or split(metric)[0] not in alike


def bases_of(
    columns: Sequence[Column], groups: Sequence[TaskGroup], signals: Mapping[str, Signal]
) -> Iterator[tuple[Basis, str]]:
    """The bases that could rank the rows of a model, each with the reason why it may not ('' where it may)."""
    means = {mean.id: mean for mean in means_of([column.id for column in columns], groups, signals)}
    for column in columns:
        if is_baseline(column):
            continue
        basis = Basis(column.id, (column.id,), column.direction == "higher")
        if column.id in means:
            lacking = without_signal(column.id, groups, signals)
            why = f"signal missing or not known on {', '.join(lacking)}" if lacking else ""
            yield Basis(column.id, means[column.id].parts, column.direction == "higher"), why
        elif column.kind.leads or (column.kind.is_quality and column.kind.is_share and is_headline(column.id, groups)):
            yield basis, _why_no_signal(column, signals)


def _why_no_signal(column: Column, signals: Mapping[str, Signal]) -> str:
    """Why the dense model shows no signal by the metric of one task; '' where it does, or its kind needs none."""
    signal = signals.get(column.id)
    if not column.kind.needs_signal or (signal is not None and signal.has_signal):
        return ""
    return "signal not known: the dense model was not measured" if signal is None else signal.reason


def preference(column: Column) -> tuple[int, bool, float, int, str]:
    """Sort key among equals: the kind that comes first, its first metric or text, the most windows (no limit is most),
    then the longest."""
    window = re.search(r"(?:^|/)(\d+)", column.protocol)
    limit = re.search(r"/limit(\d+)", column.protocol)
    return (
        KINDS.index(column.kind),
        not _is_first(column),
        -float(limit[1]) if limit else -math.inf,
        -int(window[1] if window else 0),
        column.id,
    )


def _is_first(column: Column) -> bool:
    """Whether it is the first metric of its kind, or compares on the text of the first perplexity."""
    text = column.protocol.partition("/")[0]
    return column.name in column.kind.first or f"{text}.ppl_token" in PERPLEXITY.first


def _counts(rows: Sequence[Row]) -> Counter[str]:
    """For each column, the number of rows with a checkpoint that have a value in it."""
    ok = [row for row in rows if row.has_checkpoint]
    return Counter(id_ for row in ok for id_, cell in row.cells.items() if cell.value is not None)
