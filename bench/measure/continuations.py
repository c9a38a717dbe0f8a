"""Greedy continuations of fixed beginnings, and how long they agree with those of the dense model.

Meant for reading: a few sentences show what a perplexity does not. Near ties between tokens may be decided
differently on another machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from statistics import mean

import torch
from transformers import GenerationConfig

from bench.measure.encoding import token_ids
from bench.measure.measurement import Measurement, Resources
from bench.measure.subject import Subject
from bench.record.schema import Evidence, Metric
from bench.task import ContinuationTask, Task


def measure(task: Task, spec: ContinuationTask, subject: Subject, resources: Resources) -> Measurement:
    """The texts, and where the dense model is known `agreement`: the share of the new tokens before the first that
    differs from the dense model's, averaged over the beginnings.

    Raises:
        UsageError: the checkpoint has no tokenizer.
    """
    new = int(task.protocol.removeprefix("n"))
    mine = continued(subject, spec.beginnings, new)
    texts = {"beginning": list(spec.beginnings), "measured": _decoded(subject, mine)}
    if subject.dense is None:
        return Measurement([], Evidence(texts=texts))
    subject.release()  # one model at a time
    reference = Subject(subject.dense, None, subject.dtype, subject.device)
    resources.on_progress(1, 2)
    dense = continued(reference, spec.beginnings, new)
    texts["dense"] = _decoded(reference, dense)
    shares = [common(a, b) / new for a, b in zip(mine, dense, strict=True)]
    metric = Metric(
        id=task.metric_id("agreement"), value=mean(shares), unit="fraction", direction="none", n=len(shares)
    )
    return Measurement([metric], Evidence(texts=texts))


def continued(subject: Subject, beginnings: Sequence[str], new: int) -> list[list[int]]:
    """The `new` ids that follow each beginning, all beginnings in one batch; no end-of-sequence token stops them."""
    ids = [torch.tensor(token_ids(subject.tokenizer, text), dtype=torch.long) for text in beginnings]
    width = max(map(len, ids))
    given = torch.stack([torch.nn.functional.pad(row, (width - len(row), 0)) for row in ids])
    seen = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids])
    greedy = GenerationConfig(max_new_tokens=new, do_sample=False, pad_token_id=0, eos_token_id=-1)  # no token
    model = subject.model
    with torch.inference_mode():
        out = model.generate(given.to(model.device), attention_mask=seen.to(model.device), generation_config=greedy)
    found: list[list[int]] = out[:, width:].tolist()
    return found


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many ids two texts have in common before the first difference."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=True)))


def _decoded(subject: Subject, rows: Sequence[Sequence[int]]) -> list[str]:
    return [subject.tokenizer.decode(row, skip_special_tokens=True) for row in rows]
