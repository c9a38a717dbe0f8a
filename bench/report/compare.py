"""Compare two rows: paired by item and window where both kept them, and by the fields of their keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.errors import UsageError
from bench.record.kind import SIDES
from bench.record.kinds import form_of, kind_of
from bench.record.rows import RowName
from bench.record.store import differences
from bench.report.derived import with_derived, with_means
from bench.report.evidence import evidence_of
from bench.report.find import Rows
from bench.report.formats import number
from bench.report.frame import Run
from bench.report.headline import means_of
from bench.report.rank import Basis, Ranker
from bench.report.stats import ALPHA, Difference, holm, pairwise
from bench.task_group import TaskGroup

Runs = Mapping[int, Run]


@dataclass(frozen=True)
class Change:
    """One metric of two rows. `difference` is as in `Pair` (B minus A); None where they cannot be paired, `why` says.

    `p` is exact (McNemar) for one task's items and one checkpoint each, else from the paired bootstrap; `holm` is `p`
    corrected for all metrics of the two rows.
    """

    metric: str
    n: int
    a: float | None
    b: float | None
    difference: Difference | None
    p: float | None
    holm: float | None
    why: str

    @property
    def verdict(self) -> str:
        if self.difference is None or self.holm is None:
            return self.why
        if self.holm >= ALPHA or not self.difference.value:
            return "no difference found"
        is_lower_better = form_of(self.metric).direction == "lower"
        return "B is better" if (self.difference.value < 0) == is_lower_better else "A is better"


@dataclass(frozen=True)
class Compared:
    """Two rows, what was measured on both, and the fields of their keys that differ: (field, of A, of B)."""

    a: str
    b: str
    tests: tuple[Change, ...]
    keys: tuple[tuple[str, Any, Any], ...]


def compare_rows(rows: Rows, a: str, b: str, groups: Sequence[TaskGroup]) -> Compared:
    """Compare two rows of one results folder, or only the seeds of them that are named."""
    (one, ours), (two, theirs) = rows.row(a), rows.row(b)
    if one == two and ours.keys() & theirs.keys():
        raise UsageError(f"'{a}' and '{b}' are the same row: {one}")
    names = _title(one, ours, rows), _title(two, theirs, rows)
    runs = with_derived(rows.runs, groups)
    mine, its = ({seed: runs[row][seed] for seed in seeds} for row, seeds in ((one, ours), (two, theirs)))
    return _compared(*names, mine, its, groups)


def _title(row: RowName, seeds: Runs, rows: Rows) -> str:
    return str(row) if len(seeds) == len(rows.runs[row]) else f"{row} seed {min(seeds)}"


def compare_trees(a: Rows, b: Rows, groups: Sequence[TaskGroup]) -> tuple[list[Compared], list[str], list[str]]:
    """Compare every row that two results folders share; also the names of those that only A, or only B, has."""
    ours, theirs = (with_derived(x.runs, groups) for x in (a, b))
    both = sorted(ours.keys() & theirs.keys())
    alone = [[str(row) for row in sorted(x.runs.keys() - y.runs.keys())] for x, y in ((a, b), (b, a))]
    compared = [_compared(str(row), str(row), ours[row], theirs[row], groups) for row in both]
    return compared, alone[0], alone[1]


def _compared(a: str, b: str, ours: Runs, theirs: Runs, groups: Sequence[TaskGroup]) -> Compared:
    rows = [RowName(side, "", "", "none", "none") for side in "AB"]
    runs = dict(zip(rows, (ours, theirs), strict=True))
    values = [_values(seeds) for seeds in (ours, theirs)]
    shared = sorted(id_ for id_ in values[0].keys() & values[1].keys())
    bases = [Basis(id_, (id_,), form_of(id_).direction == "higher") for id_ in shared if kind_of(id_).is_quality]
    means = [mean for mean in means_of(shared, with_means(groups), {}) if set(mean.parts) <= set(shared)]
    bases += [Basis(mean.id, mean.parts, form_of(mean.id).direction == "higher") for mean in means]
    if any(run.artifact and run.artifact.method == "dense" for seeds in (ours, theirs) for run in seeds.values()):
        bases = [basis for basis in bases if kind_of(basis.metric).side != "stays itself"]  # 0 by definition
    bases.sort(key=lambda basis: _place(basis.metric))
    ranking = Ranker(runs, evidence_of(runs, sorted({part for basis in bases for part in basis.parts})), {})
    tests = [_tested(ranking, rows, basis, values) for basis in bases]
    corrected = iter(holm([test.p for test in tests if test.p is not None]))
    return Compared(
        a,
        b,
        tuple(Change(**{**vars(test), "holm": next(corrected) if test.p is not None else None}) for test in tests),
        tuple(_keys(ours, theirs)),
    )


def _place(metric: str) -> tuple[int, bool, str]:
    """Sort key of metrics: side by side of quality, means over tasks before single tasks."""
    kind = kind_of(metric)
    return SIDES.index(kind.side) if kind.side else len(SIDES), kind.is_part, metric


def _values(seeds: Runs) -> dict[str, list[float]]:
    """Metric id -> its value for each seed."""
    found: dict[str, list[float]] = {}
    for _, run in sorted(seeds.items()):
        for record in run.measures.values():
            for metric in record.metrics if record.status == "ok" else ():
                found.setdefault(metric.id, []).append(metric.value)
    return found


def _tested(
    ranking: Ranker, rows: Sequence[RowName], basis: Basis, values: Sequence[Mapping[str, list[float]]]
) -> Change:
    a, b = (sum(_mean(side[part]) for part in basis.parts) / len(basis.parts) for side in values)
    if not all(ranking.has(row, basis) for row in rows):
        return Change(basis.metric, 0, a, b, None, None, None, "no evidence kept")
    if ranking.key(rows[0], basis) != ranking.key(rows[1], basis):
        return Change(basis.metric, 0, a, b, None, None, None, "other data or another engine")
    n = sum(ranking.evidence[part][rows[0]].values.shape[1] for part in basis.parts)
    if n < 2:
        return Change(basis.metric, n, a, b, None, None, None, "one window is not enough")
    estimates = ranking.estimates(rows, basis)
    p = float(ranking.p_values(rows, basis, estimates)[1][0, 1])
    return Change(basis.metric, n, a, b, pairwise(estimates).difference(1, 0), p, None, "")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _keys(ours: Runs, theirs: Runs) -> Iterator[tuple[str, Any, Any]]:
    """The fields that differ in the keys of the first seed that both have: of the checkpoints, then task by task."""
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        yield "seeds", sorted(ours), sorted(theirs)
        return
    a, b = ours[shared[0]], theirs[shared[0]]
    if a.artifact is not None and b.artifact is not None:
        yield from differences(a.artifact, b.artifact)
    for task in sorted(a.measures.keys() & b.measures.keys()):
        for field, x, y in differences(a.measures[task], b.measures[task]):
            if field != "artifact":
                yield f"{task}: {field}", x, y
    for task in sorted(a.measures.keys() ^ b.measures.keys()):
        is_ours = task in a.measures
        yield task, "measured" if is_ours else "not measured", "not measured" if is_ours else "measured"


def table(compared: Compared) -> list[dict[str, str]]:
    """The tests as lines of text: values in their unit, differences as their kind says."""
    lines = []
    for test in compared.tests:
        d, gap, unit = test.difference, kind_of(test.metric).gap, form_of(test.metric).unit
        line = {"side": kind_of(test.metric).side or "–", "metric": test.metric, "n": str(test.n or "–")}
        for side, value in (("A", test.a), ("B", test.b)):
            line[side] = number(value, unit)
        if d is not None and test.p is not None and test.holm is not None:
            line |= {
                "B − A": f"{gap.text(d.value)} {gap.unit}",
                "95 %": f"{gap.text(d.low)} to {gap.text(d.high)}",
                "p": f"{test.p:.3g}",
                "p (Holm)": f"{test.holm:.3g}",
            }
        else:
            line |= dict.fromkeys(("B − A", "95 %", "p", "p (Holm)"), "–")
        lines.append({**line, "verdict": test.verdict})
    return lines
