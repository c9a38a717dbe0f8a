"""Each row beside the controls at the same size: the same items and windows, compared pair by pair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.report.frame import Identity
from bench.report.rank import Basis, Ranking
from bench.report.stats import Difference, pairwise

CONTROLS = ("random", "magnitude")
"""What a criterion must beat at the same size."""


@dataclass(frozen=True)
class Pair:
    """A row against a control of the same model, recovery and target, by one metric.

    `metric` is a perplexity, where the difference is that of the mean losses (nats per token, below 0 is better), or
    a mean, where it is that of the accuracies (above 0 is better). `n` counts windows or items.
    """

    row: Identity
    control: str
    metric: str
    n: int
    difference: Difference

    @property
    def is_better(self) -> bool | None:
        """Whether the row is significantly better (True) or worse (False); None where it cannot be told."""
        if self.difference.low <= 0 <= self.difference.high:
            return None
        return (self.difference.value < 0) == (".ppl" in self.metric)


def pairs(ranking: Ranking, bases: Mapping[str, Sequence[Basis]]) -> list[Pair]:
    """Every comparison with a control that the records allow, by the perplexities and means of each model."""
    found: list[Pair] = []
    rows = sorted(ranking.runs)
    for identity in rows:
        for control in CONTROLS if identity.method not in (*CONTROLS, "dense") else ():
            rivals = [
                other for other in rows
                if (other.model, other.method, other.recovery, other.target)
                == (identity.model, control, identity.recovery, identity.target)
            ]
            if identity.target != "none" and rivals:
                found += _compare(ranking, identity, rivals[0], bases[identity.model])
    return found


def _compare(ranking: Ranking, row: Identity, rival: Identity, bases: Sequence[Basis]) -> Iterator[Pair]:
    for basis in bases:
        if not all(ranking.has(one, basis) for one in (row, rival)) or ranking.key(row, basis) != ranking.key(
            rival, basis
        ):
            continue
        n = sum(ranking.evidence[part][row].values.shape[1] for part in basis.parts)
        if n > 1:
            tests = pairwise(ranking.estimates([row, rival], basis))
            yield Pair(row, rival.method, basis.metric, n, tests.difference(0, 1))
