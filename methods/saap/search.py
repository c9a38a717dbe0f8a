"""Adaptive structure search: one order of removal for all modules, and how far a budget goes in it (SAAP)."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from math import ceil

import torch

from bench.blocks.groups import Kept, keep_groups
from bench.blocks.ranking import Module, Ranking
from bench.errors import MethodError

from . import SAAPConfig
from .fusion import means

SMALLEST = 1e-12
LEVEL = 1e-9
"""A module whose scores spread less than this share of their mean counts as level."""


def order_scores(
    importance: torch.Tensor, log: torch.Tensor, samples: torch.Tensor, modules: torch.Tensor, config: SAAPConfig
) -> torch.Tensor:
    """What the search goes by, lowest removed first, float64 [structures].

    `importance` and its `log` term are [structures], `samples` the same importance from each calibration row alone,
    [n, structures], `modules` the number of each structure's module.

    Raises:
        MethodError: the search asks how much the importance fluctuates, and there is one row only.
    """
    if config.search == "uniform":
        return importance
    if config.search == "global_raw":
        return importance + log
    if config.search == "flap_z":
        return standardise(importance, modules)
    if len(samples) < 2:
        raise MethodError(f"search '{config.search}' needs at least two calibration rows to see fluctuation")
    if config.search == "fluct_var":
        return -standardise(samples.var(0), modules)
    if config.search == "fluct_literal":
        return -standardise(fluctuation(samples), modules)
    return standardise(importance / (1 + config.stability * fluctuation(samples)), modules)


def fluctuation(samples: torch.Tensor) -> torch.Tensor:
    """Relative change of each structure's importance over the calibration rows: standard deviation by mean."""
    return samples.std(0) / (samples.mean(0) + SMALLEST)


def standardise(values: torch.Tensor, modules: torch.Tensor) -> torch.Tensor:
    """`values` with mean 0 and (unbiased) standard deviation 1 in each module; 0 where a module's are all equal."""
    mean = means(values, modules)
    apart = values - mean[modules]
    count = modules.bincount()
    deviation = (modules.bincount(apart.square()) / (count - 1).clamp_min(1)).sqrt()
    level = deviation <= LEVEL * mean.abs()
    return torch.where(level, 0.0, 1 / torch.where(level, 1.0, deviation))[modules] * apart


@dataclass(frozen=True)
class Unit:
    """Structures of one module that are removed together: a head, or as many channels as the rounding asks for."""

    score: float
    layer: int
    mlp: bool
    size: int
    cost: float


class Budget:
    """The removable structures of all modules, lowest score first, and how many of them a budget pays for.

    Costs are in parameters per hidden dimension. Attention always keeps its best head, an MLP `min_channels` of the
    channels that the dense one had and at least `round_to`. With `round_to` a unit is as many channels as leave a
    multiple behind, and counts as its best one. Equal scores go by layer, attention before MLP, and index.
    """

    def __init__(self, ranking: Ranking, round_to: int, min_channels: float) -> None:
        self.ranking = ranking
        units: list[Unit] = []
        self.initial, current = 0.0, 0.0
        for layer, block in ((i, ranking.shape.blocks[i]) for i in ranking.attention):
            attention, mlp = ranking.attention[layer], ranking.mlp[layer]
            head = 2.0 * ranking.shape.head_dim * (1 + block.heads // block.kv_heads)
            units += _units(attention, layer, False, 1, 1, head)
            units += _units(mlp, layer, True, round_to, max(round_to, ceil(min_channels * mlp.initial)), 3.0)
            self.initial += head * attention.initial + 3.0 * mlp.initial
            current += head * len(attention.groups) + 3.0 * len(mlp.groups)
        self.units = sorted(units, key=lambda unit: unit.score)
        self.spent = list(accumulate((unit.cost for unit in self.units), initial=self.initial - current))

    def choose(self, attention_ratio: float, mlp_ratio: float) -> Kept:
        """Take units as far as a budget of this fraction of the dense modules goes; one budget for heads, one for MLPs.

        With equal ratios that is one budget for all; they differ where heads are too coarse to meet a target.
        """
        gone: Counter[tuple[int, bool]] = Counter()
        for mlp, ratio in ((False, attention_ratio), (True, mlp_ratio)):
            for unit in self.units[: max(0, bisect_right(self.spent, ratio * self.initial) - 1)]:
                if unit.mlp == mlp:
                    gone[unit.layer, mlp] += unit.size
        return keep_groups(
            self.ranking.shape,
            {layer: module.without(gone[layer, False]) for layer, module in self.ranking.attention.items()},
            {layer: module.without(gone[layer, True]) for layer, module in self.ranking.mlp.items()},
        )


def _units(module: Module, layer: int, mlp: bool, round_to: int, least: int, cost: float) -> Iterator[Unit]:
    """The units of one module, worst first; `cost` is that of one structure."""
    before, first = 0, len(module.groups) % round_to or round_to
    for end in range(first, len(module.groups) - least + 1, round_to):
        yield Unit(module.scores[end - 1], layer, mlp, end - before, cost * (end - before))
        before = end
