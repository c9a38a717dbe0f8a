"""Coupled groups: what must be removed together for a decoder to stay whole (LLM-Pruner, §3.1).

An attention group is a key/value head with the query heads that read it (one in plain multi-head attention), an MLP
group is one channel, a hidden group is one dimension of the residual stream. Each has members: slices of weights with
the same index. Scores of groups are float32 vectors in the model's order of heads, channels or dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from bench.errors import MethodError
from bench.families import ATTENTION, MLP, PROJECTIONS
from bench.family import Axis
from bench.model.layers import Block, blocks_of, embedding_of, final_norm_of, head_of, shape_of
from bench.model.surgery import average_over_fewer, kept_of, prune
from bench.shape import BlockKept, BlockShape, Kept, Shape

__all__ = [
    "Block",
    "BlockKept",
    "BlockShape",
    "Kept",
    "Member",
    "Scores",
    "Shape",
    "attention_members",
    "average_over_fewer",
    "blocks_of",
    "embedding_of",
    "final_norm_of",
    "head_of",
    "hidden_members",
    "keep_groups",
    "kept_of",
    "mlp_members",
    "prune",
    "pruned_layers",
    "query_heads",
    "shape_of",
]


@dataclass(frozen=True)
class Member:
    """A weight and the dimension of it that a score sums away: 1 where the group owns rows, 0 where it owns columns."""

    weight: nn.Parameter
    dim: int


@dataclass(frozen=True)
class Scores:
    """What each group is worth: layer to float32 vector, [key/value heads] for `attention`, [channels] for `mlp`."""

    attention: Mapping[int, torch.Tensor]
    mlp: Mapping[int, torch.Tensor]


def attention_members(block: Block) -> list[Member]:
    """The members of a block's attention groups, in the order of execution: rows of q, k, v, columns of o."""
    return _members(block, (Axis.QUERY, Axis.KV))


def mlp_members(block: Block) -> list[Member]:
    """The members of a block's MLP groups, in the order of execution: rows of gate and up, columns of down."""
    return _members(block, (Axis.CHANNELS,))


def hidden_members(model: PreTrainedModel) -> list[Member]:
    """The members of the hidden groups through the whole network; a tied head is the embedding and counts once."""
    members = [Member(embedding_of(model).weight, 0)]
    for block in blocks_of(model):
        attention, mlp = _members(block, (Axis.HIDDEN,), ATTENTION), _members(block, (Axis.HIDDEN,), MLP)
        members += [Member(block.attention_norm.weight, 1), *attention, Member(block.mlp_norm.weight, 1), *mlp]
    members.append(Member(final_norm_of(model).weight, 1))
    if head_of(model).weight is not embedding_of(model).weight:
        members.append(Member(head_of(model).weight, 0))
    return members


def _members(block: Block, axes: Sequence[Axis], names: Sequence[str] = PROJECTIONS) -> list[Member]:
    """Those of the projections `names` whose rows or columns stand for one of `axes`."""
    return [
        Member(block.linear(table.name).weight, 1 if table.rows in axes else 0)
        for table in block.family.projections
        if table.name in names and {table.rows, table.columns} & set(axes)
    ]


def query_heads(block: BlockShape, groups: Iterable[int]) -> tuple[int, ...]:
    """The query heads of the attention groups `groups`: group c owns heads c·n_rep to (c+1)·n_rep - 1."""
    n_rep = block.heads // block.kv_heads
    return tuple(c * n_rep + i for c in sorted(groups) for i in range(n_rep))


def keep_groups(shape: Shape, attention: Mapping[int, Sequence[int]], mlp: Mapping[int, Sequence[int]]) -> Kept:
    """The `Kept` with these attention groups and channels by layer; layers that are not named stay whole."""
    blocks = dict(shape.keep_all().blocks)
    for layer, whole in blocks.items():
        heads = query_heads(shape.blocks[layer], attention[layer]) if layer in attention else whole.heads
        channels = tuple(sorted(mlp[layer])) if layer in mlp else whole.channels
        blocks[layer] = BlockKept(heads, channels)
    return Kept(blocks)


def pruned_layers(layers: tuple[int, int] | None, n_blocks: int) -> range:
    """The blocks that are pruned: `layers` as [first, last), or by default all but the outer ones.

    By default the first 4 and the last 2 blocks stay whole (LLM-Pruner's 20 % recipe); a model of
    fewer than 16 blocks keeps n_blocks // 4 of them at the start, and at most as many at the end.

    Raises:
        MethodError: `layers` reaches beyond the model.
    """
    if layers is None:
        return range(min(4, n_blocks // 4), n_blocks - min(2, n_blocks // 4))
    if layers[1] > n_blocks:
        raise MethodError(f"layers: [{layers[0]}, {layers[1]}) reaches beyond the model's {n_blocks} blocks")
    return range(*layers)
