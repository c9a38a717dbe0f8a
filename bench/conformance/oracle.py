"""What a pruned model must compute: the dense model, with all that is not kept put to zero."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from transformers import PreTrainedModel

from bench.model.layers import blocks_of, embedding_of, family_of, final_norm_of, shape_of
from bench.shape import Kept


def zero_all_but(dense: PreTrainedModel, kept: Kept) -> None:
    """Make `dense` compute what the model that keeps `kept` of it must, without taking anything out of it, in place.

    Removed heads and channels are columns of zeros in what ends their module, removed blocks modules that add nothing.
    Removed hidden dimensions are 0 in the embedding and in all that is added to it, and norms average over the others.
    """
    shape = shape_of(dense)
    with torch.no_grad():
        for block in blocks_of(dense):
            mine = kept.blocks.get(block.index)
            if mine is None:
                _zero(block.o, range(0))
                _zero(block.down, range(0))
                continue
            columns = [head * shape.head_dim + i for head in mine.heads for i in range(shape.head_dim)]
            block.o.weight[:, _others(columns, block.o.in_features)] = 0
            block.down.weight[:, _others(mine.channels, block.down.in_features)] = 0
        if kept.hidden is not None:
            _zero_hidden(dense, kept.hidden)


def _zero_hidden(dense: PreTrainedModel, hidden: Sequence[int]) -> None:
    epsilon = getattr(dense.config, family_of(dense).epsilon)
    embedding_of(dense).weight[:, _others(hidden, shape_of(dense).hidden)] = 0
    norms = [final_norm_of(dense)]
    for block in blocks_of(dense):
        _zero(block.o, hidden)
        _zero(block.down, hidden)
        norms += [block.attention_norm, block.mlp_norm]
    for norm in norms:
        norm.register_forward_hook(lambda norm, args, _: _norm(norm, args[0], hidden, epsilon))


def _norm(norm: nn.Module, x: torch.Tensor, hidden: Sequence[int], epsilon: float) -> torch.Tensor:
    """An RMS norm whose mean is over `hidden` alone."""
    return norm.weight * x * (x[..., list(hidden)].square().mean(-1, keepdim=True) + epsilon).rsqrt()


def _zero(linear: nn.Linear, rows: Sequence[int]) -> None:
    """All rows but `rows`, biases too."""
    for parameter in linear.parameters():
        parameter[_others(rows, len(parameter))] = 0


def _others(kept: Sequence[int], size: int) -> list[int]:
    return sorted(set(range(size)) - set(kept))
