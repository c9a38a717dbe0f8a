"""Low-rank adapters on low-rank factors: each factor is itself a matrix, into which its adapter merges.

An adapter beside the product of the factors would, merged, raise its rank, and with it the size. SVD-LLM (arXiv
2403.07378) trains its two factors so too, but one after the other; here both are trained together.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.utils import parametrize

from bench.model.lean_llama import SharedFactors


class FactorAdapter(nn.Module):  # type: ignore[misc]  # torch has no types here
    """W + alpha/r · B A in the place of a factor W [p, k], with A [r, k] as LoRA draws it and B [p, r] = 0.

    The rank is no more than W's own. A and B are float32 whatever W is.
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


def attach(model: nn.Module, r: int, alpha: float) -> None:
    """Put adapters on both factors of every set of factors in `model`, in place; cores stay as they are."""
    for factors in _of(model):
        for name in ("inner", "outer"):
            parametrize.register_parametrization(factors, name, FactorAdapter(getattr(factors, name), r, alpha))


def merge(model: nn.Module) -> None:
    """Add the adapters to their factors, where there are any."""
    for factors in _of(model):
        for name in ("inner", "outer"):
            if parametrize.is_parametrized(factors, name):
                parametrize.remove_parametrizations(factors, name, leave_parametrized=True)


def _of(model: nn.Module) -> Iterator[SharedFactors]:
    yield from [module for module in model.modules() if isinstance(module, SharedFactors)]
