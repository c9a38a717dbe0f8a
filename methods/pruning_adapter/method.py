"""Pruning-Adapter (arXiv 2303.14704): score heads on the task, remove the worst once, train adapters on the rest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from bench.blocks.groups import blocks_of, final_norm_of, prune, shape_of
from bench.blocks.lora import merge
from bench.blocks.train import Hooks, seeded, train
from bench.method import Context, Example

from . import PruningAdapterConfig
from .head_masks import UnitMasks, mask_importance
from .ranking import adapter_ranks, normalised, select

NAME = "pruning_adapter"
INIT_STD = 0.01


def compress(model: PreTrainedModel, ctx: Context, config: PruningAdapterConfig) -> PreTrainedModel:
    """Prune `model` by its heads' importance for the training examples, train on these, and merge the adapters.

    Raises:
        MethodError: the size cannot be reached, or the loss is not finite.
    """
    examples = ctx.examples(config.max_length)
    scores = score(model, ctx, config, examples)
    model = prune(model, select(shape_of(model), ctx.target, scores, config))
    adapted = attach(model, ctx, config, adapter_ranks(scores.heads, config))
    hooks = Hooks(groups=lambda: parameter_groups(model, config))
    train(model, ctx, config, examples, name=NAME, hooks=hooks)
    return merge(adapted)


def score(model: PreTrainedModel, ctx: Context, config: PruningAdapterConfig, examples: Sequence[Example]) -> UnitMasks:
    """Scores of query heads in [0, 1], and of MLP channels where a size target may need them to go.

    Channels are ranked by their importance as it is: norms of their own would let a few outliers empty the last layers.
    """
    order = torch.randperm(len(examples), generator=ctx.generator(f"{NAME}: importance"))
    drawn = [examples[i] for i in order[: config.n_samples].tolist()]
    sized = ctx.target is not None and ctx.target.basis != "group_ratio"
    importance = mask_importance(model, drawn, channels=config.channels and sized, progress=ctx.progress)
    return UnitMasks(normalised(importance.heads), importance.channels)


def attach(model: PreTrainedModel, ctx: Context, config: PruningAdapterConfig, ranks: Sequence[int]) -> PeftModel:
    """Put adapters on the targets of `model`, in place: ΔW = alpha/r · B A with layer i's r = `ranks[i]`.

    A [r, in] is drawn from N(0, 0.01²) and B [out, r] is 0, as in the published code. They and, where wanted, the norms
    are all that requires gradients.
    """
    paths = {module: path for path, module in model.named_modules()}
    by_path = {
        paths[linear]: ranks[block.index]
        for block in blocks_of(model)
        for linear in (block.q, block.k, block.v, block.o, block.gate, block.up, block.down)
        if paths[linear].rpartition(".")[2] in config.targets
    }
    patterns = {re.escape(path): rank for path, rank in by_path.items()}
    settings = LoraConfig(
        target_modules=list(by_path),
        rank_pattern=patterns,
        bias="none",
        task_type="CAUSAL_LM",
        alpha_pattern={path: config.alpha or 2 * rank for path, rank in patterns.items()},
    )
    with seeded(ctx, f"{NAME}: adapters"):
        adapted = get_peft_model(model, settings)
        for name, parameter in model.named_parameters():
            if ".lora_A." in name:
                nn.init.normal_(parameter, std=INIT_STD)
    if config.train_norms:
        for weight in norms_of(model):
            weight.requires_grad_(True)
    return adapted


def parameter_groups(model: PreTrainedModel, config: PruningAdapterConfig) -> list[dict[str, Any]]:
    """AdamW's groups: adapters, and norms without weight decay (as the published trainer has it)."""
    norms = norms_of(model) if config.train_norms else []
    adapters = [p for p in model.parameters() if p.requires_grad and not any(p is norm for norm in norms)]
    return [{"params": adapters}, *([{"params": norms, "weight_decay": 0.0}] if norms else [])]


def norms_of(model: PreTrainedModel) -> list[nn.Parameter]:
    """The weights of all norms, first to last."""
    norms = [norm for block in blocks_of(model) for norm in (block.attention_norm, block.mlp_norm)]
    return [norm.weight for norm in (*norms, final_norm_of(model))]
