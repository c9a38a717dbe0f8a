"""Compresso's phases: LoRA alone, LoRA with masks under a Lagrangian, masks fixed (arXiv 2310.05015, §3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from bench.blocks.groups import Kept, shape_of
from bench.blocks.lora import attach, merge
from bench.blocks.notice import NOTICE
from bench.blocks.ranking import to_target
from bench.blocks.train import Hooks, steps_of, train
from bench.method import Context, Example, Target

from . import CompressoConfig
from .l0 import HardConcrete, Lagrangian, Masks
from .masks import Values, fold, masked


def compress(model: PreTrainedModel, ctx: Context, config: CompressoConfig) -> PreTrainedModel:
    """Learn masks and adapters together, fix the masks at the wanted size, train the adapters on, merge and slice.

    Raises:
        MethodError: the target cannot be reached, too few examples, or a loss that is not finite.
    """
    target = ctx.target or Target(basis="group_ratio", value=config.target_sparsity)
    examples = ctx.examples(config.max_length, prefix=NOTICE if config.notice else "")
    config = config.model_copy(update={"steps": steps_of(config, max(1, len(examples) - config.holdout))})
    adapted = attach(model, ctx, config, "compresso")
    masks = masks_for(model, ctx, config)
    learn(model, ctx, config, masks, target, examples)
    final = masks.values(_kept(masks, target, config))
    if config.finetune_epochs:
        with masked(model, lambda: final):
            train(model, ctx, finetuning(config), examples, name="compresso: fine-tuning")
    return fold(merge(adapted), final)


def finetuning(config: CompressoConfig) -> CompressoConfig:
    """The settings of phase 2: its steps in proportion to the examples that it goes through."""
    share = config.finetune_epochs * config.batch_size / (config.epochs * config.finetune_batch_size)
    return config.model_copy(
        update={
            "steps": max(1, round((config.steps or 0) * share)),
            "batch_size": config.finetune_batch_size,
            "lr": config.finetune_lr,
            "holdout": 0,
        }
    )


def masks_for(model: PreTrainedModel, ctx: Context, config: CompressoConfig) -> Masks:
    """The masks of `model` as they start."""
    means = {"heads": config.init_heads, "channels": config.init_channels, "hidden": config.init_hidden}
    return Masks(
        shape_of(model),
        {kind: means[kind] for kind in config.masks},
        ctx.generator("compresso: masks"),
        ctx.device,
        spread=config.init_spread,
        law=HardConcrete(config.beta, config.low, config.high),
    )


def learn(
    model: PreTrainedModel,
    ctx: Context,
    config: CompressoConfig,
    masks: Masks,
    target: Target,
    examples: Sequence[Example],
) -> None:
    """Phases 0 and 1 in one run of the training loop; masks take part from step `before` + 1 on."""
    steps_per_epoch = (config.steps or 0) / config.epochs
    before, ramp = (round(steps_per_epoch * epochs) for epochs in (config.prepruning_epochs, config.ramp_epochs))
    lagrangian = Lagrangian(target.value, ramp, config.ramp, ctx.device)
    adapters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    pruning = False

    def groups() -> list[dict[str, Any]]:
        return [
            {"params": adapters},
            {"params": list(masks.logits.values()), "lr": config.mask_lr, "weight_decay": 0.0},
            {"params": [lagrangian.multipliers], "lr": config.multiplier_lr, "weight_decay": 0.0, "maximize": True},
        ]

    def penalty(step: int) -> torch.Tensor:
        nonlocal pruning
        pruning = step > before
        if not pruning:
            return torch.zeros((), requires_grad=True)
        masks.draw()
        return lagrangian.penalty(masks.sparsity(target.basis), step - before)

    def values() -> Values | None:
        if not pruning:
            return None
        return masks.sampled() if model.training else masks.values(masks.kept())

    def after_step(step: int) -> None:
        if pruning:
            masks.limit(config.limit)

    def may_keep(step: int) -> bool:
        return pruning and reached(masks, target, config)

    hooks = Hooks(groups, penalty, after_step, may_keep, adapters)
    with masked(model, values):
        train(model, ctx, config, examples, name="compresso", hooks=hooks)


def _kept(masks: Masks, target: Target, config: CompressoConfig) -> Kept:
    """What is kept: by the published rule, or where a size is to be met, with the logits shifted until it is.

    A sparsity of the method's own (`group_ratio`) that training has not reached is made up for in the same way.
    """
    if target.basis == "group_ratio":
        if reached(masks, target, config):
            return masks.kept()
        target = Target(basis="block_params", value=target.value)
    widest = 4 * config.limit

    def choose(ratio: float, channel_ratio: float) -> Kept:
        return masks.kept(widest * (1 - 2 * ratio), widest * (1 - 2 * channel_ratio))

    return to_target(masks.shape, target, choose)


def reached(masks: Masks, target: Target, config: CompressoConfig) -> bool:
    """Whether the expected sparsity is the target's, or more, or less by `sparsity_epsilon` at most."""
    return bool(masks.sparsity(target.basis).item() >= target.value - config.sparsity_epsilon)
