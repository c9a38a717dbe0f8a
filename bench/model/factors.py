"""Low-rank factors that projections share."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Factors:
    """The low-rank form of n matrices: slice k is inner · core_k · outerᵀ.

    `inner` [p, r1] and `outer` [q, r2] are shared; `core` is [n, r] (diagonals, r1 = r2 = r) or [n, r1, r2].
    """

    inner: torch.Tensor
    core: torch.Tensor
    outer: torch.Tensor

    @property
    def rank(self) -> tuple[int, ...]:
        """One number where the cores are diagonal, else two."""
        return tuple(self.core.shape[1:])

    def slices(self) -> torch.Tensor:
        """The n matrices, [n, p, q]."""
        if self.core.dim() == 2:
            return (self.inner * self.core[:, None]) @ self.outer.T
        return self.inner @ self.core @ self.outer.T

    def scaled(self, factors: torch.Tensor) -> Factors:
        """The form of the matrices times `factors` [n]."""
        return replace(self, core=self.core * factors.to(self.core).view(-1, *[1] * len(self.rank)))
