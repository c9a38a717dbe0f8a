"""Boards of synthetic records."""

from pathlib import Path

from bench.record.schema import MeasureRecord
from bench.record.store import AnyRecord, Store
from bench.task import TaskGroup
from tests.record.records import accuracy, artifact, perplexity, size, speed

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


def store(results: Path, records: list[AnyRecord]) -> Path:
    for record in records:
        Store(results).write(record)
    return results
