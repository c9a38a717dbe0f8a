"""Depth pruning: how much each block turns the residual stream, which blocks go, and the remainder."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch.nn.functional import cosine_similarity
from transformers import PreTrainedModel

from bench.blocks.activations import wanda_scores, watch
from bench.blocks.groups import Kept, Shape, blocks_of, final_norm_of, prune, shape_of
from bench.blocks.ranking import to_target
from bench.errors import MethodError
from bench.method import Context, Target

from . import LayerDropConfig

Order = Callable[[int], list[int]]


@dataclass(frozen=True)
class Stream:
    """What blocks do to the residual stream on calibration text.

    x_i is what goes into block i, x_i+1 what comes out. `influence`, [blocks], is ShortGPT's Block Influence (arXiv
    2403.03853): the mean over tokens of 1 - cos(x_i, x_i+1). `angles`, [blocks + 1, blocks + 1], is the angular
    distance of Gromov et al. (arXiv 2403.17887): the mean over windows of arccos(cos(x_i, x_j))/π at the last token.
    """

    influence: torch.Tensor
    angles: torch.Tensor


def compress(model: PreTrainedModel, ctx: Context, config: LayerDropConfig) -> PreTrainedModel:
    """Drop as many blocks as the target (or `config.ratio`) asks for."""
    shape = shape_of(model)
    layers = range(len(shape.blocks))
    order, channels = last_first(len(layers)), {}
    if config.remainder or config.order != "last":
        ids = ctx.calibration(config.calibration_samples, config.seq_len)
        if config.order != "last":
            order = order_by(config.order, read_stream(model, ids))
        if config.remainder:
            scores = wanda_scores(model, layers, ids, ctx.progress).mlp
            channels = {layer: vector.argsort(stable=True).tolist() for layer, vector in scores.items()}
    target = ctx.target or Target(basis="group_ratio", value=config.ratio)
    return prune(model, to_target(shape, target, lambda _, ratio: without(shape, ratio, order, channels)))


def read_stream(model: PreTrainedModel, ids: torch.Tensor) -> Stream:
    """Measure the residual stream before, between and after the blocks while `model` reads `ids`, int64 [n, seq_len].

    Raises:
        MethodError: an activation is not finite.
    """
    points = [*(block.attention_norm for block in blocks_of(model)), final_norm_of(model)]
    turned = torch.zeros(len(points) - 1, dtype=torch.float64)
    last: list[list[torch.Tensor]] = [[] for _ in points]
    before = torch.empty(0)

    def see(i: int, x: torch.Tensor) -> None:
        nonlocal before
        x = x.float()
        if i:
            turned[i - 1] += float((1 - cosine_similarity(before.to(x.device), x, dim=-1)).sum())
        before = x
        last[i].append(x[:, -1].to(ids.device))

    watch(model, ids, points, see)
    ends = torch.stack([torch.cat(rows) for rows in last])
    cosines = cosine_similarity(ends[:, None], ends[None], dim=-1).clamp(-1, 1)
    if not bool(turned.isfinite().all() and cosines.isfinite().all()):
        raise MethodError("the residual stream on the calibration text is not finite")
    return Stream(turned / ids.numel(), cosines.arccos().mean(-1) / math.pi)


def last_first(blocks: int) -> Order:
    """From the last block to the first, however many go."""
    return lambda count: list(reversed(range(blocks)))


def order_by(how: str, stream: Stream) -> Order:
    """For a number of blocks to drop: all blocks, those first that go; equal ones by index."""
    by_influence: list[int] = stream.influence.argsort(stable=True).tolist()
    if how == "influence":
        return lambda count: by_influence

    def contiguous(count: int) -> list[int]:
        starts = range(len(by_influence) - count + 1)
        start = min(starts, key=lambda i: float(stream.angles[i, i + count]))
        run = list(range(start, start + count))
        return run + [i for i in by_influence if i not in run]

    return contiguous


def without(shape: Shape, ratio: float, order: Order, channels: Mapping[int, list[int]]) -> Kept:
    """Keep all but `ratio` of the blocks, at least one.

    The fraction of a block that is left over is taken, by parameters, from the MLP channels of the next blocks in the
    order, `channels` (worst first) of each; where there are none, it is left.
    """
    wanted = ratio * len(shape.blocks)
    count = min(int(wanted), len(shape.blocks) - 1)
    rest = order(count)[count:]
    blocks = {i: shape.keep_all().blocks[i] for i in rest}
    one = replace(shape, blocks=(shape.blocks[rest[0]],))
    spare = round((wanted - count) * one.block_params() / shape.channel_params())
    for i in rest if channels else []:
        cut = min(spare, len(channels[i]) - 1)
        blocks[i] = replace(blocks[i], channels=tuple(sorted(channels[i][cut:])))
        spare -= cut
    return Kept(blocks)
