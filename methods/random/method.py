"""Random scores in place of a criterion."""

from transformers import PreTrainedModel

from bench.blocks.groups import Scores, shape_of
from bench.blocks.settings import SelectionConfig
from bench.blocks.structured import prune_groups
from bench.blocks.taylor import random_scores
from bench.method import Context


def compress(model: PreTrainedModel, ctx: Context, config: SelectionConfig) -> PreTrainedModel:
    """Prune the groups with the lowest random scores, drawn from the run's seed."""

    def score(model: PreTrainedModel, layers: range, step: int) -> Scores:
        return random_scores(shape_of(model), layers, ctx.generator("random"))

    return prune_groups(model, ctx, config, score)
