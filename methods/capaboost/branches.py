"""Parallel branches of one low-rank pair under static masks: rank d·r from r·(in + out) numbers.

Source: CapaBoost (arXiv 2407.01320), ΔW = alpha/r · Σ_k (B ⊙ M_B^k)(A ⊙ M_A^k). Joined, the branches are one
low-rank pair of rank d·r, so they are trained, merged and exported as an adapter of that rank whose factors are masked
copies of A and B. BranchMasks follow from a seed and a name alone: nothing needs to store them.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Literal

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.nn.utils import parametrize

from bench.errors import MethodError

from . import MaskKind

GROUP, KEPT = 4, 2


@dataclass(frozen=True)
class BranchMasks:
    """How the masks of `branches` branches are drawn.

    `unstructured` keeps max(1, int(density·n)) of a matrix's n entries, drawn without replacement; `nm` keeps 2 of each
    4 neighbours along the dimension that the product sums over; `complementary` gives every entry to one of two
    branches.
    """

    branches: int
    density: float
    kind: MaskKind
    seed: int

    def draw(self, name: str, shape: tuple[int, int]) -> torch.Tensor:
        """The masks of the matrix `name`, bool [branches, *shape]: the same whatever was drawn before, on any device.

        Raises:
            MethodError: `nm`, and the last dimension is not a multiple of 4.
        """
        if self.kind == "nm" and shape[1] % GROUP:
            raise MethodError(f"mask_type: 'nm' needs groups of {GROUP}; {name} has {shape[1]} entries in a row")
        if self.kind == "complementary":
            first = self._one(f"{name}|0", shape)
            return torch.stack([first, ~first])
        return torch.stack([self._one(f"{name}|{k}", shape) for k in range(self.branches)])

    def _one(self, name: str, shape: tuple[int, int]) -> torch.Tensor:
        digest = hashlib.sha256(f"{self.seed}|{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        size = math.prod(shape)
        mask = torch.zeros(size, dtype=torch.bool)
        if self.kind == "nm":
            chosen = torch.rand(size // GROUP, GROUP, generator=generator).topk(KEPT).indices
            return mask.view(-1, GROUP).scatter_(1, chosen, True).view(shape)
        mask[torch.randperm(size, generator=generator)[: max(1, int(self.density * size))]] = True
        return mask.view(shape)


class MaskedCopies(nn.Module):  # type: ignore[misc]  # torch has no types here
    """A parametrization: a matrix under each mask [branches, *shape], concatenated along `dim`."""

    def __init__(self, masks: torch.Tensor, dim: int) -> None:
        super().__init__()
        self.register_buffer("masks", masks, persistent=False)
        self.dim = dim

    def forward(self, matrix: torch.Tensor) -> torch.Tensor:
        return torch.cat((self.masks * matrix).unbind(), self.dim)

    def right_inverse(self, copies: torch.Tensor) -> torch.Tensor:
        """The matrix that training starts from: the first of the copies."""
        return copies.chunk(len(self.masks), self.dim)[0].clone()


def side_by_side(first: nn.Linear, second: nn.Linear, masks: BranchMasks, name: str) -> None:
    """Make two layers of inner width d·r masked copies, branch by branch, of a pair of inner width r, in place.

    Training then holds one `first.weight` [r, in] and one `second.weight` [out, r], whose gradients are the sums of
    those of their copies. A bias of `first` is shared and not masked; one of `second` is added once.

    Raises:
        MethodError: masks of kind `nm` that do not fit a matrix.
    """
    r = first.out_features // masks.branches
    shared = torch.ones(masks.branches, r, dtype=torch.bool)
    drawn = [
        (first, "weight", masks.draw(f"{name}|A", (r, first.in_features)), 0),
        (second, "weight", masks.draw(f"{name}|B", (second.out_features, r)), 1),
        *([(first, "bias", shared, 0)] if first.bias is not None else []),
    ]
    for linear, tensor, mask, dim in drawn:
        parametrize.register_parametrization(linear, tensor, MaskedCopies(mask.to(linear.weight.device), dim))


def concatenate(first: nn.Linear, second: nn.Linear) -> None:
    """Undo `side_by_side`, in place: the masked copies become weights of their own."""
    for linear in (first, second):
        for tensor in list(linear.parametrizations):
            parametrize.remove_parametrizations(linear, tensor)


def share(adapted: PeftModel, masks: BranchMasks, init_fan: Literal["in", "r"] = "in") -> None:
    """Make the factors of every adapter, of rank d·r, masked copies of one A [r, in] and one B [out, r], in place.

    A starts uniform on ±1/√in, or with `init_fan` "r" on ±1/√r as in the published code.

    Raises:
        MethodError: masks of kind `nm` that do not fit a matrix.
    """
    for name, a, b in _factors(adapted):
        if init_fan == "r":
            with torch.no_grad():
                a.weight.mul_(math.sqrt(a.in_features * masks.branches / a.out_features))
        side_by_side(a, b, masks, name)


def unshare(adapted: PeftModel) -> None:
    """Undo `share`, in place: what is left is an ordinary adapter of rank d·r."""
    for _, a, b in _factors(adapted):
        concatenate(a, b)


def _factors(adapted: PeftModel) -> list[tuple[str, nn.Linear, nn.Linear]]:
    """The adapters of a model: path of the projection, A and B."""
    return [
        (path, layer.lora_A["default"], layer.lora_B["default"])
        for path, layer in adapted.get_base_model().named_modules()
        if isinstance(layer, LoraLayer)
    ]
