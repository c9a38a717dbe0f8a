"""CapaBoost's LoRA form (arXiv 2407.01320) on stock peft: an adapter of rank d·r whose factors are masked copies."""

from transformers import PreTrainedModel

from bench.blocks.branches import Masks, share, unshare
from bench.blocks.lora import attach, merge, refuse_target
from bench.blocks.train import train
from bench.method import Context
from methods.capaboost import CapaBoostConfig


def compress(model: PreTrainedModel, ctx: Context, config: CapaBoostConfig) -> PreTrainedModel:
    """Train the shared pair of every target and merge the branches; a LoRA of rank d·r goes with the model."""
    refuse_target(ctx, "capaboost")
    adapted = attach(model, ctx, wide(config), name="capaboost")
    share(adapted, Masks(config.d, config.density, config.mask_type, config.mask_seed), config.init_fan)
    train(model, ctx, config, ctx.examples(config.max_length), name="capaboost")
    unshare(adapted)
    return merge(adapted, keep=True)


def wide(config: CapaBoostConfig) -> CapaBoostConfig:
    """The settings of the ordinary LoRA that the branches are together: rank d·r, at the scale of one branch."""
    scale = 1 / (config.d * config.density**2) if config.normalize_scale else 1.0
    return config.model_copy(update={"r": config.d * config.r, "alpha": config.alpha * config.d * scale})
