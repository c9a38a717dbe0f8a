"""CapaBoost's adapter form (arXiv 2407.01320): a bottleneck after every MLP, in parallel branches under static masks.

The bottleneck reads what the MLP gives (Pfeiffer et al., arXiv 2005.00247), so it cannot be merged into the MLP; its
branches can be fused to one bottleneck of width d·b. A checkpoint has no place for it yet, and no method offers it.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

from bench.blocks.branches import Masks, concatenate, side_by_side
from bench.blocks.train import seeded
from bench.method import Context
from bench.model.layers import blocks_of

INIT_STD = 0.02


class Bottleneck(nn.Module):  # type: ignore[misc]  # torch has no types here
    """z + W_u ReLU(W_d z + b_d) + b_u with W_d [width, hidden] and W_u [hidden, width], from N(0, 0.02²)."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(hidden, width), nn.Linear(width, hidden)
        for linear in (self.down, self.up):
            nn.init.normal_(linear.weight, std=INIT_STD)
            nn.init.zeros_(linear.bias)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z + self.up(nn.functional.relu(self.down(z)))


def attach(model: PreTrainedModel, ctx: Context, width: int, masks: Masks) -> list[Bottleneck]:
    """Put a bottleneck behind the MLP of every block, in place; its 2·width·hidden weights serve all branches.

    Only the bottlenecks require gradients. They hang on the last projection of the MLP, by a hook.

    Raises:
        MethodError: masks of kind `nm` that do not fit a matrix.
    """
    model.requires_grad_(False)
    bottlenecks = []
    with seeded(ctx, "bottleneck: adapters"):
        for block in blocks_of(model):
            bottleneck = Bottleneck(block.down.out_features, masks.branches * width).to(block.down.weight)
            side_by_side(bottleneck.down, bottleneck.up, masks, f"bottleneck.{block.index}")
            block.down.bottleneck = bottleneck
            block.down.register_forward_hook(lambda module, args, z: module.bottleneck(z))
            bottlenecks.append(bottleneck)
    return bottlenecks


def fuse(bottlenecks: list[Bottleneck]) -> None:
    """Make the branches of each one plain bottleneck of width d·b, in place; the outputs stay the same."""
    for bottleneck in bottlenecks:
        concatenate(bottleneck.down, bottleneck.up)
