"""Structured pruning by the weights alone."""

from transformers import PreTrainedModel

from bench.blocks.groups import Scores
from bench.blocks.structured import prune_groups
from bench.blocks.taylor import score_groups
from bench.method import Context

from . import MagnitudeConfig


def compress(model: PreTrainedModel, ctx: Context, config: MagnitudeConfig) -> PreTrainedModel:
    """Prune the groups whose weights are smallest."""

    def score(model: PreTrainedModel, layers: range, step: int) -> Scores:
        return score_groups(model, layers, config.norm, config.reduction)

    return prune_groups(model, ctx, config, score)
