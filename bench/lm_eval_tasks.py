"""lm-eval's own tasks by their names, without a file of ours. Its files are read as text; lm-eval is not imported.

A task can be measured where its data is a split of the model hub and its answers are scored or generated. The split
comes into the data pack as any other text, so that a run works offline once it is there, and its content is part of
every key. lm-eval's version of the task and a hash of the files that define it are part of the key too.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import Any

from pydantic import Field

from bench.errors import UsageError
from bench.lm_eval_files import evaluated_split, examples_of, find, resolved
from bench.record.kinds import kind_of
from bench.task_accuracy import AccuracyTask, LmEvalTask
from bench.task_exact_match import ExactMatchTask, filtered
from bench.yamlfile import validated

LOADERS = ("json", "csv", "parquet", "text", "arrow", "webdataset")
"""Dataset paths that are no repository but a form of files."""


class StockTask(LmEvalTask):
    """A task of lm-eval by its name, without a file of ours."""

    lm_eval_version: str = Field(description="lm-eval's version of the task")
    definition: str = Field(description="hash of the files that define it in lm-eval")


class StockChoice(StockTask, AccuracyTask):
    """One whose answers are scored."""


class StockAnswer(StockTask, ExactMatchTask):
    """One that generates."""


OUTPUT_TYPES: dict[str, tuple[str, type[StockTask]]] = {
    "multiple_choice": ("accuracy", StockChoice),
    "loglikelihood": ("accuracy", StockChoice),
    "generate_until": ("exact_match", StockAnswer),
}


@lru_cache
def stock_task(name: str) -> StockTask | None:
    """lm-eval's task `name` as a task of ours; None where lm-eval has none of that name.

    Raises:
        UsageError: it cannot be measured here, with the reason.
    """
    file = find(name)
    if file is None:
        return None
    files, config = resolved(file)
    kind, form = OUTPUT_TYPES[_output_type(name, config)]
    metrics, examples = _metrics(name, config), examples_of(config)
    return validated(
        form,
        {
            "name": name,
            "kind": kind,
            "description": f"lm-eval's own task {name}.",
            "lm_eval": name,
            "lm_eval_version": str((config.get("metadata") or {}).get("version", "not stated")),
            "definition": hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:12],
            "splits": {"test" if config.get("test_split") else "validation": _ref(config, evaluated_split(config))},
            "examples": _ref(config, examples.split) if examples.split and not examples.is_evaluated else None,
            "metrics": metrics,
            "headline": metrics[0],
        },
        file,
    )


def _output_type(name: str, config: dict[str, Any]) -> str:
    """Raises UsageError where the task cannot be measured, or not on a split of the model hub."""
    kind, path = config.get("output_type", "generate_until"), config.get("dataset_path")
    if kind not in OUTPUT_TYPES:
        measured = ", ".join(OUTPUT_TYPES)
        raise UsageError(f"task {name}: lm-eval's output type '{kind}' is not measured; {measured} are")
    if config.get("unsafe_code"):
        raise UsageError(f"task {name}: lm-eval runs what the model writes, which is not done here")
    if not isinstance(path, str) or path in LOADERS or config.get("dataset_kwargs") or "custom_dataset" in config:
        raise UsageError(f"task {name}: lm-eval does not read its data from a split of the model hub")
    if evaluated_split(config) is None:
        raise UsageError(f"task {name}: lm-eval names no test or validation split for it")
    return str(kind)


def _ref(config: dict[str, Any], split: Any) -> str:
    """A ref for a split of the task's data, which is made known as a source of the model hub."""
    from bench.data.sources import register

    path, name = config["dataset_path"], config.get("dataset_name")
    where = " ".join(filter(None, (path, name)))
    folder, file = (re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") for text in (where, split))
    ref = f"{folder}_{hashlib.sha256(f'{where} {split}'.encode()).hexdigest()[:6]}/{file}"
    register(ref, path, name, split)
    return ref


def _metrics(name: str, config: dict[str, Any]) -> list[str]:
    """Its metrics that are shares of right items. Raises UsageError where there is none."""
    usual = "exact_match" if config.get("output_type", "generate_until") == "generate_until" else "acc"
    listed = [entry["metric"] for entry in config.get("metric_list") or [{"metric": usual}]]
    filters = [entry["name"] for entry in config.get("filter_list") or [{"name": ""}]]
    texts = [text for text in listed if isinstance(text, str)]
    named = [filtered(text, number, what) for number, what in enumerate(filters) for text in texts]
    shares = [metric for metric in named if kind_of(f"{name}.{metric}").is_share]
    if not shares:
        raise UsageError(f"task {name}: none of lm-eval's metrics for it ({', '.join(map(str, listed))}) is measured")
    return shares
