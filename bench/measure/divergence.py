"""How far a model's next tokens are from the dense model's, on the windows of a text.

Each model is loaded by itself: of the first, the vectors before its head are kept, and the head. Logits of both are
made a slice of positions at a time, so that the full vocabulary counts.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from bench.data.files import read_json
from bench.errors import LeanboardError, UsageError
from bench.measure.measurement import Measurement, Resources
from bench.measure.perplexity import batches_of, rows_of
from bench.measure.subject import Subject
from bench.model.layers import head_of
from bench.model.load import load_tokenizer
from bench.record.kinds import form_of
from bench.record.schema import Evidence, Metric, Windows
from bench.task import Task
from bench.task_divergence import DivergenceTask

POSITIONS_PER_SLICE = 128


def measure(task: Task, spec: DivergenceTask, subject: Subject, resources: Resources) -> Measurement:
    """Over the first `task.limit` windows, or all: `kl`, nats per token of the dense model's next token against this
    model's, and `top1`, the share of positions where both hold the same token for the likeliest.

    A window has as many positions as a perplexity has targets: one less than tokens.

    Raises:
        UsageError: no dense model is known, or it has another vocabulary or no tokenizer; or as `rows_of`.
        LeanboardError: a model's logits are not finite.
    """
    if subject.dense is None:
        raise UsageError(f"task {task.id}: it needs the dense model that the checkpoint was made from")
    dense = Subject(subject.dense, None, subject.dtype, subject.device)
    _check_vocabularies(task, subject, dense)
    assert spec.source is not None  # `tasks_named` looks it up
    rows, _ = rows_of(task, spec.source, task.protocol.partition("/")[2], subject, resources.pack)
    batches, count = batches_of(rows), len(rows)
    mine = []
    for batch in batches:
        mine.append(hidden_of(subject.model, batch).cpu())
        resources.on_progress(sum(map(len, mine)), 2 * count)
    head = head_of(subject.model)
    subject.release()  # one model at a time; the head stays
    kl: list[float] = []
    same: list[float] = []
    for batch, hidden in zip(batches, mine, strict=True):
        there = hidden_of(dense.model, batch)
        for found, sums in zip((kl, same), divergences(head_of(dense.model), there, head, hidden), strict=True):
            found += sums.tolist()
        resources.on_progress(count + len(kl), 2 * count)
    dense.release()
    bad = sum(not math.isfinite(value) for value in kl)
    if bad:
        raise LeanboardError(f"task {task.id}: the logits are not finite in {bad} of {count} windows")
    targets = [rows.shape[1] - 1] * count
    sums = {"kl": Windows(nll=kl, targets=targets), "top1": Windows(nll=same, targets=targets)}
    return Measurement([_metric(task.metric_id(name), windows) for name, windows in sums.items()], Evidence(sums=sums))


def hidden_of(model: PreTrainedModel, rows: torch.Tensor) -> torch.Tensor:
    """What `model` hands to its head at each position of `rows`, int64 [batch, length], but the last:
    [batch, length - 1, hidden]."""
    with torch.inference_mode():
        return model.base_model(rows.to(model.device), use_cache=False).last_hidden_state[:, :-1].contiguous()


def divergences(
    dense_head: nn.Module, dense: torch.Tensor, head: nn.Module, hidden: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each row of hidden states [batch, positions, hidden]: the sum of the Kullback-Leibler divergences (nats) of
    its positions, dense ‖ this model, and at how many of them both have the same likeliest token; float64 [batch].

    Log-probabilities are float32, by slices of positions.
    """
    found = [torch.zeros(len(dense), dtype=torch.float64) for _ in range(2)]
    step = max(1, POSITIONS_PER_SLICE // len(dense))
    with torch.inference_mode():
        for start in range(0, dense.shape[1], step):
            part = slice(start, start + step)
            p = F.log_softmax(dense_head(dense[:, part]).float(), dim=-1)
            q = F.log_softmax(head(hidden[:, part].to(dense.device)).float(), dim=-1)
            found[1] += (p.argmax(dim=-1) == q.argmax(dim=-1)).sum(dim=1).cpu()
            found[0] += q.neg_().add_(p).mul_(p.exp_()).sum(dim=(1, 2), dtype=torch.float64).cpu()
    return found[0], found[1]


def _check_vocabularies(task: Task, subject: Subject, dense: Subject) -> None:
    """Both models take the ids of this model's tokenizer, so each id must be the same token to both.

    Ids that one of the tokenizers does not use are no difference, such as a chat model's marks.
    """
    size, its = (int(read_json(one.path / "config.json")["vocab_size"]) for one in (subject, dense))
    if size != its:
        raise UsageError(f"task {task.id}: the dense model {dense.path} has {its} tokens in its vocabulary, not {size}")
    if subject.path == dense.path:
        return
    mine, theirs = _tokens(subject), _tokens(dense)
    if mine and not theirs:
        raise UsageError(f"task {task.id}: the dense model {dense.path} has no tokenizer: its tokens may be other ones")
    differ = sorted(i for i in mine.keys() & theirs.keys() if i < size and mine[i] != theirs[i])
    if differ:
        first = differ[0]
        raise UsageError(
            f"task {task.id}: the dense model {dense.path} has {len(differ)} other tokens in its vocabulary, the first "
            f"of id {first}: '{theirs[first]}', not '{mine[first]}'"
        )


def _tokens(subject: Subject) -> dict[int, str]:
    """The token of each id; nothing where the checkpoint has no tokenizer."""
    tokenizer = load_tokenizer(subject.path)
    return {} if tokenizer is None else {i: token for token, i in tokenizer.get_vocab().items()}


def _metric(id_: str, windows: Windows) -> Metric:
    means = torch.tensor(windows.nll, dtype=torch.float64) / torch.tensor(windows.targets)
    form, n = form_of(id_), sum(windows.targets)
    stderr = float(means.std()) / math.sqrt(len(means)) if len(means) > 1 else None
    value = sum(windows.nll) / n
    return Metric(id=id_, value=value, unit=form.unit, direction=form.direction, n=n, stderr=stderr)
