"""CapaBoost (arXiv 2407.01320): an adapter of rank, or width, d times as large, whose factors are masked copies."""

from transformers import PreTrainedModel

from bench.blocks.lora import attach, merge, refuse_target
from bench.blocks.train import train
from bench.errors import MethodError
from bench.method import Context

from . import CapaBoostConfig, bottleneck
from .branches import BranchMasks, share, unshare


def compress(model: PreTrainedModel, ctx: Context, config: CapaBoostConfig) -> PreTrainedModel:
    """Train the shared pair of every target, or of a bottleneck behind every MLP.

    The LoRA form is merged, and a LoRA of rank d·r goes with the model; bottlenecks stay in the model.
    """
    refuse_target(ctx, "capaboost")
    masks = BranchMasks(config.d, config.density, config.mask_type, config.mask_seed)
    if config.form == "adapter":
        return _with_bottlenecks(model, ctx, config, masks)
    adapted = attach(model, ctx, wide(config), name="capaboost")
    share(adapted, masks, config.init_fan)
    train(model, ctx, config, ctx.examples(config.max_length), name="capaboost")
    unshare(adapted)
    return merge(adapted, keep=True)


def wide(config: CapaBoostConfig) -> CapaBoostConfig:
    """The settings of the ordinary LoRA that the branches are together: rank d·r, at the scale of one branch."""
    scale = 1 / (config.d * config.density**2) if config.normalize_scale else 1.0
    return config.model_copy(update={"r": config.d * config.r, "alpha": config.alpha * config.d * scale})


def _with_bottlenecks(
    model: PreTrainedModel, ctx: Context, config: CapaBoostConfig, masks: BranchMasks
) -> PreTrainedModel:
    width = model.config.hidden_size // config.reduction
    if not width:
        raise MethodError(f"reduction: {config.reduction} leaves no width of the model's {model.config.hidden_size}")
    adapted = bottleneck.attach(model, ctx, width, masks)
    train(adapted, ctx, config, ctx.examples(config.max_length), name="capaboost")
    return bottleneck.fuse(adapted)
