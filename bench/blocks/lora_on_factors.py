"""Low-rank adapters on low-rank factors: each factor is itself a matrix, into which its adapter merges.

An adapter on the product of the factors would raise its rank when merged, and so the size. SVD-LLM (arXiv 2403.07378)
also trains its two factors in this way, but one after the other; here both are trained together.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.utils import parametrize

from bench.model.lean import SharedFactors

NAMES = ("inner", "outer")


class FactorAdapter(nn.Module):  # type: ignore[misc]  # torch has no types here
    """W + alpha/r · B A in the place of a factor W [p, k], with A [r, k] as LoRA draws it and B [p, r] = 0.

    The rank is no more than W's own. A and B are float32 whatever W is. There is no input to drop from: a recovery's
    dropout is left to the adapters on projections.
    """

    def __init__(self, weight: torch.Tensor, r: int, alpha: float) -> None:
        super().__init__()
        rank, bound = min(r, *weight.shape), weight.shape[1] ** -0.5
        like = {"device": weight.device, "dtype": torch.float32}
        self.scale = alpha / r
        self.a = nn.Parameter(torch.empty(rank, weight.shape[1], **like).uniform_(-bound, bound))
        self.b = nn.Parameter(torch.zeros(weight.shape[0], rank, **like))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + (self.scale * self.b @ self.a).to(weight.dtype)


def attach(model: nn.Module, r: int, alpha: float) -> list[SharedFactors]:
    """Put adapters on both factors of every set of factors in `model`, in place; cores stay as they are.

    Returns the sets, for `merge`.
    """
    found = [module for module in model.modules() if isinstance(module, SharedFactors)]
    for factors in found:
        for name in NAMES:
            parametrize.register_parametrization(factors, name, FactorAdapter(getattr(factors, name), r, alpha))
    return found


def merge(adapted: Iterable[SharedFactors]) -> None:
    """Add the adapters to their factors; what is left are plain factors."""
    for factors in adapted:
        for name in NAMES:
            parametrize.remove_parametrizations(factors, name, leave_parametrized=True)
