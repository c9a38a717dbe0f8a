"""The rank of a row among those it may be compared with: an interval, from paired tests corrected by Holm."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.method import TARGET_TOLERANCE
from bench.record.kinds import form_of, kind_of
from bench.record.rows import RowName
from bench.record.schema import ArtifactRecord
from bench.report.evidence import ItemScores, common, draw
from bench.report.frame import Run
from bench.report.gates import DenseGate
from bench.report.stats import ALPHA, Array, Drawn, Interval, estimate, holm, mcnemar_all, pairwise

REFERENCE = "reference"


@dataclass(frozen=True)
class Standing:
    """A row by one metric, among the rows of its `group`: same model, and same size or trained parameters.

    `low` and `high` bound its rank: 1 plus the rows that are significantly better, and all but those that are
    significantly worse. `ties` are the rows without a significant difference to it. Where it is not ranked, `low` is
    None and `reason` says why. `of` counts the ranked rows of the group, `seeds` how many of its seeds were tested.
    """

    metric: str
    group: str
    low: int | None = None
    high: int | None = None
    of: int = 0
    ties: tuple[RowName, ...] = ()
    seeds: int = 0
    reason: str = ""

    @property
    def is_ranked(self) -> bool:
        return self.low is not None

    @property
    def text(self) -> str:
        """'3', '2–4', or '–' where it is not ranked."""
        if self.low is None:
            return "–"
        return f"{self.low}" if self.low == self.high else f"{self.low}–{self.high}"


@dataclass(frozen=True)
class Basis:
    """The parts of a metric: the metric ids that it is the mean of (else itself alone), and its direction."""

    metric: str
    parts: tuple[str, ...]
    higher: bool


Standings = dict[RowName, dict[str, Standing]]


def groups_of(runs: Mapping[RowName, Mapping[int, Run]]) -> dict[RowName, tuple[str, str]]:
    """For each row its group, and why it belongs to none ('' where it does).

    Rows with the same target and the same recovery are in one group, if they reached the target. Rows without a target
    are grouped by what they achieved: the share removed (half a percentage point is no difference), else the number of
    trained parameters (one percent is no difference).
    """
    found: dict[RowName, tuple[str, str]] = {}
    removed: dict[tuple[str, str], dict[RowName, float]] = defaultdict(dict)
    trained: dict[str, dict[RowName, float]] = defaultdict(dict)
    for identity, seeds in runs.items():
        made = [run.artifact for run in seeds.values() if run.artifact is not None and run.artifact.status == "ok"]
        basis, _, size = identity.target.partition("=")
        achieved = {
            name: float(np.mean([a.achieved.get(name, np.nan) for a in made])) if made else float("nan")
            for name in ("params", basis)
        }
        if identity.method == "dense":
            found[identity] = ("", REFERENCE)
        elif not made:
            found[identity] = ("", "no checkpoint came of it")
        elif basis in ("params", "block_params", "macs"):
            missed = abs(achieved[basis] - float(size)) > TARGET_TOLERANCE + 1e-9
            why = f"{identity.target} was asked for and {achieved[basis]:.3f} removed" if missed else ""
            found[identity] = (f"{identity.target}, recovery {identity.recovery}", why)
        elif achieved["params"] > TARGET_TOLERANCE:
            removed[identity.model, identity.recovery][identity] = achieved["params"]
        elif numbers := _trained(made):
            trained[identity.model][identity] = numbers
        else:
            found[identity] = ("", "nothing was removed or trained")
    for (_, recovery), sizes in removed.items():
        for size_, rows in _alike(sizes, lambda low, high: high - low <= TARGET_TOLERANCE + 1e-9):
            found |= dict.fromkeys(rows, (f"{100 * size_:.1f} % of the parameters removed, recovery {recovery}", ""))
    for counts in trained.values():
        for count, rows in _alike(counts, lambda low, high: high <= 1.01 * low):
            found |= dict.fromkeys(rows, (f"{count:,.0f} parameters trained", ""))
    return found


def _trained(made: Sequence[ArtifactRecord]) -> float:
    return float(np.mean([artifact.cost.trainable_parameters if artifact.cost else 0 for artifact in made]))


def _alike(
    sizes: Mapping[RowName, float], same: Callable[[float, float], bool]
) -> Iterator[tuple[float, list[RowName]]]:
    """Rows of about the same size, from the smallest: (the least size, the rows)."""
    cluster: list[RowName] = []
    for identity in sorted(sizes, key=lambda row: (sizes[row], row)):
        if cluster and not same(sizes[cluster[0]], sizes[identity]):
            yield sizes[cluster[0]], cluster
            cluster = []
        cluster.append(identity)
    if cluster:
        yield sizes[cluster[0]], cluster


class Ranker:
    """The standings of all rows by any metric; each metric is resampled once."""

    def __init__(
        self,
        runs: Mapping[RowName, Mapping[int, Run]],
        evidence: Mapping[str, Mapping[RowName, ItemScores]],
        gates: Mapping[str, DenseGate],
    ) -> None:
        self.runs, self.evidence, self.gates = runs, evidence, gates
        self.groups = groups_of(runs)
        self.drawn: dict[str, dict[RowName, Drawn]] = {}

    def of(self, model: str, basis: Basis, why: str = "") -> dict[RowName, Standing]:
        """The standing of each row of a model by one metric; `why`, if given, is why this metric ranks no row."""
        found: dict[RowName, Standing] = {}
        able: dict[str, list[RowName]] = defaultdict(list)
        for identity in (row for row in sorted(self.runs) if row.model == model):
            group, _ = self.groups[identity]
            reason = self._why_not(identity, basis, why)
            if reason:
                found[identity] = Standing(basis.metric, group, reason=reason)
            else:
                able[group].append(identity)
        for group, rows in able.items():
            alike = self.alike(rows, basis)
            others = [row for row in rows if row not in alike]
            unranked = dict.fromkeys(others, "other data or another engine than the others")
            if len(alike) == 1:
                unranked[alike.pop()] = "nothing to compare it with"
            found |= {row: Standing(basis.metric, group, reason=reason) for row, reason in unranked.items()}
            found |= self._ranked(alike, basis, group) if alike else {}
        return found

    def alike(self, rows: Sequence[RowName], basis: Basis) -> list[RowName]:
        """Those of the rows that can be compared pair by pair with most others."""
        keys = [self.key(row, basis) for row in rows]
        usual = max(keys, key=keys.count, default=None)
        return [row for row, key in zip(rows, keys, strict=True) if key == usual]

    def has(self, row: RowName, basis: Basis) -> bool:
        """Whether some seed of a row has evidence for every part."""
        every = [self.evidence[part].get(row) for part in basis.parts]
        return None not in every and bool(common([scores for scores in every if scores is not None]))

    def key(self, row: RowName, basis: Basis) -> tuple[object, ...]:
        """What two rows must share to be compared pair by pair."""
        return tuple(self.evidence[part][row].key for part in basis.parts)

    def estimates(self, rows: Sequence[RowName], basis: Basis) -> list[Interval]:
        """The score of each row by `basis`, with its draws; only the seeds that have all its parts count."""
        for part in basis.parts:
            if part not in self.drawn:
                self.drawn[part] = draw(self.evidence[part], part)
        return [estimate([self._chosen(row, part, basis) for part in basis.parts], str(row)) for row in rows]

    def p_values(self, rows: Sequence[RowName], basis: Basis, estimates: Sequence[Interval]) -> tuple[Array, Array]:
        """Differences and p-values of all pairs: exact where two checkpoints are compared on one task's items."""
        tests = pairwise(estimates)
        first = [self.evidence[basis.parts[0]][row] for row in rows]
        if len(basis.parts) > 1 or not kind_of(basis.metric).is_share or form_of(basis.metric).over_parts:
            return tests.values, tests.p
        alone = np.array([row.seeds == 1 for row in estimates])
        exact = mcnemar_all(np.stack([scores.values[0] for scores in first]))
        return tests.values, np.where(alone[:, None] & alone, exact, tests.p)

    def _ranked(self, rows: Sequence[RowName], basis: Basis, group: str) -> dict[RowName, Standing]:
        estimates = self.estimates(rows, basis)
        values, p = self.p_values(rows, basis, estimates)
        upper = np.triu_indices(len(rows), 1)
        adjusted = np.ones_like(p)
        adjusted[upper] = holm(p[upper].tolist())
        differs = np.minimum(adjusted, adjusted.T) < ALPHA
        better = differs & ((values > 0) == basis.higher)
        beaten, beats = better.sum(axis=0), better.sum(axis=1)
        return {
            row: Standing(
                basis.metric,
                group,
                1 + int(beaten[i]),
                len(rows) - int(beats[i]),
                len(rows),
                tuple(other for j, other in enumerate(rows) if j != i and not differs[i, j]),
                estimates[i].seeds,
            )
            for i, row in enumerate(rows)
        }

    def _chosen(self, row: RowName, part: str, basis: Basis) -> Drawn:
        seeds = common([self.evidence[other][row] for other in basis.parts])
        have = self.evidence[part][row].seeds
        drawn, kept = self.drawn[part][row], [have.index(seed) for seed in seeds]
        return Drawn(drawn.values[kept], drawn.draws[kept], drawn.units)

    def _why_not(self, row: RowName, basis: Basis, why: str) -> str:
        """Why a row is not ranked by a metric, '' where it is."""
        gate = self.gates[row.model]
        if self.groups[row][1] or why:
            return self.groups[row][1] or why
        if gate.state != "passed":
            return f"dense gate {gate.state}: {gate.reason}"
        return self.lacks(row, basis)

    def lacks(self, row: RowName, basis: Basis) -> str:
        """What a row lacks of the evidence for a rank, '' where it has all."""
        lacking = [part for part in basis.parts if row not in self.evidence.get(part, {})]
        if lacking:
            return f"not measured, or no evidence kept: {', '.join(lacking)}"
        scores = [self.evidence[part][row] for part in basis.parts]
        if not common(scores):
            return "no seed has all of it"
        few = min(part.values.shape[1] for part in scores)
        if few < 2:
            return "one window is not enough"
        return f"smoke: {few} items a task" if few < kind_of(basis.parts[0]).least else ""
