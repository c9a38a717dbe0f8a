"""From a session to metrics and the samples that they were computed from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

import numpy as np

from bench.measure.generation.session import Session
from bench.measure.generation.statistics import interval_of_median, ratio_of_rounds
from bench.measure.generation.timing import Generation
from bench.record.schema import Direction, Metric
from bench.task import Task

PERCENTILES = (95, 99)


def metrics_of(task: Task, session: Session) -> list[Metric]:
    """Medians over rounds with a 95 % interval, percentiles over all steps, and what was measured once.

    `tokens_per_s` counts the new tokens of all sequences over prefill and decoding, `prefill_tokens_per_s` the prompt
    tokens over the prefill, `decode_tokens_per_s` the tokens after the first over decoding. `ttft_ms` is the time to
    the first token, `itl_ms` that between one token and the next. `speedup` is the dense model's time over the
    subject's in the same round, `roofline_speedup` what it would be if only memory and arithmetic took time.
    """
    if len(session.rounds) > 1:
        return _sweep(task, session)
    [rounds] = session.rounds.values()
    mine, dense = rounds["measured"], rounds.get("dense")
    metrics = [*_medians(task, session, mine), *_latencies(task, mine)]
    if dense is not None:
        for name, seconds in (("speedup", _total), ("prefill_speedup", _first), ("decode_speedup", _decoding)):
            if all(map(seconds, mine)):
                value, interval = ratio_of_rounds([*map(seconds, dense)], [*map(seconds, mine)])
                metrics.append(_metric(task, name, value, "ratio", "higher", len(mine), interval))
        if session.least:
            possible = session.least["dense"] / session.least["measured"]
            metrics.append(_metric(task, "roofline_speedup", possible, "ratio", "none"))
    metrics.append(_metric(task, "cold_start_s", session.cold, "s", "lower"))
    footprint = session.memory["measured"]
    if footprint.activations is not None and footprint.peak is not None:
        metrics.append(_metric(task, "peak_memory", footprint.peak, "bytes", "lower"))
        metrics.append(_metric(task, "activation_memory", footprint.activations, "bytes", "lower"))
    metrics.append(_metric(task, "cache_memory", footprint.cache, "bytes", "lower"))
    return metrics


def samples_of(session: Session) -> dict[str, list[float]]:
    """Seconds of each round: prefill, decoding, processor time (the dense model's: `dense_…`); the subject's steps."""
    samples: dict[str, list[float]] = {}
    for batch, rounds in session.rounds.items():
        at = f"@b{batch}" if len(session.rounds) > 1 else ""
        for name, generations in rounds.items():
            prefix = "" if name == "measured" else f"{name}_"
            samples[f"{prefix}prefill{at}"] = [g.first for g in generations]
            samples[f"{prefix}decode{at}"] = [g.decoding for g in generations]
            samples[f"{prefix}cpu{at}"] = [g.cpu for g in generations]
        samples[f"step{at}"] = [seconds for g in rounds["measured"] for seconds in g.steps]
    return samples


def _sweep(task: Task, session: Session) -> list[Metric]:
    """The best throughput over all batches, the batch it was seen at, and the speed-up at the largest batch."""
    rates = {batch: [g.tokens / g.total for g in rounds["measured"]] for batch, rounds in session.rounds.items()}
    best = max(rates, key=lambda batch: median(rates[batch]))
    n, interval = len(rates[best]), interval_of_median(rates[best])
    metrics = [
        _metric(task, "tokens_per_s", median(rates[best]), "tokens/s", "higher", n, interval),
        _metric(task, "best_batch", best, "sequences", "none"),
    ]
    last = session.rounds[max(session.rounds)]
    if "dense" in last:
        value, interval = ratio_of_rounds(*([g.total for g in last[name]] for name in ("dense", "measured")))
        metrics.append(_metric(task, "speedup", value, "ratio", "higher", len(last["measured"]), interval))
    return metrics


def _medians(task: Task, session: Session, generations: Sequence[Generation]) -> Iterator[Metric]:
    work = session.work
    columns: list[tuple[str, str, Direction, list[float]]] = [
        ("tokens_per_s", "tokens/s", "higher", [g.tokens / g.total for g in generations]),
        ("requests_per_s", "requests/s", "higher", [len(g.ids) / g.total for g in generations]),
        ("prefill_tokens_per_s", "tokens/s", "higher", [work.prompt * len(g.ids) / g.first for g in generations]),
        ("ttft_ms", "ms", "lower", [1000 * g.first for g in generations]),
    ]
    if work.new > 1:
        rates = [(g.tokens - len(g.ids)) / g.decoding for g in generations]
        columns.append(("decode_tokens_per_s", "tokens/s", "higher", rates))
    if all(g.joules is not None for g in generations):
        joules = [(g.joules or 0.0) / g.tokens for g in generations]
        columns.append(("energy_per_token", "J", "lower", joules))
    for name, unit, direction, values in columns:
        yield _metric(task, name, median(values), unit, direction, len(values), interval_of_median(values))


def _latencies(task: Task, generations: Sequence[Generation]) -> Iterator[Metric]:
    """The median between tokens, and the percentiles that have at least one step beyond them."""
    steps = [1000 * seconds for g in generations for seconds in g.steps]
    if steps:
        medians = [1000 * median(g.steps) for g in generations]
        yield _metric(task, "itl_ms", median(steps), "ms", "lower", len(steps), interval_of_median(medians))
    for percentile in PERCENTILES:
        if len(steps) * (100 - percentile) >= 100:
            value = float(np.percentile(steps, percentile))
            yield _metric(task, f"itl_p{percentile}_ms", value, "ms", "lower", len(steps))


def _metric(
    task: Task,
    name: str,
    value: float,
    unit: str,
    direction: Direction,
    n: int = 1,
    interval: tuple[float, float] | None = None,
) -> Metric:
    return Metric(id=task.metric_id(name), value=value, unit=unit, direction=direction, n=n, interval=interval)


def _total(generation: Generation) -> float:
    return generation.total


def _first(generation: Generation) -> float:
    return generation.first


def _decoding(generation: Generation) -> float:
    return generation.decoding
