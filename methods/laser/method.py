"""LASER's intervention (arXiv 2312.13558, §3.2): a matrix by its leading singular vectors."""

from typing import get_args

import torch
from transformers import PreTrainedModel

from bench.blocks.groups import shape_of
from bench.blocks.lowrank import Factors, svd
from bench.blocks.search import Approximator, Rank, decompose, tried_layers
from bench.blocks.stacks import Stack, single_stack
from bench.families import PROJECTIONS
from bench.method import Context

from . import LaserConfig, Matrix

PROJECTION = dict(zip(get_args(Matrix), PROJECTIONS, strict=True))


def compress(model: PreTrainedModel, ctx: Context, config: LaserConfig) -> PreTrainedModel:
    """Truncate the matrix that does least harm; where a size is asked for, all of `config.matrices` in some blocks."""
    shape = shape_of(model)
    layers = tried_layers(config, ctx, len(shape.blocks), single=True)
    blocks = [[single_stack(shape, layer, PROJECTION[name]) for name in config.matrices] for layer in layers]
    sized = ctx.target is not None and ctx.target.basis != "group_ratio"
    units = [tuple(block) for block in blocks] if sized else [(s,) for block in blocks for s in block]

    def approximate(x: torch.Tensor, stack: Stack, rank: Rank) -> Factors:
        return svd(x, rank[0]).factors

    def ranks(stack: Stack) -> list[Rank]:
        return [(max(1, int(rho * min(stack.rows, stack.columns))),) for rho in config.rhos]

    return decompose(model, ctx, config, units, ranks, Approximator(_rank, approximate))


def _rank(n: int, p: int, q: int, kept: float) -> Rank:
    """R·(p + q + 1) numbers."""
    return (max(1, min(p, q, int(kept * p * q / (p + q + 1)))),)
