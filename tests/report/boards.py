"""Boards of synthetic records."""

from pathlib import Path
from typing import Any

from bench.record.schema import RECORD, MeasureRecord
from bench.record.store import AnyRecord, Store
from bench.report.plots.looks import KNOWN
from bench.task import TaskGroup
from tests.record.records import accuracy, artifact, failed, failed_artifact, perplexity, size, speed

PAIR = TaskGroup(name="pair", kind="group", description="two tasks", members=("piqa.acc", "hellaswag.acc_norm"))


def cells(
    method: str, ppl: float, *, ratio: float = 1.2, accuracies: tuple[float, float] = (0.5, 0.4), limit: int = 20,
    removed: float = 0.2, **who: object,
) -> list[AnyRecord]:
    """Everything that is measured on one checkpoint."""
    if method == "dense":
        who, removed, ratio = {"target": "none"} | who, 0.0, 1.0
    made = artifact(method, removed=removed, **who)
    suffix = f"0shot/limit{limit}"
    measured: list[MeasureRecord] = [
        perplexity(made, ppl), perplexity(made, 2 * ppl, "lambada_text@2048/limit4"), size(made, 1e8 * (1 - removed)),
        speed(made, ratio), accuracy(made, f"piqa@{suffix}", accuracies[0], ("acc", "acc_norm"), n=limit),
        accuracy(made, f"hellaswag@{suffix}", accuracies[1], ("acc", "acc_norm"), n=limit),
    ]
    return [made, *measured]


def smollm() -> list[AnyRecord]:
    """A board like that of the main job."""
    return [
        *cells("dense", 20.0), *cells("random", 300.0), *cells("magnitude", 900.0, ratio=1.15),
        *cells("llm_pruner", 45.0, ratio=1.18), *cells("llm_pruner", 32.0, recovery="lora", ratio=1.18),
    ]


def five_hundred() -> list[AnyRecord]:
    """More than five hundred records of two models."""
    records = []
    for model in ("one", "two"):
        records += cells("dense", 12.0, model=model)
        for i, method in enumerate(["random", "magnitude", *KNOWN[:7]]):
            for removed in (0.2, 0.3, 0.4, 0.5):
                who = {"target": f"params={removed}", "removed": removed, "model": model}
                records += cells(method, 13.0 + i + 40 * removed, ratio=1 + removed, **who)
    return records


SCRIPT = """"><script>window.hit=1</script><img src=x onerror="window.hit=1">'{{7*7}}`</td>\n"""
KEPT = {"key", "artifact", "status", "kind", "id", "direction", "created"}
"""Fields that are not free text: the schema takes no other than what they are for."""


def hostile() -> list[AnyRecord]:
    """Records with a script in every field that may hold any text."""
    records = [*cells("dense", 20.0), *cells("random", 60.0), *cells("saap", 40.0, ratio=1.4, removed=0.3)]
    records += [failed_artifact("wanda_sp"), failed(artifact("lora"), "piqa@0shot"), artifact("lora")]
    return [RECORD.validate_python(_with_script(record.model_dump(), record.method)) for record in records]


def _with_script(value: Any, method: str) -> Any:
    if isinstance(value, dict):
        return {
            name: item if name in KEPT or name in ("items", "samples") else
            f"{method} {SCRIPT}" if name == "method" else _with_script(item, method)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_with_script(item, method) for item in value]
    return SCRIPT if isinstance(value, str) else value


def store(results: Path, records: list[AnyRecord]) -> Path:
    for record in records:
        Store(results).write(record)
    return results
