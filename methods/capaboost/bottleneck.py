"""CapaBoost's adapter form (arXiv 2407.01320): a bottleneck after every MLP, in parallel branches under static masks.

The branches are trained, and kept, as one bottleneck of width d·b whose matrices are masked copies of those of one
branch.
"""

from __future__ import annotations

from transformers import PreTrainedModel

from bench.blocks import bottleneck as plain
from bench.blocks.bottleneck import bottlenecks_of
from bench.method import Context

from .branches import BranchMasks, concatenate, side_by_side


def attach(model: PreTrainedModel, ctx: Context, width: int, masks: BranchMasks) -> PreTrainedModel:
    """A model with a bottleneck behind the MLP of every block, whose 2·width·hidden weights serve all branches.

    They start as in the published code; only they require gradients. `model` is handed over.

    Raises:
        MethodError: masks of kind `nm` that do not fit a matrix; the model has bottlenecks already.
    """
    lean = plain.attach(model, ctx, masks.branches * width)
    for layer, bottleneck in enumerate(bottlenecks_of(lean)):
        side_by_side(bottleneck.down, bottleneck.up, masks, f"bottleneck.{layer}")
    return lean


def fuse(model: PreTrainedModel) -> PreTrainedModel:
    """Make the branches of every bottleneck a plain one of width d·b, in place; the outputs stay the same."""
    for bottleneck in bottlenecks_of(model):
        concatenate(bottleneck.down, bottleneck.up)
    return model.requires_grad_(False).eval()
