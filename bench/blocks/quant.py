"""Min/max quantisation of column groups, the grid that QA-LoRA adapts on (arXiv 2309.14717, §3.3).

The columns of a weight [out, in] are cut into consecutive groups of `size`, the last of them as long as what is left.
Each row of each group has a grid of its own, alpha · code + beta with codes 0 … 2^bits - 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn


@dataclass(frozen=True)
class ColumnGrid:
    """A quantised weight: codes int32 [out, in], alpha and beta float32 [out, groups], columns to a group."""

    codes: torch.Tensor
    alpha: torch.Tensor
    beta: torch.Tensor
    size: int

    @classmethod
    def of(cls, weight: torch.Tensor, bits: int, size: int) -> ColumnGrid:
        """Round `weight` [out, in] to the nearest of 2^bits even steps between a group's minimum and maximum.

        A group whose entries are all equal has alpha 0 and comes back as it was.
        """
        values = weight.detach().float()
        cut = _grouped(values, size)
        low, top = cut.amin(-1), 2**bits - 1
        alpha = (cut.amax(-1) - low) / top
        wide = spread(alpha, size, values.shape[1])
        steps = (values - spread(low, size, values.shape[1])) / torch.where(wide > 0, wide, 1)
        return cls(steps.round().clamp(0, top).int(), alpha, low, size)

    def shifted(self, by: torch.Tensor) -> ColumnGrid:
        """The same codes on grids moved by `by` [out, groups]."""
        return replace(self, beta=self.beta + by)

    def weight(self) -> torch.Tensor:
        """The values that the codes stand for, float32 [out, in]."""
        width = self.codes.shape[1]
        return spread(self.alpha, self.size, width) * self.codes + spread(self.beta, self.size, width)


def group_count(width: int, size: int) -> int:
    """How many groups of `size` columns `width` columns make, the last one short where they do not divide."""
    return -(-width // size)


def pool(x: torch.Tensor, size: int) -> torch.Tensor:
    """Sums over the column groups of the last dimension: [..., in] to [..., groups]."""
    short = -x.shape[-1] % size
    return nn.functional.pad(x, (0, short)).unflatten(-1, (-1, size)).sum(-1)


def spread(groups: torch.Tensor, size: int, width: int) -> torch.Tensor:
    """Each group's value for each of its columns: [out, groups] to [out, width]; what `pool` is the transpose of."""
    return groups.repeat_interleave(size, -1)[..., :width]


def _grouped(values: torch.Tensor, size: int) -> torch.Tensor:
    """[out, groups, size]; a short group is filled up with its last column, which leaves minimum and maximum."""
    short = -values.shape[1] % size
    filled = torch.cat([values, values[:, -1:].expand(-1, short)], 1)
    return filled.unflatten(1, (-1, size))
