"""L0 regularisation: hard-concrete masks that are learnt, and the Lagrangian that brings them to a size.

Sources: Louizos, Welling, Kingma (arXiv 1712.01312) for the distribution; Wang, Wohlwend, Lei (arXiv 1910.04732) for
the Lagrangian; Compresso (arXiv 2310.05015, §3.2) and its published code for the constants and the final rule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import nn

from bench.blocks.groups import BlockKept, BlockShape, Kept, Shape, query_heads
from bench.method import Basis

from .masks import Values

MaskKind = Literal["heads", "channels", "hidden"]
Ramp = Literal["linear", "cubic"]

MASK_KINDS: tuple[MaskKind, ...] = ("heads", "channels", "hidden")
EPSILON = 1e-6
FINAL_SLOPE = 0.8


@dataclass(frozen=True)
class HardConcrete:
    """The hard-concrete distribution of a mask in [0, 1] by its logit: a binary concrete one, stretched and clipped.

    `beta` is the temperature; a concrete sample is stretched to [`low`, `high`], so that 0 and 1 have mass.
    """

    beta: float = 2 / 3
    low: float = -0.1
    high: float = 1.1

    def sample(self, logits: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Masks for `noise`, uniform in [0, 1) and of the shape of `logits`; differentiable by the logits."""
        concrete = torch.sigmoid((torch.logit(noise, EPSILON) + logits) / self.beta)
        return (concrete * (self.high - self.low) + self.low).clamp(0, 1)

    def positive(self, logits: torch.Tensor) -> torch.Tensor:
        """P(mask > 0), within [1e-6, 1 - 1e-6]."""
        at_zero = -self.low / (self.high - self.low)
        zero = torch.sigmoid(self.beta * math.log(at_zero / (1 - at_zero)) - logits)
        return 1 - zero.clamp(EPSILON, 1 - EPSILON)

    def final(self, logits: torch.Tensor) -> torch.Tensor:
        """The value of a mask that is kept, in (0, 1): sigmoid(0.8·logit/beta), as in the published code."""
        return torch.sigmoid(logits / self.beta * FINAL_SLOPE)


class Lagrangian:
    """λ1·(s - t) + λ2·(s - t)² for an expected sparsity s and a target t that rises to `sparsity` over `ramp_steps`.

    Both multipliers start at 0 and are to be maximised while all else is minimised.
    """

    def __init__(self, sparsity: float, ramp_steps: int, ramp: Ramp, device: torch.device) -> None:
        self.sparsity, self.ramp_steps, self.ramp = sparsity, ramp_steps, ramp
        self.multipliers = nn.Parameter(torch.zeros(2, device=device))

    def target(self, step: int) -> float:
        """The sparsity asked for at `step`, counted from 1 where pruning begins."""
        share = min(1.0, step / self.ramp_steps) if self.ramp_steps else 1.0
        return self.sparsity * (share if self.ramp == "linear" else 1 - (1 - share) ** 3)

    def penalty(self, sparsity: torch.Tensor, step: int) -> torch.Tensor:
        """The term added to the loss at `step`, differentiable by `sparsity` and the multipliers."""
        gap = sparsity - self.target(step)
        first, second = self.multipliers
        return first * gap + second * gap.square()


class Masks:
    """Hard-concrete masks of the kinds that `means` names, each unit with a logit of its own; the others stay at 1.

    Logits start as normal numbers around the kind's mean, `spread` wide. `shape` is that of the model.
    """

    def __init__(
        self,
        shape: Shape,
        means: Mapping[MaskKind, float],
        generator: torch.Generator,
        device: torch.device,
        *,
        spread: float = 0.01,
        law: HardConcrete = HardConcrete(),
    ) -> None:
        self.shape, self.device, self.law = shape, device, law
        self.sizes: dict[MaskKind, list[int]] = {
            "heads": [block.kv_heads for block in shape.blocks],
            "channels": [block.channels for block in shape.blocks],
            "hidden": [shape.hidden],
        }
        self.logits: dict[MaskKind, nn.Parameter] = {}
        for kind, mean in means.items():
            normal = torch.randn(sum(self.sizes[kind]), generator=generator)
            self.logits[kind] = nn.Parameter((mean + spread * normal).to(device))
        self.noise: dict[MaskKind, torch.Tensor] = {}

    def draw(self) -> None:
        """New noise for `sampled`, from the CPU's global generator."""
        self.noise = {kind: torch.rand(len(logits)).to(self.device) for kind, logits in self.logits.items()}

    def sampled(self) -> Values:
        """The masks for the noise last drawn, differentiable by the logits."""
        return self._values({f: self.law.sample(logits, self.noise[f]) for f, logits in self.logits.items()})

    def limit(self, largest: float) -> None:
        """Clamp the logits to [-largest, largest]."""
        for logits in self.logits.values():
            logits.data.clamp_(-largest, largest)

    def sparsity(self, basis: Basis = "group_ratio") -> torch.Tensor:
        """The expected fraction removed, a differentiable scalar: of what `basis` names, and for `group_ratio` of the
        weights of the blocks' projections, which is the published definition.

        The masks are independent and the closed forms of `Shape` multilinear in its widths, so the expected size is the
        size at the expected widths (the published code adds up the same products one by one).
        """
        expected = self._expected()
        if basis == "group_ratio":
            return cast(torch.Tensor, 1 - _projections(expected) / _projections(self.shape))
        return cast(torch.Tensor, self.shape.removed(expected)[basis])

    def kept(self, shift: float = 0.0, channel_shift: float = 0.0) -> Kept:
        """The published rule: of a module's n units, those with the round(n - Σ P(mask > 0)) smallest logits go.

        To meet a size, for P alone, `shift` is added to the logits of heads and hidden dimensions and `channel_shift`
        to those of channels. A module keeps one unit at least, the residual stream the width of a head.
        """
        heads = self._largest("heads", shift, 1)
        channels = self._largest("channels", channel_shift, 1)
        [hidden] = self._largest("hidden", shift, min(self.shape.head_dim, self.shape.hidden))
        blocks = {
            i: BlockKept(query_heads(block, heads[i]), tuple(channels[i])) for i, block in enumerate(self.shape.blocks)
        }
        return Kept(blocks, None if len(hidden) == self.shape.hidden else tuple(hidden))

    def values(self, kept: Kept) -> Values:
        """The final masks: the final value where `kept` (all blocks), 0 elsewhere, 1 in kinds without masks."""
        order = sorted(kept.blocks)
        units: dict[MaskKind, list[tuple[int, ...]]] = {
            "heads": [self.shape.kept_kv_heads(i, kept.blocks[i].heads) for i in order],
            "channels": [kept.blocks[i].channels for i in order],
            "hidden": [tuple(range(self.shape.hidden)) if kept.hidden is None else kept.hidden],
        }
        final: dict[MaskKind, torch.Tensor] = {}
        for kind, logits in self.logits.items():
            value = self.law.final(logits.detach())
            final[kind] = torch.zeros_like(value)
            for start, chosen in zip(_starts(self.sizes[kind]), units[kind], strict=True):
                index = torch.tensor(chosen, device=self.device) + start
                final[kind][index] = value[index]
        return self._values(final)

    def _values(self, flat: Mapping[MaskKind, torch.Tensor]) -> Values:
        heads, channels, [hidden] = (
            flat[kind].split(self.sizes[kind])
            if kind in flat
            else [torch.ones(n, device=self.device) for n in self.sizes[kind]]
            for kind in MASK_KINDS
        )
        return Values(tuple(heads), tuple(channels), hidden)

    def _expected(self) -> Shape:
        """The expected widths, scalars with gradients, as a `Shape`."""
        widths: dict[MaskKind, list[Any]] = {
            kind: [part.sum() for part in self.law.positive(self.logits[kind]).split(sizes)]
            if kind in self.logits
            else list(sizes)
            for kind, sizes in self.sizes.items()
        }
        blocks = tuple(
            BlockShape(kv_heads * (dense.heads // dense.kv_heads), kv_heads, channels)
            for dense, kv_heads, channels in zip(self.shape.blocks, widths["heads"], widths["channels"], strict=True)
        )
        return replace(self.shape, hidden=widths["hidden"][0], blocks=blocks)

    def _largest(self, kind: MaskKind, shift: float, at_least: int) -> list[list[int]]:
        """The units kept of each module, ascending; of equal logits the later ones."""
        if kind not in self.logits:
            return [list(range(n)) for n in self.sizes[kind]]
        chosen = []
        for logits in self.logits[kind].detach().split(self.sizes[kind]):
            removed = round(len(logits) - float(self.law.positive(logits + shift).sum()))
            removed = max(0, min(removed, len(logits) - at_least))
            chosen.append(sorted(logits.argsort(stable=True)[removed:].tolist()))
        return chosen


def _projections(shape: Shape) -> Any:
    """Weights of the blocks' projections: their parameters without norms and biases."""
    return shape.block_params() - shape.vector_params()


def _starts(sizes: list[int]) -> list[int]:
    return [sum(sizes[:i]) for i in range(len(sizes))]
