"""Multiple-choice accuracy through lm-eval as a library.

Prompts, choices, metrics and encoding are lm-eval's own (`stock_tasks`); `scorer` makes the forward passes. By default
a prompt has the special tokens that the tokenizer adds by itself: LLaMA's puts a BOS before each, SmolLM2's none;
`+bos` and `+nobos` say otherwise. An empty context is replaced by BOS, or by EOS where there is no BOS, under every
protocol.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask

from bench.blocks.notice import NOTICE
from bench.errors import UsageError
from bench.measure.answers import Answer
from bench.measure.chat import Chat, chat_of
from bench.measure.measurement import Measurement, Resources
from bench.measure.stock_tasks import ZERO_SHOT, build_requests, build_tasks
from bench.measure.subject import Subject
from bench.protocol import Protocol
from bench.record.kinds import form_of
from bench.record.schema import Evidence, Metric
from bench.record.shares import NUMBERS, share_of
from bench.task import Task
from bench.task_accuracy import AccuracyTask, ChoiceTask


@dataclass(frozen=True)
class Items:
    """By metric, one character for each item: '1' right, '0' wrong, '?' neither; and the number of the chosen answer.

    `parts` counts the items of each part of the data, in order.
    """

    bits: dict[str, str] = field(default_factory=dict)
    chosen: dict[str, str] = field(default_factory=dict)
    parts: list[int] = field(default_factory=list)


def measure(task: Task, spec: ChoiceTask, subject: Subject, resources: Resources) -> Measurement:
    """Accuracy over the first `task.limit` items of each part of the data, or all; one bit per item and metric is kept.

    Answers that an earlier run left in `resources.answers` are not computed again.

    Raises:
        UsageError: lm-eval has no such task, the task has no such metric or not so many examples, or the tokenizer has
            no BOS for `+bos` or no chat template for `+chat`, or one that fails.
        DataError: a file of the pack is missing, damaged or not in the form that the stock task reads.
        LeanboardError: the model's log-probabilities are not finite, or a continuation cannot be scored.
    """
    protocol = Protocol.parse(task.protocol)
    stock = build_tasks(spec, resources.pack, protocol)
    lm = subject.scorer.following(resources.on_progress, resources.answers, protocol)
    chat = chat_of(lm, protocol)
    items = score(list(stock.values()), lm, task.limit, protocol, chat)
    over = {metric: _of_items(metric, spec) for metric in spec.metrics}
    missing = [metric for metric, name in over.items() if name not in items.bits]
    if missing:
        raise UsageError(f"task {spec.name}: metrics: lm-eval gives no {', '.join(missing)}")
    bits = {metric: items.bits[name] for metric, name in over.items()}
    for metric in (metric for metric in bits if "?" in bits[metric]):
        raise UsageError(f"task {spec.name}: lm-eval's {metric} is no share of right items: it has parts of an item")
    parts = dict(zip(stock, items.parts, strict=True)) if "" not in stock else {}
    evidence = Evidence(
        items=bits,
        chosen={metric: items.chosen[name] for metric, name in over.items() if name in items.chosen},
        parts=parts,
        notes=[*lm.notes, *(chat.notes if chat else [])],
    )
    return Measurement([_fraction(task.metric_id(metric), bits[metric], parts.values()) for metric in bits], evidence)


def score(
    tasks: Sequence[ConfigurableTask],
    lm: LM,
    limit: int | None,
    protocol: Protocol = ZERO_SHOT,
    chat: Chat | None = None,
) -> Items:
    """The first `limit` items of each task, in order, scored at once.

    With `+notice`, that text stands before every context; what is scored stays the same.
    """
    requests = [request for task in tasks for request in build_requests(task, limit, protocol, chat)]
    for request in requests if "notice" in protocol.flags else []:
        context, continuation = request.args
        request.arguments = (NOTICE + context, continuation)
    for request, answer in zip(requests, lm.loglikelihood(requests), strict=True):
        request.resps.append(answer)
    bits: dict[str, list[str]] = {}
    chosen: dict[str, list[str]] = {}
    parts = []
    for task in tasks:
        task.apply_filters()
        answers = _by_item(task)
        parts.append(len(answers))
        for number, doc in task.doc_iterator(rank=0, limit=limit, world_size=1):
            for metric, value in task.process_results(doc, answers[number]).items():
                bits.setdefault(metric, []).append("1" if value == 1 else "0" if value == 0 else "?")
            for metric, choice in _chosen(task, doc, answers[number]).items():
                chosen.setdefault(metric, []).append(NUMBERS[choice])
    return Items(
        {metric: "".join(found) for metric, found in bits.items()},
        {metric: "".join(found) for metric, found in chosen.items() if len(found) == sum(parts)},
        parts,
    )


def _by_item(task: ConfigurableTask) -> dict[int, list[Answer]]:
    """The answers to the requests of each item, in the order of its choices."""
    answers: dict[int, list[Answer]] = {}
    for request in sorted(task.instances, key=lambda request: (request.doc_id, request.idx)):
        (answer,) = request.filtered_resps.values()
        answers.setdefault(request.doc_id, []).append(answer)
    return answers


def _chosen(task: ConfigurableTask, doc: Any, answers: Sequence[Answer]) -> dict[str, int]:
    """The number of the answer that lm-eval's metrics take as the model's; none where a task counts in its own way."""
    if task.OUTPUT_TYPE != "multiple_choice" or callable(task.config.process_results):
        return {}
    choices = task.doc_to_choice(doc)
    if len(choices) > len(NUMBERS):
        return {}
    logp = np.array([logp for logp, _ in answers[: len(choices)]])
    length = np.array([float(len(text)) for text in choices])
    return {"acc": int(np.argmax(logp)), "acc_norm": int(np.argmax(logp / length))}


def _of_items(metric: str, spec: ChoiceTask) -> str:
    """lm-eval's metric that a metric is made of: itself, but for a mean over parts ('acc_by_subject')."""
    for by in (isinstance(spec, AccuracyTask) and spec.by) or ():
        metric = metric.removesuffix(f"_by_{by}")
    return metric


def _fraction(metric_id: str, bits: str, parts: Iterable[int]) -> Metric:
    value, stderr = share_of(bits, list(parts) if form_of(metric_id).over_parts else [])
    return Metric(id=metric_id, value=value, unit="fraction", direction="higher", n=len(bits), stderr=stderr)
