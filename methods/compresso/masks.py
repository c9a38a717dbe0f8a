"""Masks on the groups of a decoder: applied in its forward pass, and made real by slicing.

Three kinds of masks (Compresso, arXiv 2310.05015, §3.2): one mask for each key/value head, which the query heads that
read it share (in plain multi-head attention each has its own), one for each MLP channel, one for each hidden dimension.
A head's mask multiplies its attention output before the output projection, a channel's both gate and up, a hidden
dimension's the embedding and what attention and MLP add. A hidden dimension whose mask is 0 is 0 all through the
network, while the norms go on averaging over all dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from bench.blocks.groups import (
    BlockKept,
    Kept,
    average_over_fewer,
    blocks_of,
    embedding_of,
    final_norm_of,
    head_of,
    prune,
    query_heads,
    shape_of,
)

Pick = Callable[["Values"], torch.Tensor]


@dataclass(frozen=True)
class Values:
    """The masks of a model, each in [0, 1]: by block [key/value heads] and [channels], and [hidden]."""

    heads: tuple[torch.Tensor, ...]
    channels: tuple[torch.Tensor, ...]
    hidden: torch.Tensor


@contextmanager
def masked(model: PreTrainedModel, values: Callable[[], Values | None]) -> Iterator[None]:
    """Within the block, the forward passes of `model` are masked by `values()`, called before each; None: unmasked.

    Adapters must be in place before, and may be merged only after the block.
    """
    now: list[Values | None] = [None]

    def ask(module: nn.Module, inputs: Any) -> None:
        now[0] = values()

    def times(pick: Pick, x: torch.Tensor) -> torch.Tensor:
        if now[0] is None:
            return x
        mask = pick(now[0]).to(x.device)
        return x * mask.repeat_interleave(x.shape[-1] // len(mask)).to(x.dtype)

    def inputs_times(pick: Pick) -> Callable[..., torch.Tensor]:
        return lambda module, inputs: times(pick, inputs[0])

    def output_times(pick: Pick) -> Callable[..., torch.Tensor]:
        return lambda module, inputs, output: times(pick, output)

    with ExitStack() as stack:
        stack.callback(model.register_forward_pre_hook(ask).remove)
        stack.callback(embedding_of(model).register_forward_hook(output_times(_hidden)).remove)
        for block in blocks_of(model):
            stack.callback(block.o.register_forward_pre_hook(inputs_times(_heads(block.index))).remove)
            for linear in (block.gate, block.up):
                stack.callback(linear.register_forward_hook(output_times(_channels(block.index))).remove)
            for linear in (block.o, block.down):
                stack.callback(linear.register_forward_hook(output_times(_hidden)).remove)
        yield


def fold(model: PreTrainedModel, values: Values) -> PreTrainedModel:
    """The model that computes what `model` computes under `values`, without masks: scaled and sliced.

    Masks go into the rows that they multiply: heads into v, channels into gate and up, hidden dimensions into the
    embedding, o and down. Norms are corrected for the hidden dimensions that go, which is exact
    (`average_over_fewer`). A head tied to the embedding is scaled with it; dividing the final norm's weight by the mask
    undoes that, exactly too. Compresso's published merge leaves the embedding unmasked, which its training does not.

    `model` is handed over, as to `prune`.

    Raises:
        MethodError: a module's masks are all 0.
    """
    kept = kept_by(model, values)
    ratio = values.hidden.numel() / int(torch.count_nonzero(values.hidden))
    tied = head_of(model).weight is embedding_of(model).weight
    with torch.no_grad():
        for block in blocks_of(model):
            _scale(block.v, values.heads[block.index])
            for linear in (block.gate, block.up):
                _scale(linear, values.channels[block.index])
            for linear in (block.o, block.down):
                _scale(linear, values.hidden)
        embedding_of(model).weight *= values.hidden.to(model.dtype)
        average_over_fewer(model, ratio)
        if tied:
            final_norm_of(model).weight /= torch.where(values.hidden > 0, values.hidden, 1).to(model.dtype)
    return prune(model, kept)


def kept_by(model: PreTrainedModel, values: Values) -> Kept:
    """What the masks that are not 0 keep."""
    shape = shape_of(model)
    blocks = {
        i: BlockKept(query_heads(block, _positive(values.heads[i])), _positive(values.channels[i]))
        for i, block in enumerate(shape.blocks)
    }
    hidden = _positive(values.hidden)
    return Kept(blocks, None if len(hidden) == shape.hidden else hidden)


def _heads(layer: int) -> Pick:
    return lambda values: values.heads[layer]


def _channels(layer: int) -> Pick:
    return lambda values: values.channels[layer]


def _hidden(values: Values) -> torch.Tensor:
    return values.hidden


def _positive(mask: torch.Tensor) -> tuple[int, ...]:
    return tuple(mask.nonzero().flatten().tolist())


def _scale(linear: nn.Linear, mask: torch.Tensor) -> None:
    """Multiply the rows of `linear` by `mask`, each entry of which stands for equally many."""
    rows = mask.repeat_interleave(linear.out_features // len(mask)).to(linear.weight)
    linear.weight *= rows.unsqueeze(1)
    if linear.bias is not None:
        linear.bias *= rows
