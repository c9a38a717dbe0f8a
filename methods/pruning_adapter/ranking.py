"""From the importance of heads and channels to what is kept, and to the rank of each layer's adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from bench.blocks.groups import Kept, Shape, keep_groups
from bench.blocks.ranking import to_target
from bench.errors import MethodError
from bench.method import TARGET_TOLERANCE, Target

from . import PruningAdapterConfig
from .head_masks import UnitMasks

TINY = 1e-20
ByLayer = Mapping[int, torch.Tensor]


def normalised(importance: ByLayer) -> dict[int, torch.Tensor]:
    """Each layer's vector over its L2 norm, then all of them together mapped to [0, 1] (Pruning-Adapter's code).

    A layer without any gradient is all zeros before the mapping.
    """
    unit = {layer: vector / (vector.norm() + TINY) for layer, vector in importance.items()}
    every = torch.cat(list(unit.values()))
    low, high = every.min(), every.max()
    return {layer: (vector - low) / (high - low + TINY) for layer, vector in unit.items()}


def ranks_of(scores: ByLayer) -> dict[int, torch.Tensor]:
    """The place of each unit among those of all layers, int64: 0 is the best; equal scores go by layer and index."""
    order = torch.cat(list(scores.values())).argsort(descending=True, stable=True)
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order), device=order.device)
    return dict(zip(scores, places.split([len(vector) for vector in scores.values()]), strict=True))


class Queue:
    """The units of all layers in the order in which they go, the worst first; the best of each layer always stays.

    So where the worst would empty a layer, the next worst of another goes in its place.
    """

    def __init__(self, scores: ByLayer) -> None:
        guarded = {layer: vector.index_fill(0, vector.argmax(), torch.inf) for layer, vector in scores.items()}
        self.total = sum(map(len, scores.values()))
        self.removable = self.total - len(scores)
        self.turns = {layer: self.total - 1 - ranks for layer, ranks in ranks_of(guarded).items()} if scores else {}

    def kept(self, ratio: float) -> dict[int, list[int]]:
        """What is left by layer when round(ratio · units) have gone, or all that may."""
        removed = min(round(ratio * self.total), self.removable)
        return {layer: (turns >= removed).nonzero().flatten().tolist() for layer, turns in self.turns.items()}


def select(shape: Shape, target: Target | None, scores: UnitMasks, config: PruningAdapterConfig) -> Kept:
    """What is kept of a model of `shape`: whole key/value heads go, worst first, in all layers together.

    A target's size is met by heads alone where a `prune_ratio` of them is enough. Where it is not, or their steps are
    too coarse, channels go too, in a ranking of their own and at first at the ratio of the heads (not published).
    Without `config.channels` it is heads alone, however many.

    Raises:
        MethodError: the ratio or the target cannot be reached.
    """
    heads, channels = Queue(group_scores(shape, scores.heads, config.gqa_fold)), Queue(scores.channels)
    if target is None or target.basis == "group_ratio":
        ratio = config.prune_ratio if target is None else target.value
        if round(ratio * heads.total) > heads.removable:
            raise MethodError(
                f"prune_ratio: {ratio:g} of {heads.total} key/value heads cannot go: each layer keeps one, so at most "
                f"{heads.removable} can"
            )
        return keep_groups(shape, heads.kept(ratio), {})
    most = config.prune_ratio if config.channels else 1.0
    alone = to_target(
        shape,
        target,
        lambda ratio, _: keep_groups(shape, heads.kept(min(ratio, most)), {}),
        must_reach=not config.channels,
    )
    if abs(shape.removed(shape.after(alone))[target.basis] - target.value) <= TARGET_TOLERANCE:
        return alone
    return to_target(shape, target, lambda ratio, mlp: keep_groups(shape, heads.kept(ratio), channels.kept(mlp)))


def group_scores(shape: Shape, heads: ByLayer, how: str) -> dict[int, torch.Tensor]:
    """The scores of query heads, folded to those of the key/value heads that they read."""
    folded = {layer: vector.view(shape.blocks[layer].kv_heads, -1) for layer, vector in heads.items()}
    return {layer: rows.sum(1) if how == "sum" else rows.mean(1) for layer, rows in folded.items()}


def adapter_ranks(heads: ByLayer, config: PruningAdapterConfig) -> Sequence[int]:
    """The rank of each layer's adapters: `rank_high` for the layers whose heads have the best places on average.

    Source: Pruning-Adapter's code, which sums the places of all heads before pruning (the same order where layers have
    equally many heads).
    """
    places = torch.stack([ranks.double().mean() for ranks in ranks_of(heads).values()])
    best = set(places.argsort(stable=True)[: round(config.high_share * len(places))].tolist())
    return [config.rank_high if layer in best else config.rank_low for layer in range(len(places))]
