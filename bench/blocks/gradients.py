"""Backward passes that keep no gradient: each weight's is handed over when it is complete, and freed.

A pass then takes the memory of the weights, the gradient of one matrix and the activations of one block: those of the
others are computed again in the backward pass (Chen et al., arXiv 1604.06174). Sums over many passes that cannot be
reduced pass by pass are kept for a few layers at a time (`parts`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from bench.blocks.settings import KEPT_LEAST, KEPT_SHARE
from bench.method import Progress
from bench.model.layers import head_of, layers_of

Take = Callable[[nn.Parameter, torch.Tensor], None]

NO_LABEL = -100


@contextmanager
def taking(model: PreTrainedModel, weights: Sequence[nn.Parameter], take: Take) -> Iterator[None]:
    """Within the block `backward` hands the gradient of each of `weights` to `take(weight, gradient)`, and frees it.

    Only `weights` require gradients there; afterwards all flags are as before, and no hook and no gradient is left.
    """

    def hand_over(weight: nn.Parameter) -> None:
        gradient, weight.grad = weight.grad, None
        assert gradient is not None
        take(weight, gradient)

    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    hooks = []
    try:
        for parameter, _ in flags:
            parameter.grad = None
            parameter.requires_grad_(False)
        for weight in weights:
            weight.requires_grad_(True)
            hooks.append(weight.register_post_accumulate_grad_hook(hand_over))
        with recomputed(model):
            yield
    finally:
        for hook in hooks:
            hook.remove()
        for parameter, flag in flags:
            parameter.grad = None
            parameter.requires_grad_(flag)


@contextmanager
def recomputed(model: PreTrainedModel) -> Iterator[None]:
    """Within the block, a decoder block's activations are computed again in the backward pass instead of kept."""
    layers = layers_of(model)
    own = [vars(layer).get("forward") for layer in layers]  # of a block in the CPU's memory (`bench.model.place`)
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer, forward in zip(layers, own, strict=True):
            del layer.forward
            if forward is not None:
                layer.forward = forward


def backward(model: PreTrainedModel, ids: torch.Tensor, share: float = 1.0) -> None:
    """One backward pass of `share` of the mean loss of `ids` [rows, tokens], bit for bit that of transformers."""
    labels = F.pad(ids[:, 1:], (0, 1), value=NO_LABEL).flatten()
    with torch.enable_grad():
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        loss = MeanLoss.apply(head_of(model)(hidden).flatten(0, 1), labels)
        (loss * share).backward()


class MeanLoss(torch.autograd.Function):
    """The cross-entropy of logits [tokens, vocabulary] in float32, averaged over the tokens that have a label.

    torch's own needs three tables of that shape in the backward pass; here the gradient overwrites one of two.
    """

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        table = F.log_softmax(logits.float(), dim=-1)
        ctx.save_for_backward(table, labels)
        ctx.dtype = logits.dtype
        return F.nll_loss(table, labels, ignore_index=NO_LABEL)

    @staticmethod
    def backward(ctx: Any, share: torch.Tensor) -> tuple[torch.Tensor, None]:
        table, labels = ctx.saved_tensors
        rows = (labels != NO_LABEL).nonzero().flatten()
        gradient = torch.zeros_like(table)
        gradient[rows, labels[rows]] = -share / len(rows)
        torch._log_softmax_backward_data(gradient, table, -1, torch.float32, out=gradient)
        return gradient.to(ctx.dtype), None


def each_row(model: PreTrainedModel, ids: torch.Tensor, progress: Progress) -> None:
    """A backward pass for each row's own mean loss."""
    for done, row in enumerate(ids.split(1), start=1):
        backward(model, row)
        progress("calibration", done, len(ids))


def in_turn(progress: Progress, turn: int, turns: int) -> Progress:
    """`progress` of one of several passes over the same rows."""
    return lambda what, done, total: progress(what, turn * total + done, turns * total)


def parts(model: PreTrainedModel, weights: Sequence[nn.Parameter], each: int) -> Iterator[list[nn.Parameter]]:
    """`weights` in parts, so that sums of `each` bytes per number stay within the budget; at least one at a time."""
    budget = max(KEPT_LEAST, KEPT_SHARE * sum(p.numel() * p.element_size() for p in model.parameters()))
    part: list[nn.Parameter] = []
    size = 0
    for weight in weights:
        if part and size + each * weight.numel() > budget:
            yield part
            part, size = [], 0
        part.append(weight)
        size += each * weight.numel()
    if part:
        yield part
