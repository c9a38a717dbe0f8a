"""Check records that somebody else made: compute again what they say about themselves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.checkpoint_files import weights_sha256
from bench.errors import UsageError
from bench.paths import artifact_path
from bench.record.keys import artifact_key, measure_key
from bench.record.kind import Kind
from bench.record.kinds import UNKNOWN, form_of, kind_of, split
from bench.record.provenance import accelerator_name, fingerprint_of, machine_fingerprint
from bench.record.schema import ArtifactRecord, MeasureRecord, Metric, Windows
from bench.record.shares import share_of
from bench.record.store import Store
from bench.record.text import AnyRecord

TOLERANCE = 1e-9


def check_records(results: Path) -> list[str]:
    """One sentence for each problem under `results`, file by file; a file that cannot be read is a problem.

    A record is whole if its schema fits, its file is where its identity says, its key is the hash of its ingredients,
    these agree with its other fields, its metrics belong to its task and follow from its evidence, and the record of
    its checkpoint is there. A checkpoint that this machine made and still has must have the weights of its record.
    """
    store = Store(results)
    records, unreadable = store.read_all()
    made = {record.key: record for record in records if isinstance(record, ArtifactRecord)}
    problems = [str(problem) for problem in unreadable]
    for record in records:
        found = [*_key(record), *_identity(record)]
        if isinstance(record, ArtifactRecord):
            found += _weights(record)
        if isinstance(record, MeasureRecord):
            found += [*_task(record), *_metrics(record), *_checkpoint(record, made.get(record.artifact))]
        problems += [f"{store.path_of(record)}: {problem}" for problem in found]
    return sorted(problems)


def _key(record: AnyRecord) -> Iterator[str]:
    expected = (measure_key if isinstance(record, MeasureRecord) else artifact_key)(record.ingredients)
    if record.key != expected:
        yield f"field 'key' is {record.key}, but its ingredients give {expected}"


def _identity(record: AnyRecord) -> Iterator[str]:
    """Fields that the ingredients repeat must be the same in both."""
    parts = record.ingredients
    if isinstance(record, MeasureRecord):
        if parts.get("artifact") != record.artifact:
            yield f"field 'artifact' is {record.artifact}, but the ingredients name {parts.get('artifact')}"
        return
    target, recovery = parts.get("target"), parts.get("recovery")
    stated = {
        "method": parts.get("method"),
        "seed": parts.get("seed"),
        "target": f"{target.get('basis')}={target.get('value'):g}" if isinstance(target, dict) else "none",
        "recovery": recovery.get("name") if isinstance(recovery, dict) else "none",
    }
    for field, value in stated.items():
        if getattr(record, field) != value:
            yield f"field '{field}' is {getattr(record, field)}, but the ingredients say {value}"


def _weights(record: ArtifactRecord) -> Iterator[str]:
    """Only checkpoints made on this machine are checked: made elsewhere, their last bits may differ."""
    machine, folder = record.provenance.machine, artifact_path(record.key)
    if record.weights_sha256 is None or not folder.is_dir():
        return
    accelerator = accelerator_name() if machine.get("accelerator") else None
    if fingerprint_of(machine) == machine_fingerprint(accelerator):
        try:
            here = weights_sha256(folder)
        except UsageError:  # not whole: it is made again when it is needed
            return
        if here != record.weights_sha256:
            yield f"field 'weights_sha256' is {record.weights_sha256}, but the weights in {folder} give {here}"


def _task(record: MeasureRecord) -> Iterator[str]:
    parts = record.ingredients
    task = parts.get("task")
    name = task.get("name") if isinstance(task, dict) else None
    limit = f"/limit{parts['limit']}" if parts.get("limit") else ""
    expected = f"{name}@{parts.get('protocol')}{limit}"
    if record.task != expected:
        yield f"field 'task' is {record.task}, but the ingredients are those of {expected}"


def _metrics(record: MeasureRecord) -> Iterator[str]:
    """Each metric must have its task's protocol, the unit of its kind, and the value that its evidence gives."""
    task, _, protocol = record.task.partition("@")
    if record.status == "ok" and not record.metrics:
        yield "field 'metrics' is empty, though the status is ok"
    for metric in record.metrics:
        kind, form = kind_of(metric.id), form_of(metric.id)
        whose, name, suffix = split(metric.id)
        if (kind.task or whose) != task or (not kind.task and suffix != protocol):
            yield f"field 'metrics' has {metric.id}, which is no metric of {record.task}"
        elif kind is UNKNOWN:
            yield f"field 'metrics' has {metric.id}, and no kind of metric has it"
        elif kind.is_derived:
            yield f"field 'metrics' has {metric.id}, which a report computes from several records and no record holds"
        elif (metric.unit, metric.direction) != (form.unit, form.direction):
            yield f"{metric.id} is in {metric.unit} ({metric.direction}), not in {form.unit} ({form.direction})"
        elif kind.evidence == "items":
            yield from _items(metric, record.evidence.items.get(name), record.evidence.parts)
        elif kind.evidence == "windows":
            where = f"sums.{name}" if name in record.evidence.sums else "windows"
            yield from _windows(metric, kind, record.evidence.sums.get(name, record.evidence.windows), where)
    yield from _chosen(record)


def _chosen(record: MeasureRecord) -> Iterator[str]:
    """An answer was chosen for each item."""
    for name, answers in record.evidence.chosen.items():
        items = record.evidence.items.get(name, "")
        if len(answers) != len(items):
            yield f"field 'evidence.chosen.{name}' has {len(answers)} answers, and 'evidence.items' {len(items)} of it"


def _items(metric: Metric, bits: str | None, parts: Mapping[str, int]) -> Iterator[str]:
    if not bits:
        yield f"{metric.id} has no items as its evidence"
        return
    n, limit = len(bits), metric.id.rpartition("/limit")[2]
    if parts and sum(parts.values()) != n:
        yield f"field 'evidence.parts' has {sum(parts.values())} items, and {metric.id} {n}"
        return
    if limit.isdecimal() and max(parts.values(), default=n) > int(limit):
        yield f"{metric.id} has {max(parts.values(), default=n)} items, over its limit"
    share, error = share_of(bits, parts.values() if form_of(metric.id).over_parts else ())
    yield from _same(metric, share, n, error, f"{n} items")


def _windows(metric: Metric, kind: Kind, windows: Windows | None, where: str) -> Iterator[str]:
    """`where` is the field of the evidence that has them."""
    if windows is None:
        yield f"{metric.id} has no windows as its evidence"
    elif min(windows.targets) < 1:
        yield f"field 'evidence.{where}.targets' has a window of {min(windows.targets)} targets"
    else:
        mean = sum(windows.nll) / sum(windows.targets)
        try:
            value = kind.value(mean)
        except OverflowError:
            yield f"{metric.id}: the mean of its windows is {mean:.0f}, beyond any {kind.noun}"
            return
        yield from _same(metric, value, sum(windows.targets), None, f"{len(windows.nll)} windows")


def _same(metric: Metric, value: float, n: int, error: float | None, what: str) -> Iterator[str]:
    """Compare the value, its n and, where both are known, its standard error."""
    if not math.isclose(metric.value, value, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
        yield f"{metric.id} is {metric.value:.6g}, but its {what} give {value:.6g}"
    if metric.n != n:
        yield f"{metric.id} says n = {metric.n}, but its {what} give {n}"
    if error is not None and not math.isclose(metric.stderr or 0.0, error, rel_tol=1e-6, abs_tol=TOLERANCE):
        yield f"{metric.id} has a standard error of {metric.stderr}, but its {what} give {error:.6g}"


def _checkpoint(record: MeasureRecord, made: ArtifactRecord | None) -> Iterator[str]:
    if made is None:
        yield f"the record of its checkpoint {record.artifact} is missing"
        return
    for field in ("model", "method", "preset", "recovery", "target", "seed"):
        if getattr(record, field) != getattr(made, field):
            yield f"field '{field}' is {getattr(record, field)}, but its checkpoint's is {getattr(made, field)}"
    if made.status != "ok" and record.status == "ok":
        yield f"it was measured on checkpoint {made.key}, whose making ended as {made.status}"
