"""What a leaderboard is: one row per model × method × preset × recovery × target, one column per metric id."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from bench.report.frame import Identity
from bench.report.paired import Pair
from bench.task import TaskGroup

SMOKE = 100
"""Accuracy over fewer items a task than this is a smoke test."""

WORSE = "worse than random (point estimate)"

FAMILIES = ("removed", "params", "bytes", "macs", "perplexity", "mean", "accuracy", "generate", "other", "cost")


@dataclass(frozen=True)
class Column:
    """A column of numbers: a metric id with its unit and direction. `family` is one of `FAMILIES`."""

    id: str
    unit: str
    direction: str
    family: str

    @property
    def name(self) -> str:
        return self.id.split("@")[0]

    @property
    def protocol(self) -> str:
        return self.id.partition("@")[2]


@dataclass(frozen=True)
class Cell:
    """A number of a row, over several seeds the mean.

    `stderr` and `interval` are then the means of the seeds' own (every seed answers the same items, so more seeds do
    not make the sampling error smaller), `std` is the standard deviation between seeds. `lost` tells the seeds that
    have no value and why; where none has one, `value` is None.
    """

    value: float | None
    n: int = 0
    stderr: float | None = None
    interval: tuple[float, float] | None = None
    std: float | None = None
    seeds: int = 0
    lost: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """`status` is 'ok', 'incomplete' (some cell did not end well) or the code that the checkpoint's making ended in.

    `missing` names, for the mean of a task group, the members that it lacks.
    """

    identity: Identity
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
class Board:
    """The leaderboard. `quality` is the column that orders the rows of each model; `smoke` the columns so marked.

    `pairs` compares rows with the controls at the same size, item by item and window by window.
    """

    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    quality: Mapping[str, str | None]
    smoke: frozenset[str]
    groups: tuple[TaskGroup, ...]
    notes: tuple[str, ...]
    long: pd.DataFrame = field(repr=False)
    pairs: tuple[Pair, ...] = ()

    def models(self) -> list[str]:
        return sorted(self.quality)

    def of(self, model: str) -> list[Row]:
        return [row for row in self.rows if row.identity.model == model]

    def columns_of(self, model: str, *families: str) -> list[Column]:
        """The columns that any row of `model` has something in, of these families (of all, where none is given)."""
        used = {id_ for row in self.of(model) for id_ in (*row.cells, *row.missing)}
        return [c for c in self.columns if c.id in used and (not families or c.family in families)]

    def remarks(self, model: str) -> dict[str, list[str]]:
        """What is to be said of single rows, each remark once: troubles, marks, and which tasks a mean lacks."""
        labels = self.labels(model)
        about: dict[str, list[str]] = defaultdict(list)
        for row in self.of(model):
            lacking = [c.id for c in self.columns_of(model, "mean") if row.has_checkpoint and c.id in row.missing]
            missing = [f"no {id_}, for want of {', '.join(row.missing[id_])}" for id_ in lacking]
            for note in [*row.notes, *missing]:
                about[note].append(labels[row.identity])
        return dict(about)

    def labels(self, model: str) -> dict[Identity, str]:
        """A short name for each row: its method, its recovery, and as much else as tells the method's rows apart."""
        labels = {}
        for key in (row.identity for row in self.of(model)):
            twins = [row.identity for row in self.of(model) if row.identity.method == key.method]
            parts = [key.method]
            parts += [key.preset] * (len({twin.preset for twin in twins}) > 1)
            parts += [f"+ {key.recovery}"] * (key.recovery != "none")
            parts += [key.target] * (len({twin.target for twin in twins}) > 1)
            labels[key] = " ".join(parts)
        return labels
