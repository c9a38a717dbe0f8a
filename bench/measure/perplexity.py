"""Perplexity of one text in windows without overlap.

Source: LLM-Pruner's protocol (its published code): rows joined, tokenised once, the tail dropped, exp of the mean
negative log-likelihood over all targets. A BOS stands at most at the very start of the text, not of every window:
where the tokenizer puts it there by itself, or the protocol says so (`2048+bos`, `2048+nobos`).

Bits per byte are the same losses over the UTF-8 bytes of the targets, so that tokenizers do not matter.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from bench.data.pack import Pack
from bench.errors import LeanboardError, UsageError
from bench.measure.encoding import ids_and_bytes
from bench.measure.measurement import Measurement, Resources
from bench.measure.ratio import bits_per_byte
from bench.measure.subject import Subject
from bench.model.layers import head_of
from bench.protocol import Protocol
from bench.record.schema import Evidence, Metric, Windows
from bench.task import PerplexityTask, Task
from bench.task_divergence import Text

TOKENS_PER_FORWARD = 2048
POSITIONS_PER_SLICE = 256
NO_BYTES = "no bits per byte: the tokenizer does not say which characters the tokens of each window hold"


def measure(task: Task, spec: PerplexityTask, subject: Subject, resources: Resources) -> Measurement:
    """Perplexity (`ppl_token`) and `bits_per_byte` over the first `task.limit` windows, or all.

    `n` counts target tokens: window length - 1 of each window. The standard error comes from the spread of the windows'
    mean losses by the delta method.

    Raises:
        UsageError: the text has fewer tokens than one window, or the tokenizer has no BOS for `+bos`.
        LeanboardError: the model's loss is not finite.
    """
    rows, sizes = rows_of(task, spec, task.protocol, subject, resources.pack)
    losses: list[float] = []
    for chunk in batches_of(rows):
        losses += window_losses(subject.model, chunk)
        resources.on_progress(len(losses), len(rows))
    if not all(math.isfinite(loss) for loss in losses):
        raise LeanboardError(f"task {task.id}: the model's loss is not finite in {_not_finite(losses)} windows")
    targets = rows.shape[1] - 1
    metric = _perplexity(task.metric_id("ppl_token"), losses, targets)
    evidence = Evidence(windows=Windows(nll=losses, targets=[targets] * len(losses)))
    if not sizes or min(sizes) < 1:
        return Measurement([metric], evidence.model_copy(update={"notes": [NO_BYTES]}))
    bits = bits_per_byte(task.metric_id("bits_per_byte"), losses, sizes)
    sums = {"bits_per_byte": Windows(nll=losses, targets=sizes)}
    return Measurement([metric, bits], evidence.model_copy(update={"sums": sums}))


def rows_of(
    task: Task, source: PerplexityTask | Text, protocol: str, subject: Subject, pack: Pack
) -> tuple[torch.Tensor, list[int] | None]:
    """The windows that `task` reads of the text of `source`, int64 [windows, length], and the UTF-8 bytes of each one's
    targets, where the tokenizer tells them; `protocol`: `128`, `128+nobos`.

    Raises:
        UsageError: the text has fewer tokens than one window, or the tokenizer has no BOS for `+bos`.
    """
    parsed = Protocol.parse(protocol)
    text = source.join.join(pack.column(source.text, source.column))
    ids, ends = ids_and_bytes(subject.tokenizer, text, parsed.bos)
    length = int(parsed.asked)
    try:
        rows = windows(torch.tensor(ids, dtype=torch.long), length)[: task.limit]
    except ValueError as error:
        raise UsageError(f"task {task.id}: {source.text}: {error}") from error
    begins = range(0, rows.numel(), length)
    return rows, ends and [ends[start + length - 1] - ends[start] for start in begins]


def batches_of(rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Windows [windows, length] in batches for one forward pass each."""
    found: tuple[torch.Tensor, ...] = rows.split(max(1, TOKENS_PER_FORWARD // rows.shape[1]))
    return found


def windows(ids: torch.Tensor, length: int) -> torch.Tensor:
    """Cut `ids` [n] into windows [n // length, length] without overlap; the tail is dropped.

    Raises:
        ValueError: there are fewer ids than one window takes.
    """
    count = len(ids) // length
    if count == 0:
        raise ValueError(f"the text has {len(ids)} tokens, fewer than one window of {length}")
    return ids[: count * length].view(count, length)


def window_losses(model: PreTrainedModel, rows: torch.Tensor) -> list[float]:
    """Summed negative log-likelihood (nats) of each window's tokens but the first; `rows` is int64 [batch, length].

    Logits are made and normalised in float32 a slice of positions at a time, never for the whole window.
    """
    rows = rows.to(model.device)
    targets, head = rows[:, 1:], head_of(model)
    total = torch.zeros(len(rows), dtype=torch.float64)
    step = max(1, POSITIONS_PER_SLICE // len(rows))
    with torch.inference_mode():
        hidden = model.base_model(rows, use_cache=False).last_hidden_state[:, :-1]
        for start in range(0, targets.shape[1], step):
            logits = head(hidden[:, start : start + step]).float()
            wanted = targets[:, start : start + step]
            # With the vocabulary on another axis than the last, torch sums exponentials coarsely: 1e-4 nats too low.
            nll = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none")
            total += nll.view(len(rows), -1).double().sum(dim=1).cpu()
    return [float(loss) for loss in total]


def _perplexity(metric_id: str, losses: list[float], targets: int) -> Metric:
    means = torch.tensor(losses, dtype=torch.float64) / targets
    mean = float(means.mean())
    if mean > 700:
        raise LeanboardError(f"{metric_id}: the mean loss is {mean:.0f} nats; its exponential is too large for a float")
    value = math.exp(mean)
    stderr = value * float(means.std()) / math.sqrt(len(losses)) if len(losses) > 1 else None
    return Metric(id=metric_id, value=value, unit="ppl", direction="lower", n=targets * len(losses), stderr=stderr)


def _not_finite(losses: list[float]) -> str:
    return f"{sum(not math.isfinite(loss) for loss in losses)} of {len(losses)}"
