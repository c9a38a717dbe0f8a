"""Each row against its controls: the same items and windows, compared pair by pair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from bench.record.kinds import form_of, kind_of
from bench.record.rows import RowName
from bench.report.rank import Basis, Ranker
from bench.report.stats import Difference, pairwise

CONTROLS = ("random", "magnitude")
"""What a criterion must beat at the same size; each but the first must itself beat those before it."""
UNRECOVERED = "no recovery"


@dataclass(frozen=True)
class Pair:
    """A row against a control by one metric.

    A row with a target is compared with `random` and `magnitude` of the same model, recovery and target (`magnitude`
    with `random`). A row without one, which trains and removes nothing, is compared with the dense model, and with
    `lora` of as many trained parameters. A row with recovery is compared with the same row without (`control` is then
    `UNRECOVERED`, else the control's method).

    The dense model is no control of how far a row moved from it: its own value is 0, or all, by definition.

    The difference is that of the means of the evidence (see `bench.record.kinds`): for a perplexity of the losses in
    nats per token, for a mean of the accuracies or flips. The metric's direction says whether below or above 0 is
    better. `n` counts windows or items.
    """

    row: RowName
    control: str
    metric: str
    n: int
    difference: Difference

    @property
    def is_better(self) -> bool | None:
        """Whether the row is significantly better (True) or worse (False); None where neither is."""
        if self.difference.low <= 0 <= self.difference.high:
            return None
        return (self.difference.value < 0) == (form_of(self.metric).direction == "lower")


def pairs(ranking: Ranker, bases: Mapping[str, Sequence[Basis]]) -> list[Pair]:
    """Every comparison with a control that the records allow, by the bases of each model."""
    rows = sorted(ranking.runs)
    return [
        pair
        for row in rows
        if row.method != "dense"
        for name, rival in _controls(row, rows, ranking).items()
        for pair in _compare(ranking, row, name, rival, bases[row.model])
    ]


def _controls(row: RowName, rows: Sequence[RowName], ranking: Ranker) -> dict[str, RowName]:
    """The rows that a row is compared with, by the name of the control in `Pair`."""
    others = [other for other in rows if other.model == row.model and other != row]
    found: dict[str, list[RowName]] = {}
    if row.target == "none":
        group = ranking.groups[row][0]
        alike = [other for other in others if other.method == "lora" and ranking.groups[other][0] == group]
        found["dense"] = [other for other in others if other.method == "dense"]
        found["lora"] = sorted(alike, key=lambda other: (other.preset != row.preset, other)) * (row.method != "lora")
    else:
        same = [other for other in others if (other.recovery, other.target) == (row.recovery, row.target)]
        controls = takewhile(lambda control: control != row.method, CONTROLS)
        found |= {control: [other for other in same if other.method == control] for control in controls}
    found[UNRECOVERED] = [other for other in others if other == row._replace(recovery="none")]
    return {name: rivals[0] for name, rivals in found.items() if rivals}


def _compare(ranking: Ranker, row: RowName, name: str, rival: RowName, bases: Sequence[Basis]) -> Iterator[Pair]:
    for basis in bases:
        if name == "dense" and kind_of(basis.metric).side == "stays itself":
            continue
        if not all(ranking.has(one, basis) for one in (row, rival)) or ranking.key(row, basis) != ranking.key(
            rival, basis
        ):
            continue
        n = sum(ranking.evidence[part][row].values.shape[1] for part in basis.parts)
        if n > 1:
            tests = pairwise(ranking.estimates([row, rival], basis))
            yield Pair(row, name, basis.metric, n, tests.difference(0, 1))
