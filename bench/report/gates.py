"""The gates of a model's ranks: a dense run that gives the known scores, and tasks that the dense model can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bench.protocol import flags_of, with_flag
from bench.record.kinds import form_of, kind_of, split
from bench.registry import chance_of
from bench.report.evidence import scores_of
from bench.report.frame import Run
from bench.report.published import Published
from bench.report.stats import ALPHA, above_chance, lower, rounded
from bench.task import TASK_ID

SHUFFLED = "shuffled"
"""The flag of the baseline of gold answers."""
GateState = Literal["passed", "failed", "not known"]


@dataclass(frozen=True)
class DenseCheck:
    """A known score of the dense model, with the metric id of its protocol, and ours.

    `ours` is None where no record has it; `ok` is then None too, else whether the two are within two standard errors.
    """

    metric: str
    known: Published
    ours: float | None
    stderr: float | None
    ok: bool | None


@dataclass(frozen=True)
class DenseGate:
    """Whether a model's rows may be ranked: 'passed' where a known score was reproduced and none was missed.

    'not known' where no score is known, or no known score was measured; `reason` says so in words.
    """

    state: GateState
    reason: str
    checks: tuple[DenseCheck, ...] = ()


@dataclass(frozen=True)
class Signal:
    """Whether the dense model does better than a baseline by a metric; None where that is not known.

    For shares `p` is the exact one-sided binomial p-value against `chance` (for yes/no questions that of the majority
    class). For losses of gold answers `chance` is the value after the contexts of other items (`+shuffled`), and `p`
    that of a paired one-sided t-test.
    """

    metric: str
    has_signal: bool | None
    value: float | None
    n: int
    chance: float | None
    p: float | None
    reason: str


def signals_of(dense: Mapping[int, Run]) -> dict[str, Signal]:
    """The signal of each metric that was measured on the dense model and may show any."""
    found: dict[str, Signal] = {}
    for run in dense.values():
        for record in run.measures.values():
            chance = chance_of(record.task)
            for id_ in (metric.id for metric in record.metrics if metric.id not in found):
                bits, kind = record.evidence.items.get(split(id_)[1]), kind_of(id_)
                if bits is not None and not kind.is_derived:
                    found[id_] = _signal(id_, bits, chance)
                elif kind.evidence == "windows" and kind.needs_signal and SHUFFLED not in flags_of(split(id_)[2]):
                    found[id_] = _against_shuffled(id_, dense)
    return found


def _signal(metric: str, bits: str, chance: float | None) -> Signal:
    n, right = len(bits), bits.count("1")
    value = right / n if n else None
    if chance is None:
        return Signal(metric, None, value, n, None, None, "its task does not say what chance is")
    if n < kind_of(metric).least:
        return Signal(metric, None, value, n, chance, None, f"smoke: {n} items say nothing of signal")
    p = above_chance(right, n, chance)
    text = f"dense {100 * right / n:.1f} % of {n} items, chance {100 * chance:.1f} %, p = {p:.2g}"
    return Signal(metric, p < ALPHA, value, n, chance, p, text if p < ALPHA else f"no signal: {text}")


def _against_shuffled(metric: str, dense: Mapping[int, Run]) -> Signal:
    """The losses of the dense model after each item's own context, against those after another one's."""
    baseline = with_flag(metric, SHUFFLED)
    own, other = scores_of(dense, metric), scores_of(dense, baseline)
    if own is None or own.targets is None:
        return Signal(metric, None, None, 0, None, None, "no evidence kept")
    n, bytes_, kind = own.values.shape[1], own.targets.sum(), kind_of(metric)
    value = rounded(kind.value(float(own.values[0].sum() / bytes_)))
    if other is None or other.key != own.key:
        return Signal(metric, None, value, n, None, None, f"signal not known: {baseline} of the dense model is missing")
    chance = rounded(kind.value(float(other.values[0].sum() / bytes_)))
    if n < kind.least:
        return Signal(metric, None, value, n, chance, None, f"smoke: {n} items say nothing of signal")
    p = lower(own.values[0], other.values[0])
    text = f"dense {value:.3f} {form_of(metric).unit} over {n} items, {chance:.3f} in others' contexts, p = {p:.2g}"
    return Signal(metric, p < ALPHA, value, n, chance, p, text if p < ALPHA else f"no signal: {text}")


def dense_gate(dense: Mapping[int, Run] | None, known: list[Published]) -> DenseGate:
    """The gate of a model with these known dense scores."""
    if not known:
        return DenseGate("not known", "no score of the dense model is known")
    if not dense:
        return DenseGate("not known", "the dense model was not run")
    checks = tuple(_check(score, dense) for score in known)
    done = [check for check in checks if check.ok is not None]
    missed = [check for check in done if not check.ok]
    if missed:
        listed = ", ".join(f"{c.metric} {c.ours:.4g} where {c.known.value:.4g} is known" for c in missed)
        return DenseGate("failed", f"the dense run misses known scores: {listed}", checks)
    if not done:
        wanted = f"none of its {len(checks)} known scores was measured, such as {checks[0].metric}"
        return DenseGate("not known", wanted, checks)
    return DenseGate("passed", f"reproduces {', '.join(c.metric for c in done)}", checks)


def _check(score: Published, dense: Mapping[int, Run]) -> DenseCheck:
    metric = score.metric_id or ""
    found = _measured(metric, dense) or _first_items(metric, dense)
    if found is None:
        return DenseCheck(metric, score, None, None, None)
    value, stderr = found
    return DenseCheck(metric, score, value, stderr, abs(value - score.number) <= 2 * stderr)


def _measured(metric: str, dense: Mapping[int, Run]) -> tuple[float, float] | None:
    for _, run in sorted(dense.items()):
        for record in run.measures.values():
            for found in record.metrics:
                if found.id == metric and found.stderr is not None:
                    return found.value, found.stderr
    return None


def _first_items(metric: str, dense: Mapping[int, Run]) -> tuple[float, float] | None:
    """A limited accuracy from the bits of a longer run: the first n items are always the same."""
    wanted = TASK_ID.match(metric)
    if wanted is None or wanted["limit"] is None:
        return None
    limit, whole = int(wanted["limit"]), f"{wanted['name']}.{wanted['metric']}@{wanted['protocol']}"
    for _, run in sorted(dense.items()):
        for task in sorted(run.measures):
            other = TASK_ID.match(task)
            if other is None or (other["name"], other["protocol"]) != (wanted["name"], wanted["protocol"]):
                continue
            if run.measures[task].evidence.parts:  # a limit is one of each part
                continue
            suffix = f"/limit{other['limit']}" if other["limit"] else ""
            scores = scores_of({0: run}, whole + suffix)
            if scores is not None and kind_of(metric).is_share and scores.values.shape[1] >= limit:
                value = float(scores.values[0, :limit].mean())
                return value, float((value * (1 - value) / (limit - 1)) ** 0.5)
    return None
