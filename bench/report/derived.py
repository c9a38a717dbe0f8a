"""Metrics that the report computes from the items of several records, and that no record holds.

`<accuracy>_flips` of a task is the share of items that a model has right and the dense model wrong, or the other way
round; `<accuracy>_answer_flips` is the share for which it chooses another answer (arXiv:2407.09141). From here on they
are metrics of the task's own record, and their bits its items, so that they are shown, paired and ranked like others.

`flattery` of a task that asks the questions of a choice again, without the choices, is the share of items that a model
chooses right and does not say. Both are of the protocol and limit in its id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import sqrt

from bench.record.kinds import form_of, kind_of, name_of, split
from bench.record.rows import RowName
from bench.record.schema import MeasureRecord, Metric
from bench.registry import load_tasks
from bench.report.evidence import data_of
from bench.report.frame import Run, dense_of
from bench.report.gates import Signal
from bench.report.headline import is_headline
from bench.task_group import TaskGroup

FLIPS, ANSWER_FLIPS, FLATTERY = "flips", "answer_flips", "flattery"
Runs = Mapping[RowName, Mapping[int, Run]]


def with_derived(runs: Runs, groups: Sequence[TaskGroup]) -> dict[RowName, dict[int, Run]]:
    """`runs` with the flips of every accuracy that counts for its task (`is_headline`), and flattery, in its record.

    A seed is held against the dense model's of the same number, else against its first; records of other data or
    another engine than the dense model's have no flips.
    """
    dense = {model: dense_of(runs, model) for model in {row.model for row in runs}}

    def reference(row: RowName, seed: int, task: str) -> MeasureRecord | None:
        seeds = dense[row.model]
        return seeds[seed if seed in seeds else min(seeds)].measures.get(task) if seeds else None

    return {
        row: {
            seed: replace(
                run,
                measures={
                    task: _with(record, [*_flips(record, reference(row, seed, task), groups), *_flattery(record, run)])
                    for task, record in run.measures.items()
                },
            )
            for seed, run in seeds.items()
        }
        for row, seeds in runs.items()
    }


def with_means(groups: Sequence[TaskGroup]) -> list[TaskGroup]:
    """`groups`, and of each whose members have flips the same group of those, so that it has their mean."""
    found = list(groups)
    for group in groups:
        for what in (FLIPS, ANSWER_FLIPS):
            members = [_derived_id(member, what) for member in group.members]
            if all(kind_of(member).mean for member in members):
                found.append(TaskGroup.model_validate(group.model_dump() | {"members": members}))
    return found


def with_signals(signals: Mapping[str, Signal]) -> dict[str, Signal]:
    """`signals` of accuracies, and those of their flips: where the dense model guesses, so do flips."""
    found = dict(signals)
    for id_, signal in signals.items():
        for flips in (_derived_id(id_, what) for what in (FLIPS, ANSWER_FLIPS)):
            if kind_of(flips).is_derived:
                found[flips] = replace(signal, metric=flips)
    return found


def _with(record: MeasureRecord, found: Sequence[tuple[str, str]]) -> MeasureRecord:
    """`record` with shares of items that are not its own: their metric ids, each with its bits."""
    if not found:
        return record
    items = record.evidence.items | {split(id_)[1]: bits for id_, bits in found}
    return record.model_copy(
        update={
            "metrics": [*record.metrics, *(_share(id_, bits) for id_, bits in found)],
            "evidence": record.evidence.model_copy(update={"items": items}),
        }
    )


def _flattery(record: MeasureRecord, run: Run) -> Iterator[tuple[str, str]]:
    """1 where the same question is chosen right and answered wrong."""
    task, _, suffix = record.task.partition("@")
    choice: str | None = getattr(load_tasks().get(task), "choice", None)
    if choice is None:
        return
    name, metric, _ = split(choice)
    partner = run.measures.get(f"{name}@{suffix}")
    chosen = partner.evidence.items.get(metric, "") if partner is not None and _same_questions(record, partner) else ""
    said = next(iter(record.evidence.items.values()), "")
    if chosen and len(chosen) == len(said):
        yield f"{task}.{FLATTERY}@{suffix}", "".join("01"[c > s] for c, s in zip(chosen, said, strict=True))


def _same_questions(record: MeasureRecord, other: MeasureRecord) -> bool:
    """Whether two tasks were measured well, and read the same file."""
    mine, its = record.ingredients.get("data"), other.ingredients.get("data")
    if not isinstance(mine, dict) or not isinstance(its, dict) or {record.status, other.status} != {"ok"}:
        return False
    return any(its.get(file) == fingerprint for file, fingerprint in mine.items())


def _flips(
    record: MeasureRecord, dense: MeasureRecord | None, groups: Sequence[TaskGroup]
) -> Iterator[tuple[str, str]]:
    """The flips of the accuracies that count, where the dense model answered the same items."""
    if dense is None or {record.status, dense.status} != {"ok"} or data_of(record) != data_of(dense):
        return
    for metric in record.metrics:
        if is_headline(metric.id, groups):
            yield from _flips_of(metric.id, record, dense)


def _flips_of(metric: str, record: MeasureRecord, dense: MeasureRecord) -> Iterator[tuple[str, str]]:
    """The flips of an accuracy by metric id, item by item: 1 where the two differ."""
    name = split(metric)[1]
    ours, theirs = record.evidence, dense.evidence
    for what, a, b in ((FLIPS, ours.items, theirs.items), (ANSWER_FLIPS, ours.chosen, theirs.chosen)):
        id_ = _derived_id(metric, what)
        mine, its = a.get(name, ""), b.get(name, "")
        if kind_of(id_).is_derived and mine and len(mine) == len(its):
            yield id_, "".join("01"[one != other] for one, other in zip(mine, its, strict=True))


def _derived_id(metric: str, what: str) -> str:
    """'piqa.acc@0shot', 'flips' -> 'piqa.acc_flips@0shot'."""
    name = name_of(metric)
    return f"{name}_{what}{metric.removeprefix(name)}"


def _share(id_: str, bits: str) -> Metric:
    n, value, form = len(bits), bits.count("1") / len(bits), form_of(id_)
    error = sqrt(value * (1 - value) / (n - 1)) if n > 1 else None
    return Metric(id=id_, value=value, unit=form.unit, direction=form.direction, n=n, stderr=error)
