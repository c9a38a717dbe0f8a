"""SAAP's importance estimation and pruning (arXiv 2412.15127)."""

import torch
from transformers import PreTrainedModel

from bench.blocks.groups import Scores, pruned_layers, shape_of
from bench.blocks.ranking import Choose, Ranking
from bench.blocks.structured import prune_stepwise
from bench.method import Context, Target

from . import SAAPConfig
from .fusion import Line, fuse
from .sampled import Sampled, sample_groups
from .search import Budget, order_scores


def compress(model: PreTrainedModel, ctx: Context, config: SAAPConfig) -> PreTrainedModel:
    """Score, fuse, search and slice until the context's target (or `config.param_ratio` of all parameters) is reached.

    Raises:
        MethodError: the size cannot be reached, or `config.layers` reaches beyond the model.
    """
    dense = shape_of(model)
    layers = pruned_layers(config.layers, len(dense.blocks))

    def choices(model: PreTrainedModel, step: int) -> Choose:
        sampled = sample_groups(
            model,
            layers,
            ctx.calibration(config.calibration_samples, config.seq_len, draw=step),
            config.element_order,
            whole_members=config.vector_granularity == "member",
            progress=ctx.progress,
        )
        ranking = Ranking(dense, shape_of(model), removal_scores(sampled, config))
        if config.search == "uniform":
            return lambda attention, mlp: ranking.module_wise(attention, mlp, config.round_to)
        return Budget(ranking, config.round_to, config.min_channels).choose

    return prune_stepwise(model, ctx.target or Target(value=config.param_ratio), choices, config.search_steps)


def removal_scores(sampled: Sampled, config: SAAPConfig) -> Scores:
    """What each structure is worth to the search: the lowest go first."""
    line = Line.of(sampled.vector)
    modules = line.labels("layer_module")
    scope = modules if config.search == "global_raw" else line.labels(config.sigma_scope)
    vector, element = line.flat(sampled.vector), line.flat(sampled.element)
    fusion = fuse(vector, element, scope, config.score, config.sigma_fit)
    pairs = zip(sampled.vectors, sampled.elements, strict=True)
    samples = torch.stack([fusion.of(line.flat(v), line.flat(e)) for v, e in pairs])
    return line.scores(order_scores(fusion.of(vector, element), fusion.log, samples, modules, config))
