"""Adaptive importance fusion: two scores of each structure, weighted by noise that is learned from the scores alone.

SAAP (arXiv 2412.15127) takes the vector score V and the element score E of a structure G for two outputs with Gaussian
noise that the structures of a scope share. The negative logarithm of their likelihood is, up to constants,

    J(G) = V/(2σ_V²) + E/(2σ_E²) + log σ_V + log σ_E

The σ that minimise its mean over the scope weight the scores; J itself is the fused importance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bench.blocks.groups import Scores
from bench.errors import MethodError

from . import Fit, Scope, Score

SMALLEST = 1e-12
RATE, CLOSE, MOST_STEPS = 0.05, 1e-4, 20_000


@dataclass(frozen=True)
class Line:
    """All structures in one line: layer by layer, attention before MLP, by index."""

    layers: Sequence[int]
    sizes: Sequence[int]

    @classmethod
    def of(cls, scores: Scores) -> Line:
        """The line of the structures that `scores` are of."""
        layers = list(scores.attention)
        return cls(layers, [len(vector) for i in layers for vector in (scores.attention[i], scores.mlp[i])])

    def flat(self, scores: Scores) -> torch.Tensor:
        """Scores in the order of the line, float64 [structures]."""
        return torch.cat([v.double().cpu() for i in self.layers for v in (scores.attention[i], scores.mlp[i])])

    def scores(self, flat: torch.Tensor) -> Scores:
        """What `flat` was made of."""
        parts = flat.split(list(self.sizes))
        return Scores(dict(zip(self.layers, parts[::2], strict=True)), dict(zip(self.layers, parts[1::2], strict=True)))

    def labels(self, scope: Scope) -> torch.Tensor:
        """The number of the scope that each structure is in, int64 [structures]."""
        modules = torch.arange(len(self.sizes))
        number = {"model": modules * 0, "module_type": modules % 2, "layer_module": modules}[scope]
        return number.repeat_interleave(torch.tensor(self.sizes))


@dataclass(frozen=True)
class Fusion:
    """Weights of the vector and the element score, and the log term, each float64 [structures]."""

    vector: torch.Tensor
    element: torch.Tensor
    log: torch.Tensor

    def of(self, vector: torch.Tensor, element: torch.Tensor) -> torch.Tensor:
        """The fused scores without the log term, which is the same for all structures of a scope."""
        return self.vector * vector + self.element * element


def fuse(vector: torch.Tensor, element: torch.Tensor, labels: torch.Tensor, score: Score, fit: Fit) -> Fusion:
    """How the scores `vector` and `element`, [structures], go together in the scopes that `labels` names.

    `vector` and `element` as `score` take one of them alone, `mean` half of each; their log term is 0.

    Raises:
        MethodError: the fit by gradient descent does not converge.
    """
    if score != "fusion":
        first, second = {"vector": (1.0, 0.0), "element": (0.0, 1.0), "mean": (0.5, 0.5)}[score]
        return Fusion(torch.full_like(vector, first), torch.full_like(vector, second), torch.zeros_like(vector))
    noise = [variance(metric, labels, fit)[labels] for metric in (vector, element)]
    return Fusion(0.5 / noise[0], 0.5 / noise[1], 0.5 * (noise[0] * noise[1]).log())


def variance(metric: torch.Tensor, labels: torch.Tensor, fit: Fit) -> torch.Tensor:
    """σ² of one score in each scope, float64 [scopes]: where the mean of J over the scope is least.

    In s = log σ² that mean is m·exp(-s)/2 + s/2 plus what does not depend on s, with m the mean score: least at
    σ² = m (`closed_form`). `adam` descends from the scope's median score instead, until the gradient is below 1e-4.

    Raises:
        MethodError: it does not get there in 20,000 steps.
    """
    mean = means(metric, labels).clamp_min(SMALLEST)
    if fit == "closed_form":
        return mean
    middle = torch.stack([metric[labels == i].median() for i in range(len(mean))])
    start = torch.where(middle > 0, middle, mean)
    s = torch.zeros_like(mean, requires_grad=True)
    optimiser = torch.optim.Adam([s], lr=RATE)
    for _ in range(MOST_STEPS):
        s.grad = (1 - mean / start * (-s.detach()).exp()) / 2
        if float(s.grad.abs().max()) < CLOSE:
            return start * s.detach().exp()
        optimiser.step()
    raise MethodError(f"sigma_fit: 'adam' did not converge in {MOST_STEPS} steps; take 'closed_form'")


def means(values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The mean of `values` over each label, float64 [labels]."""
    return labels.bincount(values) / labels.bincount()
