"""LLM-Pruner's three modes (arXiv 2305.11627, §4.1)."""

import torch
from transformers import PreTrainedModel

from bench.blocks.groups import Kept, Scores, shape_of
from bench.blocks.ranking import Choose
from bench.blocks.structured import prune_groups, prune_stepwise, wanted
from bench.blocks.taylor import score_groups, score_hidden
from bench.method import Context

from . import LLMPrunerConfig


def compress(model: PreTrainedModel, ctx: Context, config: LLMPrunerConfig) -> PreTrainedModel:
    """Prune `model` in the mode that `config` names."""
    modes = {"block": _prune_blocks, "channel": _prune_channels, "layer": _prune_layers}
    return modes[config.mode](model, ctx, config)


def _prune_blocks(model: PreTrainedModel, ctx: Context, config: LLMPrunerConfig) -> PreTrainedModel:
    """Heads and MLP channels of the inner blocks, the default mode."""

    def score(model: PreTrainedModel, layers: range, step: int) -> Scores:
        ids = _calibration(ctx, config, step)
        return score_groups(
            model, layers, config.importance, config.reduction, ids, gqa_fold=config.gqa_fold, progress=ctx.progress
        )

    return prune_groups(model, ctx, config, score, config.iterative_steps)


def _prune_channels(model: PreTrainedModel, ctx: Context, config: LLMPrunerConfig) -> PreTrainedModel:
    """Hidden dimensions of the whole network: int(D·(1 - ratio)) of them stay; the norms average over what is left."""
    hidden = shape_of(model).hidden

    def choices(model: PreTrainedModel, step: int) -> Choose:
        scores = score_hidden(model, config.importance, config.reduction, _calibration(ctx, config, step))
        best_first = scores.argsort(descending=True, stable=True).tolist()
        blocks = shape_of(model).keep_all().blocks
        return lambda _, ratio: Kept(blocks, tuple(sorted(best_first[: max(1, int(hidden * (1 - ratio)))])))

    return prune_stepwise(model, wanted(ctx, config), choices, config.iterative_steps)


def _prune_layers(model: PreTrainedModel, ctx: Context, config: LLMPrunerConfig) -> PreTrainedModel:
    """The last blocks: the first int(L·(1 - ratio)) stay, at least one."""

    def choices(model: PreTrainedModel, step: int) -> Choose:
        blocks = shape_of(model).keep_all().blocks
        return lambda _, ratio: Kept({i: blocks[i] for i in range(max(1, int(len(blocks) * (1 - ratio))))})

    return prune_stepwise(model, wanted(ctx, config), choices)


def _calibration(ctx: Context, config: LLMPrunerConfig, step: int) -> torch.Tensor | None:
    """Fresh windows for each step; None where the importance looks at weights alone."""
    if config.importance in ("l1", "l2"):
        return None
    return ctx.calibration(config.calibration_samples, config.seq_len, draw=step)
