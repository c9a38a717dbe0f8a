"""Boards of synthetic records."""

from pathlib import Path
from typing import Any

import numpy as np

from bench.record.schema import RECORD, ArtifactRecord, MeasureRecord
from bench.record.store import Store
from bench.record.text import AnyRecord
from bench.report.published import Counterpart, Protocol, Published, PublishedRow
from bench.task_group import TaskGroup
from tests.record.records import (
    accuracy,
    artifact,
    continuations,
    failed,
    failed_artifact,
    perplexity,
    scored,
    size,
    speed,
    windowed,
)

PAIR = TaskGroup(name="pair", kind="group", description="two tasks", members=("piqa.acc", "hellaswag.acc_norm"))


def cells(
    method: str,
    ppl: float,
    *,
    ratio: float = 1.2,
    accuracies: tuple[float, float] = (0.5, 0.4),
    limit: int = 20,
    removed: float = 0.2,
    **who: Any,
) -> list[Any]:
    """Everything that is measured on one checkpoint."""
    if method == "dense":
        who, removed, ratio = {"target": "none"} | who, 0.0, 1.0
    made = artifact(method, removed=removed, **who)
    suffix = f"0shot/limit{limit}"
    measured: list[MeasureRecord] = [
        perplexity(made, ppl),
        perplexity(made, 2 * ppl, "lambada_text@2048/limit4"),
        size(made, 1e8 * (1 - removed)),
        speed(made, ratio),
        accuracy(made, f"piqa@{suffix}", accuracies[0], ("acc", "acc_norm"), n=limit),
        accuracy(made, f"hellaswag@{suffix}", accuracies[1], ("acc", "acc_norm"), n=limit),
    ]
    return [made, *measured]


def smollm() -> list[AnyRecord]:
    """A board like that of the main job."""
    return [
        *cells("dense", 20.0),
        *cells("random", 300.0),
        *cells("magnitude", 900.0, ratio=1.15),
        *cells("llm_pruner", 45.0, ratio=1.18),
        *cells("llm_pruner", 32.0, recovery="lora", ratio=1.18),
    ]


def five_hundred() -> list[AnyRecord]:
    """More than five hundred records of two models, with windows and items as in a real board."""
    records: list[AnyRecord] = []
    for model in ("one", "two"):
        dense = cells("dense", 12.0, model=model)
        records += [*dense, *evidence(dense[0], 0.0)]
        for i, method in enumerate(METHODS):
            for removed in (0.2, 0.3, 0.4):
                who: dict[str, Any] = {"target": f"params={removed}", "removed": removed, "model": model}
                made = cells(method, 13.0 + i + 40 * removed, ratio=1 + removed, **who)
                records += [*made, *evidence(made[0], 0.1 * i + removed)]
    return records


def evidence(made: AnyRecord, shift: float) -> list[AnyRecord]:
    """Windows and items of a checkpoint, worse by `shift` than the dense model."""
    assert isinstance(made, ArtifactRecord)
    noise = sum(map(ord, made.method))
    return [
        windowed(made, "wikitext2@128/limit64", text_losses(shift, seed=noise)),
        *(
            scored(made, f"{task}@0shot/limit500", answers(0.8 - 0.1 * shift, 500, seed=noise + i))
            for i, task in enumerate(("piqa", "arc_easy", "boolq", "winogrande", "lambada_openai"))
        ),
    ]


def of_the_hub() -> list[AnyRecord]:
    """Two models of the hub with one name, one of them at a revision."""
    models = ("lab/tiny", "other/tiny@v1.0")
    return [r for m in models for r in (*cells("dense", 20.0, model=m), *cells("saap", 40.0, model=m))]


METHODS = ("random", "magnitude", "llm_pruner", "saap", "compresso", "trawl", "capaboost", "pruning_adapter", "lora")
SCRIPT = """"><script>window.hit=1</script><img src=x onerror="window.hit=1">'{{7*7}}`</td>\n"""
KEPT = {"key", "artifact", "status", "kind", "id", "direction", "created"}
"""Fields that are not free text: the schema takes no other than what they are for."""


def hostile() -> list[AnyRecord]:
    """Records with a script in every field that may hold any text."""
    records = [*cells("dense", 20.0), *cells("random", 60.0), *cells("saap", 40.0, ratio=1.4, removed=0.3)]
    records += [continuations(artifact("trawl"), ("A", "B", "C")), artifact("trawl")]
    records += [failed_artifact("wanda_sp"), failed(artifact("lora"), "piqa@0shot"), artifact("lora")]
    return [RECORD.validate_python(_with_script(record.model_dump(), record.method)) for record in records]


def _with_script(value: Any, method: str) -> Any:
    if isinstance(value, dict):
        return {
            name: item
            if name in KEPT or name in ("items", "samples")
            else f"{method} {SCRIPT}"
            if name == "method"
            else _with_script(item, method)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_with_script(item, method) for item in value]
    return SCRIPT if isinstance(value, str) else value


def store(results: Path, records: list[AnyRecord]) -> Path:
    into = Store(results)
    for record in records:
        into.write(record)
    return results


def text_losses(shift: float = 0.0, *, windows: int = 64, noise: float = 0.02, seed: int = 0) -> list[float]:
    """Mean losses of the windows of one text, harder and easier ones, each `shift` nats higher for a worse model."""
    hard = np.random.default_rng(0).normal(3.0, 0.5, windows)
    return [float(x) for x in hard + shift + np.random.default_rng([1, seed]).normal(0, noise, windows)]


def answers(share: float, n: int = 200, seed: int = 0) -> str:
    """Bits of `n` questions of which about `share` is right; a better model has right nearly all a worse one has."""
    ease = np.random.default_rng(2).random(n)
    own = np.random.default_rng([3, seed]).random(n)
    return "".join("1" if right else "0" for right in np.where(own < 0.1, own * 10, ease) < share)


def known(scores: dict[str, float], model: str = "tiny") -> list[Published]:
    """Known dense scores by metric id."""
    found = []
    for metric, value in scores.items():
        name, _, protocol = metric.partition("@")
        task, _, kind = name.partition(".")
        row = PublishedRow(
            method="dense",
            model=model,
            of="dense",
            ours=Counterpart(model=model, method="dense"),
            known=True,
            values={metric: value},
        )
        how = Protocol(task=task, metric=kind, protocol=protocol)
        found.append(Published(Path("file.yaml"), row, metric, value, how, "a page"))
    return found


PPL = "wikitext2.ppl_token@128/limit64"
KNOWN = known({PPL: 20.0})


def dense(ppl: float = 20.0, **who: Any) -> list[Any]:
    """A dense run that gives the known perplexity (or another)."""
    made = artifact("dense", **dict[str, Any](preset="default", target="none", removed=0.0) | who)
    losses = np.array(text_losses())
    return [made, windowed(made, "wikitext2@128/limit64", list(losses - losses.mean() + np.log(ppl)))]


def row(method: str, shift: float, *, share: float | None = None, seed: int = 0, **who: Any) -> list[Any]:
    """A checkpoint whose losses are `shift` nats above the dense model's, and perhaps its answers to piqa."""
    made = artifact(method, seed=seed, **who)
    noise = sum(map(ord, method)) + 1000 * seed
    measured = [windowed(made, "wikitext2@128/limit64", text_losses(shift, seed=noise))]
    if share is not None:
        measured.append(scored(made, "piqa@0shot/limit200", answers(share, seed=noise)))
    return [made, *measured]
