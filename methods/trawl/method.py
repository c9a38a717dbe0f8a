"""TRAWL's six modes (arXiv 2406.17261, §3) with CP or Tucker."""

import math

import torch
from transformers import PreTrainedModel

from bench.blocks.groups import shape_of
from bench.blocks.lowrank import Factors, cp, tucker
from bench.blocks.search import Approximator, Rank, decompose, tried_layers
from bench.blocks.stacks import Stack, stacks_of
from bench.method import Context

from . import TrawlConfig


def compress(model: PreTrainedModel, ctx: Context, config: TrawlConfig) -> PreTrainedModel:
    """Approximate the stacks that `config.mode` makes and that do least harm."""
    shape = shape_of(model)
    layers = tried_layers(config, ctx, len(shape.blocks), single=config.mode in (2, 5))
    units = stacks_of(
        shape, config.mode, layers, mlp_set=config.mlp_set, attention_set=config.attention_set, segments=config.segments
    )
    rank = _cp_rank if config.decomposition == "cp" else _tucker_rank

    def approximate(x: torch.Tensor, stack: Stack, rank: Rank) -> Factors:
        return _approximate(x, stack, rank, ctx, config)

    def ranks(stack: Stack) -> list[Rank]:
        if config.decomposition == "cp":
            return [(r,) for r in config.ranks]
        return [(min(r, stack.rows), min(r, stack.columns)) for r in config.ranks]

    return decompose(model, ctx, config, units, ranks, Approximator(rank, approximate))


def _approximate(x: torch.Tensor, stack: Stack, rank: Rank, ctx: Context, config: TrawlConfig) -> Factors:
    norms = x.flatten(1).norm(dim=1)
    if config.normalize_slices:
        x = x / norms.clamp_min(torch.finfo(x.dtype).tiny)[:, None, None]
    if config.decomposition == "cp":
        found = cp(
            x,
            rank[0],
            ctx.generator(f"trawl: {stack.name}"),
            starts=config.starts,
            sweeps=config.sweeps,
            tolerance=1e-8 if config.tolerance is None else config.tolerance,
            ridge=config.ridge,
            oversampling=config.oversampling,
        ).factors
    else:
        found = tucker(
            x,
            (rank[0], rank[1]),
            rank0=config.rank0,
            sweeps=config.sweeps,
            tolerance=1e-4 if config.tolerance is None else config.tolerance,
        ).factors
    return found.scaled(norms) if config.normalize_slices else found


def _cp_rank(n: int, p: int, q: int, kept: float) -> Rank:
    """R·(n + p + q) numbers."""
    return (max(1, int(kept * n * p * q / (n + p + q))),)


def _tucker_rank(n: int, p: int, q: int, kept: float) -> Rank:
    """n·r² + (p + q)·r numbers: the cores hold what mixes the slices."""
    r = max(1, int((math.sqrt((p + q) ** 2 + 4 * n * n * p * q * kept) - p - q) / (2 * n)))
    return min(r, p), min(r, q)
