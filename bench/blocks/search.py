"""Chooses which weights are approximated, and at which rank, by trials: each on the dense model, scored by the loss.

Source: the search of LASER (arXiv 2312.13558, §4) and TRAWL (arXiv 2406.17261): the first 20 % of the examples choose,
and no trial builds upon another. Where a size is asked for, a trial takes the fewest consecutive blocks that reach it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from bench.blocks.decomposition import DecompositionConfig
from bench.blocks.groups import shape_of
from bench.blocks.stacks import Stack, dims, matrices, stack, unstack
from bench.blocks.train import causal_loss
from bench.errors import MethodError
from bench.factor_shape import FactorShape
from bench.method import TARGET_TOLERANCE, Context, Target
from bench.model.factors import Factors
from bench.model.surgery import factorize
from bench.shape import Shape

Rank = tuple[int, ...]
Unit = tuple[Stack, ...]
Trial = tuple[tuple[Stack, Rank], ...]


@dataclass(frozen=True)
class Approximator:
    """How a method approximates: `rank(n, p, q, kept)` is the largest that stores at most kept·n·p·q numbers (and at
    least the smallest there is), `approximate(x, stack, rank)` the factors of a tensor x [n, p, q]."""

    rank: Callable[[int, int, int, float], Rank]
    approximate: Callable[[torch.Tensor, Stack, Rank], Factors]


def tried_layers(config: DecompositionConfig, ctx: Context, n_blocks: int, *, single: bool) -> range:
    """The blocks that are tried: `config.layers`, or by default the last 15 % (where `single`) or all.

    Raises:
        MethodError: `config.layers` reaches beyond the model.
    """
    if config.layers is None:
        few = single and (ctx.target is None or ctx.target.basis == "group_ratio")
        return range(n_blocks - math.ceil(0.15 * n_blocks) if few else 0, n_blocks)
    if config.layers[1] > n_blocks:
        raise MethodError(
            f"layers: [{config.layers[0]}, {config.layers[1]}) reaches beyond the model's {n_blocks} blocks"
        )
    return range(*config.layers)


def decompose(
    model: PreTrainedModel,
    ctx: Context,
    config: DecompositionConfig,
    units: Sequence[Unit],
    ranks: Callable[[Stack], Sequence[Rank]],
    approximator: Approximator,
) -> PreTrainedModel:
    """Approximate the units that do least harm.

    Without a size to reach one unit is approximated: every unit is tried at each of `ranks(stack)` that stores fewer
    numbers than the dense weights, or at the rank that `group_ratio` leads to.

    Raises:
        MethodError: the size cannot be reached, or cannot change because dense weights are written back; no rank
            stores fewer numbers; no trial leaves a finite loss.
    """
    shape, target = shape_of(model), ctx.target
    ratio = target.value if target is not None and target.basis == "group_ratio" else config.group_ratio
    if target is not None and target.basis != "group_ratio":
        if config.materialize:
            raise MethodError(f"target {target}: materialize=true writes dense weights back, so no size would change")
        trials = sized_trials(shape, target, units, approximator, config.spans)
    elif ratio is not None:
        trials = [tuple((s, approximator.rank(*dims(shape, s), 1 - ratio)) for s in unit) for unit in units]
    else:
        trials = [t for unit in units for t in _at_each_rank(shape, unit, ranks)]
    chosen = _best(model, ctx, config, trials, approximator)
    if not config.materialize:
        return factorize(model, [(s.slices, factors) for s, factors in chosen])
    for s, factors in chosen:
        unstack(model, s, factors.slices())
    return model


def after(shape: Shape, trial: Trial) -> Shape:
    """The shape that a trial leaves when its factors stay."""
    return shape.factored(FactorShape(s.rows, s.columns, rank, s.slices) for s, rank in trial)


def sized_trials(
    shape: Shape, target: Target, units: Sequence[Unit], approximator: Approximator, spans: int
) -> list[Trial]:
    """For each of the last `spans` places where a run of units may end, the shortest run that reaches `target`.

    Raises:
        MethodError: all units together do not reach it.
    """
    trials: list[Trial] = []
    for end in range(len(units), 0, -1):
        for start in range(end - 1, -1, -1):
            trial = _steered(shape, target, [s for unit in units[start:end] for s in unit], approximator)
            if trial is not None:
                trials.append(trial)
                break
        if len(trials) == spans:
            break
    if not trials:
        smallest = tuple((s, approximator.rank(*dims(shape, s), 0)) for unit in units for s in unit)
        most = shape.removed(after(shape, smallest))[target.basis]
        raise MethodError(
            f"target {target} cannot be reached: factors of the smallest rank for all {len(units)} units that may be "
            f"approximated remove {most:.4f} of {target.basis}"
        )
    return trials


def _steered(shape: Shape, target: Target, stacks: Sequence[Stack], approximator: Approximator) -> Trial | None:
    """`stacks` at one ratio, or the last of them a rank higher, so that the target is met; None where it is not."""

    def trial(kept: float, richer: int = 0, above: float = 0.0) -> Trial:
        poor, rich = (
            [(s, approximator.rank(*dims(shape, s), k)) for s in part]
            for part, k in ((stacks[: len(stacks) - richer], kept), (stacks[len(stacks) - richer :], above))
        )
        return (*poor, *rich)

    def removed(trial: Trial) -> float:
        return shape.removed(after(shape, trial))[target.basis]

    low, high = 0.0, 1.0
    if removed(trial(low)) < target.value:
        return None
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (middle, high) if removed(trial(middle)) >= target.value else (low, middle)
    best = min(
        (trial(low, richer, high) for richer in range(len(stacks) + 1)), key=lambda t: abs(removed(t) - target.value)
    )
    return best if abs(removed(best) - target.value) <= TARGET_TOLERANCE else None


def _at_each_rank(shape: Shape, unit: Unit, ranks: Callable[[Stack], Sequence[Rank]]) -> list[Trial]:
    trials = [tuple(zip(unit, at, strict=True)) for at in zip(*(ranks(s) for s in unit), strict=True)]
    smaller = [t for t in trials if sum(_numbers(shape, *piece) for piece in t) < 0]
    if not smaller:
        raise MethodError(f"{unit[0].name}: factors of every rank tried would store more numbers than the weights do")
    return smaller


def _numbers(shape: Shape, s: Stack, rank: Rank) -> int:
    """Numbers that factors of `rank` store, less those of the tensor of `s`."""
    n, p, q = dims(shape, s)
    return p * rank[0] + q * rank[-1] + n * math.prod(rank) - n * p * q


def _best(
    model: PreTrainedModel,
    ctx: Context,
    config: DecompositionConfig,
    trials: Sequence[Trial],
    approximator: Approximator,
) -> list[tuple[Stack, Factors]]:
    """The trial with the lowest loss on the first windows, and its factors."""
    ids = ctx.calibration(config.calibration_samples, config.seq_len)
    ids = ids[: max(1, round(config.validation_share * len(ids)))]
    made: dict[tuple[Stack, Rank], Factors] = {}
    best, lowest = trials[0], math.inf
    for i, trial in enumerate(trials):
        for piece in trial:
            if piece not in made:
                ctx.check_cancelled()
                made[piece] = approximator.approximate(stack(model, piece[0]), *piece)
        loss = _loss_with(model, ids, [(s, made[s, rank]) for s, rank in trial])
        if loss < lowest:
            best, lowest = trial, loss
        needed = {piece for later in (best, *trials[i + 1 :]) for piece in later}
        made = {piece: factors for piece, factors in made.items() if piece in needed}
        ctx.progress("low-rank trials", i + 1, len(trials))
    if lowest == math.inf:
        raise MethodError("the loss is not finite after any of the trials")
    return [(s, made[s, rank]) for s, rank in best]


def _loss_with(model: PreTrainedModel, ids: torch.Tensor, approximations: Sequence[tuple[Stack, Factors]]) -> float:
    """Summed loss on `ids` with dense weights approximated; the weights are put back."""
    weights = [weight for s, _ in approximations for weight in matrices(model, s)]
    dense = [weight.detach().clone() for weight in weights]
    for s, factors in approximations:
        unstack(model, s, factors.slices())
    with torch.no_grad():
        loss: float = sum(causal_loss(model, part, part).item() for part in ids.split(8))
    for weight, value in zip(weights, dense, strict=True):
        weight.data.copy_(value)
    return loss
