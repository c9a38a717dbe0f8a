"""Multiple-choice accuracy through lm-eval as a library.

A stock task is taken as it is by `include:`; only its data source is replaced by files of the local pack. Prompts,
choices, metrics and encoding stay lm-eval's own; `scorer` makes the forward passes. By default a prompt has the special
tokens that the tokenizer adds by itself: LLaMA's puts a BOS before each, SmolLM2's none; `+bos` and `+nobos` say
otherwise. An empty context is replaced by BOS, or by EOS where there is no BOS, under every protocol.
"""

from __future__ import annotations

import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager

from bench.blocks.notice import NOTICE
from bench.data.pack import Pack
from bench.errors import DataError, UsageError, first_line
from bench.lm_eval_tasks import stock_yaml
from bench.measure.measurement import Measurement, Resources
from bench.measure.scorer import quiet
from bench.measure.subject import Subject
from bench.paths import cache_dir
from bench.protocol import Protocol
from bench.record.schema import Evidence, Metric
from bench.task import AccuracyTask, Task

SPLITS = {"training_split": "train", "validation_split": "validation", "test_split": "test"}


def measure(task: Task, spec: AccuracyTask, subject: Subject, resources: Resources) -> Measurement:
    """Accuracy over the first `task.limit` items of the data, or all; one bit per item and metric is kept.

    Answers that an earlier run left in `resources.answers` are not computed again.

    Raises:
        UsageError: lm-eval has no such task, the task has no such metric, or the tokenizer has no BOS for `+bos`.
        DataError: a file of the pack is missing, damaged or not in the form that the stock task reads.
        LeanboardError: the model's log-probabilities are not finite, or a continuation cannot be scored.
    """
    stock = build_task(spec, resources.pack)
    protocol = Protocol.parse(task.protocol)
    lm = subject.scorer.following(resources.on_progress, resources.answers, protocol)
    items = score(stock, lm, task.limit, notice="notice" in protocol.flags)
    missing = [metric for metric in spec.metrics if metric not in items]
    if missing:
        raise UsageError(f"task {spec.name}: metrics: lm-eval's '{spec.lm_eval}' gives no {', '.join(missing)}")
    bits = {metric: items[metric] for metric in spec.metrics}
    for metric in (metric for metric in bits if "?" in bits[metric]):
        raise UsageError(f"task {spec.name}: lm-eval's {metric} is no share of right items: it has parts of an item")
    metrics = [_fraction(task.metric_id(metric), bits[metric]) for metric in bits]
    return Measurement(metrics, Evidence(items=bits, notes=lm.notes))


def score(task: ConfigurableTask, lm: LM, limit: int | None, notice: bool = False) -> dict[str, str]:
    """The bits (1 correct, 0 wrong) of the first `limit` items for each metric of the stock task, in data order.

    A metric whose value for an item is neither has a '?' there.

    With `notice`, that text stands before every context; what is scored stays the same.
    """
    requests = build_requests(task, limit)
    for request in requests if notice else []:
        context, continuation = request.args
        request.arguments = (NOTICE + context, continuation)
    for request, answer in zip(requests, lm.loglikelihood(requests), strict=True):
        request.resps.append(answer)
    task.apply_filters()
    answers: dict[int, list[tuple[float, bool]]] = {}
    for request in sorted(requests, key=lambda r: (r.doc_id, r.idx)):
        (answer,) = request.filtered_resps.values()
        answers.setdefault(request.doc_id, []).append(answer)
    bits: dict[str, str] = {}
    for doc_id, doc in task.doc_iterator(rank=0, limit=limit, world_size=1):
        for metric, value in task.process_results(doc, answers[doc_id]).items():
            bits[metric] = bits.get(metric, "") + ("1" if value == 1 else "0" if value == 0 else "?")
    return bits


def build_requests(task: ConfigurableTask, limit: int | None) -> list[Instance]:
    """lm-eval's requests (context, continuation) for the first `limit` items, zero-shot."""
    with quiet():
        task.build_all_requests(limit=limit, rank=0, world_size=1)
    return list(task.instances)


def build_task(spec: AccuracyTask, pack: Pack) -> ConfigurableTask:
    """The stock task, reading its data from `pack`."""
    config = task_config(spec, pack)
    with TemporaryDirectory() as folder, quiet():
        file = Path(folder) / f"{spec.name}.yaml"
        file.write_text(yaml.safe_dump(config), encoding="utf-8")
        try:
            return TaskManager(include_defaults=False).load(str(file))["tasks"][spec.name]
        except Exception as error:  # lm-eval and datasets raise anything here
            read = ", ".join(config["dataset_kwargs"]["data_files"].values())
            raise DataError(f"{read}: not as lm-eval's '{spec.lm_eval}' reads it ({first_line(error)})") from error


def task_config(spec: AccuracyTask, pack: Pack) -> dict[str, Any]:
    """The content of lm-eval's task file: the stock task with its data from `pack`."""
    files = {split: str(pack.path(ref)) for split, ref in spec.splits.items()}
    return {
        "include": str(stock_yaml(spec.lm_eval)),
        "task": spec.name,
        "dataset_path": "parquet",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files, "cache_dir": str(cache_dir() / "datasets")},
        "num_fewshot": 0,
        **{role: split if split in files else None for role, split in SPLITS.items()},
        "fewshot_split": None,
    }


def _fraction(metric_id: str, bits: str) -> Metric:
    n = len(bits)
    value = bits.count("1") / n
    stderr = math.sqrt(value * (1 - value) / (n - 1)) if n > 1 else None
    return Metric(id=metric_id, value=value, unit="fraction", direction="higher", n=n, stderr=stderr)
