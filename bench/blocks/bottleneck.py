"""CapaBoost's adapter form (arXiv 2407.01320): a bottleneck after every MLP, in parallel branches under static masks.

The bottleneck reads what the MLP gives (Pfeiffer et al., arXiv 2005.00247), so it cannot be merged into the MLP. Its
branches are trained, and kept, as one bottleneck of width d·b whose matrices are masked copies of those of one branch.
"""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

from bench.blocks.branches import Masks, concatenate, side_by_side
from bench.blocks.train import seeded
from bench.method import Context
from bench.model.layers import bottlenecks_of, shape_of
from bench.model.lean_llama import Bottleneck
from bench.model.surgery import add_bottlenecks

INIT_STD = 0.02


def attach(model: PreTrainedModel, ctx: Context, width: int, masks: Masks) -> PreTrainedModel:
    """A model with a bottleneck behind the MLP of every block, whose 2·width·hidden weights serve all branches.

    Weights start from N(0, 0.02²), biases at 0, as in the published code; only these require gradients. `model` is
    handed over.

    Raises:
        MethodError: masks of kind `nm` that do not fit a matrix; the model has bottlenecks already.
    """
    shape = shape_of(model)
    with seeded(ctx, "bottleneck: adapters"):
        bottlenecks = [_drawn(shape.hidden, masks.branches * width) for _ in shape.blocks]
    lean = add_bottlenecks(model.requires_grad_(False), bottlenecks)
    for layer, bottleneck in enumerate(bottlenecks_of(lean)):
        bottleneck.requires_grad_(True)
        side_by_side(bottleneck.down, bottleneck.up, masks, f"bottleneck.{layer}")
    return lean


def fuse(model: PreTrainedModel) -> PreTrainedModel:
    """Make the branches of every bottleneck a plain one of width d·b, in place; the outputs stay the same."""
    for bottleneck in bottlenecks_of(model):
        concatenate(bottleneck.down, bottleneck.up)
    return model.requires_grad_(False).eval()


def _drawn(hidden: int, width: int) -> Bottleneck:
    bottleneck = Bottleneck(hidden, width)
    for linear in (bottleneck.down, bottleneck.up):
        nn.init.normal_(linear.weight, std=INIT_STD)
        nn.init.zeros_(linear.bias)
    return bottleneck
