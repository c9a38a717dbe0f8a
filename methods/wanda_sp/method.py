"""Structured pruning by weights times activations."""

from transformers import PreTrainedModel

from bench.blocks.activations import wanda_scores
from bench.blocks.groups import Scores
from bench.blocks.structured import prune_groups
from bench.method import Context

from . import WandaSpConfig


def compress(model: PreTrainedModel, ctx: Context, config: WandaSpConfig) -> PreTrainedModel:
    """Prune the groups with the smallest sum of |W_ij|·‖X_j‖."""

    def score(model: PreTrainedModel, layers: range, step: int) -> Scores:
        ids = ctx.calibration(config.calibration_samples, config.seq_len)
        return wanda_scores(model, layers, ids, ctx.progress)

    return prune_groups(model, ctx, config, score)
