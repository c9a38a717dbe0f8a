"""Recovery with low-rank adapters (stock peft), merged at the end: what is left is a plain model."""

from __future__ import annotations

from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from bench.blocks.settings import LoraRecovery
from bench.blocks.train import seeded, train
from bench.errors import MethodError
from bench.method import Context
from bench.model.layers import PROJECTIONS


def recover(model: PreTrainedModel, ctx: Context, config: LoraRecovery) -> PreTrainedModel:
    """Train adapters on the harness's examples and merge them (LLM-Pruner's post-training, §3.3).

    `model` may have widths of its own in every layer. What comes back is of the same class, in evaluation mode, with
    neither adapters nor gradients.

    Raises:
        MethodError: an unknown projection in `targets`, too few examples, or a loss that is not finite.
    """
    unknown = sorted(set(config.targets) - set(PROJECTIONS))
    if unknown:
        raise MethodError(f"lora: targets: '{unknown[0]}' is not a projection; known are {', '.join(PROJECTIONS)}")
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    settings = LoraConfig(
        r=config.r, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=list(config.targets),
        bias="none", task_type="CAUSAL_LM",
    )  # fmt: skip
    with seeded(ctx, "lora: adapters"):
        adapted = get_peft_model(model, settings)
    train(model, ctx, config, ctx.examples(config.max_length), name="lora")
    merged: PreTrainedModel = adapted.merge_and_unload()
    for leftover in ("peft_config", "_hf_peft_config_loaded"):
        vars(merged).pop(leftover, None)
    for name, parameter in merged.named_parameters():
        parameter.grad = None
        parameter.requires_grad_(flags[name])
    return merged.eval()
