"""The leaderboard: one row per model × method × preset × recovery × target, one column per metric id."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import pandas as pd

from bench.record.kind import Kind, Side
from bench.record.kinds import kind_of, name_of, split
from bench.record.rows import RowName, labels
from bench.report.cell import Cell
from bench.report.gates import DenseGate, Signal
from bench.report.paired import Pair
from bench.report.published import Published
from bench.report.rank import Standing
from bench.report.sides import Agreement
from bench.task_group import TaskGroup

WORSE = "worse than random (point estimate)"
State = Literal["reproduced", "off", "not comparable", "not run"]


@dataclass(frozen=True)
class Column:
    """A column of numbers: a metric id with its unit and direction."""

    id: str
    unit: str
    direction: str

    @cached_property
    def kind(self) -> Kind:
        return kind_of(self.id)

    @property
    def name(self) -> str:
        return name_of(self.id)

    @property
    def task(self) -> str:
        return split(self.id)[0]

    @property
    def protocol(self) -> str:
        return split(self.id)[2]


@dataclass(frozen=True)
class Row:
    """`status` is 'ok', 'incomplete' (some cell did not end well) or the code with which compressing failed.

    `missing` lists, for the mean of a task group, the members that it lacks.
    """

    identity: RowName
    seeds: int
    status: str
    cells: Mapping[str, Cell]
    missing: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...] = ()

    @property
    def has_checkpoint(self) -> bool:
        return self.status in ("ok", "incomplete")

    def value(self, column: str | None) -> float | None:
        cell = self.cells.get(column or "")
        return cell.value if cell else None


@dataclass(frozen=True)
class Headline:
    """The metrics that count on the board of a model.

    `metric` orders its rows and is the first to rank them (None where no quality was measured); `reason` says why.
    `others` are the other metric ids that count; `left_out` the tasks on which the dense model has no signal. `sides`
    names the one metric that stands for each side of quality that was measured; `able` are the sides on which it has
    signal, or needs none.
    """

    metric: str | None
    others: tuple[str, ...]
    left_out: tuple[Signal, ...]
    reason: str
    sides: Mapping[Side, str] = field(default_factory=dict)
    able: frozenset[Side] = frozenset()


@dataclass(frozen=True)
class Comparison:
    """A published number and ours, in the unit of our metric id.

    `row` is our nearest row, None where there is none. `delta` is ours minus theirs, `low` and `high` our 95 % interval
    (None for counts); all None unless the protocols match. Reproduced: theirs lies in our interval, or equals ours in
    the digits that were printed. `why` names what differs ('window 128 ≠ 2048') or what is not run.
    """

    published: Published
    state: State
    row: RowName | None = None
    ours: float | None = None
    low: float | None = None
    high: float | None = None
    delta: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Tick:
    """One line of a report card: `ok` None where the records do not say."""

    title: str
    ok: bool | None
    detail: str


@dataclass(frozen=True)
class ReportCard:
    """The ticks of one method, always the same in the same order."""

    method: str
    ticks: tuple[Tick, ...]


@dataclass(frozen=True)
class Board:
    """The leaderboard.

    By model: `headlines` (the metrics that count), `gates` (whether its dense run gives the known scores), `signals`
    (for each accuracy whether the dense model is above chance). `standings` holds for each row, by metric id, its rank
    or why it has none; `agreements` say whether two sides of quality order a group alike. `pairs` compares rows with
    their controls, item by item and window by window; `published` compares published numbers with ours; `cards` are
    the report cards by method. `smoke` are the columns marked as smoke tests.
    """

    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    smoke: frozenset[str]
    groups: tuple[TaskGroup, ...]
    notes: tuple[str, ...]
    long: pd.DataFrame = field(repr=False)
    pairs: tuple[Pair, ...] = ()
    headlines: Mapping[str, Headline] = field(default_factory=dict)
    gates: Mapping[str, DenseGate] = field(default_factory=dict)
    signals: Mapping[str, Mapping[str, Signal]] = field(default_factory=dict)
    agreements: tuple[Agreement, ...] = ()
    standings: Mapping[RowName, Mapping[str, Standing]] = field(default_factory=dict)
    published: tuple[Comparison, ...] = ()
    cards: Mapping[str, ReportCard] = field(default_factory=dict)

    @property
    def quality(self) -> dict[str, str | None]:
        """The column that orders the rows of each model."""
        return {model: headline.metric for model, headline in self.headlines.items()}

    def standing(self, row: RowName) -> Standing | None:
        """The standing of a row by its model's headline metric."""
        return self.standings.get(row, {}).get(self.headlines[row.model].metric or "")

    def on_side(self, row: RowName, side: Side) -> Standing | None:
        """The standing of a row on a side of quality."""
        return self.standings.get(row, {}).get(self.headlines[row.model].sides.get(side, ""))

    def sides(self, model: str) -> dict[Side, Column]:
        """The column that stands for each side that was measured."""
        columns = {column.id: column for column in self.columns}
        return {side: columns[metric] for side, metric in self.headlines[model].sides.items()}

    def telling(self, model: str) -> dict[Side, Column]:
        """Those of the sides that can rank: neither a smoke test, nor with signal missing or not known."""
        able = self.headlines[model].able
        return {side: c for side, c in self.sides(model).items() if side in able and c.id not in self.smoke}

    def no_signal(self, model: str) -> frozenset[str]:
        """The accuracies on which the dense model has no signal, and the groups' means that contain one."""
        tasks = {id_ for id_, signal in self.signals[model].items() if signal.has_signal is False}
        means = {group.mean(suffix) for id_ in tasks for group in self.groups if (suffix := group.suffix(id_))}
        return frozenset(tasks | means)

    def models(self) -> list[str]:
        return sorted(self.headlines)

    def of(self, model: str) -> list[Row]:
        return [row for row in self.rows if row.identity.model == model]

    def columns_of(self, model: str) -> list[Column]:
        """The columns in which some row of `model` has a cell."""
        used = {id_ for row in self.of(model) for id_ in (*row.cells, *row.missing)}
        return [c for c in self.columns if c.id in used]

    def remarks(self, model: str) -> dict[str, list[str]]:
        """Remarks on single rows, each once with its rows: troubles, marks, and the tasks that a mean lacks."""
        labels = self.labels(model)
        about: dict[str, list[str]] = defaultdict(list)
        for row in self.of(model):
            lacking = [c.id for c in self.columns_of(model) if row.has_checkpoint and c.id in row.missing]
            missing = [f"no {id_}: it lacks {', '.join(row.missing[id_])}" for id_ in lacking]
            for note in [*row.notes, *missing]:
                about[note].append(labels[row.identity])
        return dict(about)

    def labels(self, model: str) -> dict[RowName, str]:
        """A short name for each row."""
        return labels(row.identity for row in self.of(model))
