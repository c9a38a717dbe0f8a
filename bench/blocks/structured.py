"""Structured pruning in one place: score groups, select as the settings say, slice; step by step where asked."""

from __future__ import annotations

from collections.abc import Callable

from transformers import PreTrainedModel

from bench.blocks.groups import Kept, Scores, prune, pruned_layers, shape_of
from bench.blocks.ranking import Choose, Ranking, to_target
from bench.blocks.settings import SelectionConfig
from bench.method import Context, Target

Score = Callable[[PreTrainedModel, range, int], Scores]


def prune_groups(
    model: PreTrainedModel, ctx: Context, config: SelectionConfig, score: Score, steps: int = 1
) -> PreTrainedModel:
    """Prune attention and MLP groups by `score(model, layers, step)` until the wanted size is reached.

    Raises:
        MethodError: that size cannot be reached, or `config.layers` reaches beyond the model.
    """
    dense = shape_of(model)
    layers = pruned_layers(config.layers, len(dense.blocks))

    def choices(model: PreTrainedModel, step: int) -> Choose:
        ranking = Ranking(dense, shape_of(model), score(model, layers, step))

        def choose(attention_ratio: float, mlp_ratio: float) -> Kept:
            if config.global_ranking:
                return ranking.overall(mlp_ratio, config.round_to)
            return ranking.module_wise(attention_ratio, mlp_ratio, config.round_to)

        return choose

    return prune_stepwise(model, wanted(ctx, config), choices, steps)


def wanted(ctx: Context, config: SelectionConfig) -> Target:
    """The context's target, or without one `config.group_ratio`."""
    return ctx.target or Target(basis="group_ratio", value=config.group_ratio)


def prune_stepwise(
    model: PreTrainedModel, target: Target, choices: Callable[[PreTrainedModel, int], Choose], steps: int = 1
) -> PreTrainedModel:
    """Prune in `steps` steps: after step t, t/steps of `target` is gone.

    `choices(model, step)`, called anew on what each step has left, gives the choice that `to_target` steers.
    """
    dense = shape_of(model)
    for step in range(steps):
        share = Target(basis=target.basis, value=(step + 1) / steps * target.value)
        choose = choices(model, step)
        kept = to_target(dense, share, choose, current=shape_of(model), must_reach=step + 1 == steps)
        model = prune(model, kept)
    return model
