"""Recovery with group-wise adapters on quantised weights, merged without leaving the grid (QA-LoRA's mechanics)."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from bench.blocks.quant import ColumnGrid, group_count, pool, spread
from bench.blocks.settings import GroupedRecovery
from bench.blocks.train import seeded, train
from bench.errors import MethodError
from bench.method import Context
from bench.model.layers import head_of


class GroupAdapter(nn.Module):  # type: ignore[misc]  # torch has no types here
    """What is added to a projection: s · B A pool(x), with A [r, groups] and B [out, r] in float32, and s = alpha / r.

    A is Xavier-uniform, B zero, so that training starts from the weights as they are. `grid` is what those lie on; None
    leaves them float.
    """

    hook: RemovableHandle

    def __init__(self, projection: nn.Linear, grid: ColumnGrid | None, config: GroupedRecovery) -> None:
        super().__init__()
        groups, device = group_count(projection.in_features, config.group_size), projection.weight.device
        self.a = nn.Parameter(nn.init.xavier_uniform_(torch.empty(config.r, groups)).to(device))
        self.b = nn.Parameter(torch.zeros(projection.out_features, config.r, device=device))
        self.grid, self.scale, self.size = grid, config.alpha / config.r, config.group_size
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., in] to [..., out]."""
        pooled = self.dropout(pool(x.float(), self.size))
        return (pooled @ self.a.T @ self.b.T * self.scale).to(x.dtype)

    def merged(self, weight: torch.Tensor) -> torch.Tensor:
        """The projection's `weight` with the adapter in it: on the grid codes and alpha stay, and beta moves."""
        shift = self.scale * self.b.detach() @ self.a.detach()
        if self.grid is not None:
            return self.grid.shifted(shift).weight()
        return weight.detach().float() + spread(shift, self.size, weight.shape[1])


def recover(model: PreTrainedModel, ctx: Context, config: GroupedRecovery) -> PreTrainedModel:
    """Quantise every projection in column groups, train a group-wise adapter on each, and merge (SAAP, QA-LoRA).

    Every `nn.Linear` but the head takes part, whatever its width; embedding, norms, head and projections that a method
    has factored stay as they are. What comes back is a plain model in evaluation mode, without adapters or gradients,
    whose projections lie on the `bits`-bit grid of each row and column group, up to the rounding of the model's dtype.
    With `bits` None the weights stay float, and the adapters alone are trained and merged.

    Raises:
        MethodError: no projection is a plain matrix, too few examples, or a loss that is not finite.
    """
    model.requires_grad_(False)
    vars(model).pop("leanboard_adapter", None)
    projections = [m for m in model.modules() if isinstance(m, nn.Linear) and m is not head_of(model)]
    if not projections:
        raise MethodError("grouped: in this model no projection is a plain matrix, so nothing can be adapted")
    with seeded(ctx, "grouped: adapters"):
        for projection in projections:
            adapt(projection, config)
    train(model, ctx, config, ctx.examples(config.max_length), name="grouped")
    for projection in projections:
        merge(projection)
    return model.eval()


def adapt(projection: nn.Linear, config: GroupedRecovery) -> None:
    """Quantise `projection` in place and give it an adapter, `group_adapter`, which trains with the model."""
    grid = None
    if config.bits is not None:
        grid = ColumnGrid.of(projection.weight, config.bits, config.group_size)
        projection.weight.data.copy_(grid.weight())
    projection.group_adapter = adapter = GroupAdapter(projection, grid, config)
    adapter.hook = projection.register_forward_hook(lambda module, args, out: out + module.group_adapter(args[0]))


def merge(projection: nn.Linear) -> None:
    """Put the adapter of `projection` into its weight, without loss; nothing of it is left."""
    adapter: GroupAdapter = projection.group_adapter
    projection.weight.data.copy_(adapter.merged(projection.weight))
    adapter.hook.remove()
    del projection.group_adapter
