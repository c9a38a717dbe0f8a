"""Synthetic records, made through the schema."""

import hashlib
import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from bench.record.schema import ArtifactRecord, Cost, Evidence, Failure, MeasureRecord, Metric, Provenance, Windows

FAILURE = Failure(stage="compress", code="nan_loss", message="the loss is not a number", traceback="Traceback: …")


def key_of(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def provenance(created: str = "2026-01-02T03:04:05.000+00:00") -> Provenance:
    return Provenance(
        created=created, seconds=1.5, command=["leanboard", "run"], commit=None, dirty=None, packages={}, machine={}
    )


def artifact(
    method: str = "random",
    *,
    model: str = "tiny",
    preset: str = "quick",
    recovery: str = "none",
    target: str = "params=0.2",
    seed: int = 0,
    version: str = "1",
    created: str = "2026-01-02T03:04:05.000+00:00",
    removed: float = 0.2,
    **changes: Any,
) -> ArtifactRecord:
    ingredients = {"method": method, "model": model, "version": version, "config": {"ratio": 0.2, "layers": [1, 2]}}
    values = {
        "key": key_of(method, model, preset, recovery, target, seed, version),
        "status": "ok",
        "ingredients": ingredients,
        "model": model,
        "method": method,
        "preset": preset,
        "recovery": recovery,
        "target": target,
        "seed": seed,
        "provenance": provenance(created),
        "achieved": {"params": removed, "block_params": removed * 1.3, "macs": removed * 1.1},
        "widths": [(4, 4, 96), (3, 3, 80)],
        "cost": Cost(
            seconds={"load": 2.0, "compress": 3.25, "recover": 10.0},
            peak_memory_bytes=10**9,
            calibration_tokens=640,
            optimiser_steps=10,
            trainable_parameters=1000,
        ),
    }
    return ArtifactRecord(**values | changes)


def failed_artifact(method: str = "random", **changes: Any) -> ArtifactRecord:
    return artifact(method, **changes, status="failed", error=FAILURE, achieved={}, widths=[], cost=None)


def measure(
    made: ArtifactRecord,
    task: str,
    metrics: list[Metric],
    *,
    version: int = 1,
    created: str = "2026-01-02T03:05:05.000+00:00",
    **changes: Any,
) -> MeasureRecord:
    values = {
        "key": key_of(made.key, task, version),
        "status": "ok",
        "artifact": made.key,
        "task": task,
        "ingredients": {"artifact": made.key, "task": task, "version": version},
        "metrics": metrics,
        "model": made.model,
        "method": made.method,
        "preset": made.preset,
        "recovery": made.recovery,
        "target": made.target,
        "seed": made.seed,
        "provenance": provenance(created),
    }
    return MeasureRecord(**values | changes)


def failed(made: ArtifactRecord, task: str, status: str = "failed", code: str = "nan_loss") -> MeasureRecord:
    error = Failure(stage="measure", code=code, message="a | pipe\nand <b>a line</b>", traceback="")
    return measure(made, task, [], status=status, error=error)


def perplexity(
    made: ArtifactRecord, value: float, task: str = "wikitext2@2048/limit4", stderr: float = 0.4, **changes: Any
) -> MeasureRecord:
    name, _, protocol = task.partition("@")
    metric = Metric(
        id=f"{name}.ppl_token@{protocol}", value=value, unit="ppl", direction="lower", n=8188, stderr=stderr
    )
    windows = Windows(nll=[2047 * 3.0, 2047 * 3.5], targets=[2047, 2047])
    return measure(made, task, [metric], **{"evidence": Evidence(windows=windows)} | changes)


def accuracy(
    made: ArtifactRecord, task: str, value: float, variants: tuple[str, ...] = ("acc",), n: int = 20, **changes: Any
) -> MeasureRecord:
    name, _, protocol = task.partition("@")
    metrics = [
        Metric(id=f"{name}.{variant}@{protocol}", value=value, unit="fraction", direction="higher", n=n, stderr=0.1)
        for variant in variants
    ]
    return measure(made, task, metrics, **changes)


def speed(made: ArtifactRecord, ratio: float, task: str = "generate@hf/b1/p64/n128") -> MeasureRecord:
    protocol = task.partition("@")[2]

    def metric(name: str, value: float, unit: str, direction: str, **more: Any) -> Metric:
        return Metric(id=f"generate.{name}@{protocol}", value=value, unit=unit, direction=direction, n=6, **more)

    return measure(
        made,
        task,
        [
            metric("tokens_per_s", 20 * ratio, "tokens/s", "higher", interval=(19 * ratio, 21 * ratio)),
            metric("prefill_ms", 100 / ratio, "ms", "lower", interval=(95 / ratio, 105 / ratio)),
            metric("decode_ms", 50 / ratio, "ms", "lower", interval=(49 / ratio, 51 / ratio)),
            metric("speedup", ratio, "ratio", "higher", interval=(ratio * 0.97, ratio * 1.02)),
            metric("peak_memory", 7e8 / ratio, "bytes", "lower"),
        ],
    )


def continuations(made: ArtifactRecord, *lines: tuple[str, str, str]) -> MeasureRecord:
    """Each line is a beginning, what the checkpoint wrote, and what the dense model did."""
    texts = dict(zip(("beginning", "measured", "dense"), map(list, zip(*lines, strict=True)), strict=True))
    return measure(made, "continuations@n24", [], evidence=Evidence(texts=texts))


def size(made: ArtifactRecord, params: float, task: str = "size@64") -> MeasureRecord:
    values = {
        "params.stored": (params, "parameters"),
        "params.nonzero": (params, "parameters"),
        "params.body": (params * 0.8, "parameters"),
        "bytes.disk": (params * 4 + 2e6, "bytes"),
        "bytes.resident": (params * 4, "bytes"),
        "macs.total@64": (params * 64, "MACs"),
    }
    metrics = [Metric(id=id_, value=v, unit=unit, direction="lower", n=1) for id_, (v, unit) in values.items()]
    return measure(made, task, metrics)


def scored(
    made: ArtifactRecord,
    task: str,
    bits: str,
    variants: tuple[str, ...] = ("acc",),
    *,
    data: str = "text",
    engine: str = "accuracy/2",
    **changes: Any,
) -> MeasureRecord:
    """An accuracy with its items, and the ingredients that a report reads."""
    name, _, protocol = task.partition("@")
    n, value = len(bits), bits.count("1") / len(bits)
    error = (value * (1 - value) / (n - 1)) ** 0.5
    metrics = [
        Metric(id=f"{name}.{v}@{protocol}", value=value, unit="fraction", direction="higher", n=n, stderr=error)
        for v in variants
    ]
    ingredients = {"artifact": made.key, "task": {"name": name}, "data": data, "engine": engine}
    evidence = Evidence(items=dict.fromkeys(variants, bits))
    return measure(made, task, metrics, **dict[str, Any](evidence=evidence, ingredients=ingredients) | changes)


def windowed(
    made: ArtifactRecord,
    task: str,
    losses: Sequence[float],
    *,
    targets: int = 100,
    data: str = "text",
    engine: str = "perplexity/2",
    **changes: Any,
) -> MeasureRecord:
    """A perplexity with its windows, of these mean losses in nats per token."""
    name, _, protocol = task.partition("@")
    mean, n = fmean(losses), len(losses)
    error = math.exp(mean) * (stdev(losses) / n**0.5 if n > 1 else 0.0)
    metric = Metric(
        id=f"{name}.ppl_token@{protocol}",
        value=math.exp(mean),
        unit="ppl",
        direction="lower",
        n=n * targets,
        stderr=error,
    )
    windows = Windows(nll=[targets * loss for loss in losses], targets=[targets] * n)
    ingredients = {"artifact": made.key, "task": {"name": name}, "data": data, "engine": engine}
    evidence = Evidence(windows=windows)
    return measure(made, task, [metric], **dict[str, Any](evidence=evidence, ingredients=ingredients) | changes)
