"""Bottlenecks behind the MLPs of a model: adapters that stay in it.

A bottleneck reads what the MLP gives (Pfeiffer et al., arXiv 2005.00247), so it cannot be merged into the MLP.
"""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

from bench.blocks.train import seeded
from bench.method import Context
from bench.model.layers import bottlenecks_of, shape_of
from bench.model.lean import Bottleneck
from bench.model.surgery import add_bottlenecks

__all__ = ["attach", "bottlenecks_of"]

INIT_STD = 0.02


def attach(model: PreTrainedModel, ctx: Context, width: int) -> PreTrainedModel:
    """A model with a bottleneck of inner width `width` behind the MLP of every block. `model` is handed over.

    Weights start from N(0, 0.02²), biases at 0; only these require gradients.

    Raises:
        MethodError: the model has bottlenecks already.
    """
    shape = shape_of(model)
    with seeded(ctx, "bottleneck: adapters"):
        bottlenecks = [_drawn(shape.hidden, width) for _ in shape.blocks]
    lean = add_bottlenecks(model.requires_grad_(False), bottlenecks)
    for bottleneck in bottlenecks_of(lean):
        bottleneck.requires_grad_(True)
    return lean


def _drawn(hidden: int, width: int) -> Bottleneck:
    bottleneck = Bottleneck(hidden, width)
    for linear in (bottleneck.down, bottleneck.up):
        nn.init.normal_(linear.weight, std=INIT_STD)
        nn.init.zeros_(linear.bias)
    return bottleneck
