"""Low-rank adapters (stock peft): attached, trained, merged. What is left is a plain model.

As a recovery they repair any compressed model; as a method they may be kept with the merged weights.
"""

from __future__ import annotations

from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from torch import nn
from transformers import PreTrainedModel

from bench.blocks import lora_on_factors
from bench.blocks.settings import FACTORS, LoraRecovery, LoraSettings
from bench.blocks.train import seeded, train
from bench.errors import MethodError
from bench.families import PROJECTIONS
from bench.method import Context
from bench.model.adapter import Adapter


def recover(model: PreTrainedModel, ctx: Context, config: LoraRecovery) -> PreTrainedModel:
    """Train adapters on the harness's examples and merge them (LLM-Pruner's post-training, §3.3).

    `model` may have widths of its own in every layer. Targets that are factored, not plain matrices, get no adapter of
    their own; where `targets` names `factors`, the factors do (`bench.blocks.lora_on_factors`). What comes back is of
    the same class, in evaluation mode, with neither adapters nor gradients.

    Raises:
        MethodError: an unknown projection in `targets`, none of them a plain matrix, too few examples, or a loss that
            is not finite.
    """
    plain = tuple(target for target in config.targets if target != FACTORS)
    adapted = attach(model, ctx, config.model_copy(update={"targets": plain}))
    with seeded(ctx, "lora: factors"):
        factors = lora_on_factors.attach(model, config.r, config.alpha) if FACTORS in config.targets else []
    train(model, ctx, config, ctx.examples(config.max_length), name="lora")
    lora_on_factors.merge(factors)
    return merge(adapted)


def attach(model: PreTrainedModel, ctx: Context, config: LoraSettings, name: str = "lora") -> PeftModel:
    """Put adapters on the projections of `model` that `targets` names and that are `nn.Linear`, in place.

    ΔW = alpha/r · B A with A [r, in] from a uniform distribution on ±1/√in and B [out, r] = 0 (LoRA, arXiv 2106.09685,
    §4.1); only A and B require gradients. An earlier adapter of the model would not be the whole change any more:
    it is dropped.

    Raises:
        MethodError: an unknown projection in `targets`, or none of them is an `nn.Linear` in this model.
    """
    unknown = sorted(set(config.targets) - set(PROJECTIONS))
    if unknown:
        raise MethodError(f"{name}: targets: '{unknown[0]}' is not a projection; known are {', '.join(PROJECTIONS)}")
    named = {path: module for path, module in model.named_modules() if path.rpartition(".")[2] in config.targets}
    factored = [path for path, module in named.items() if not isinstance(module, nn.Linear)]
    if len(factored) == len(named):
        raise MethodError(f"{name}: targets: in this model none of {', '.join(config.targets)} is a plain matrix")
    settings = LoraConfig(
        r=config.r,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(config.targets),
        exclude_modules=factored or None,
        bias="none",
        task_type="CAUSAL_LM",
    )
    vars(model).pop("leanboard_adapter", None)
    with seeded(ctx, f"{name}: adapters"):
        return get_peft_model(model, settings)


def merge(adapted: PeftModel, *, keep: bool = False) -> PreTrainedModel:
    """The model with the adapters added to its weights; with `keep` they go with it (`adapter_of`)."""
    adapter = Adapter(adapted.peft_config["default"], get_peft_model_state_dict(adapted)) if keep else None
    merged: PreTrainedModel = adapted.merge_and_unload()
    for leftover in ("peft_config", "_hf_peft_config_loaded"):
        vars(merged).pop(leftover, None)
    for parameter in merged.parameters():
        parameter.grad = None
    if adapter is not None:
        merged.leanboard_adapter = adapter
    return merged.requires_grad_(False).eval()


def refuse_target(ctx: Context, name: str) -> None:
    """PEFT methods remove nothing.

    Raises:
        MethodError: the context has a size target.
    """
    if ctx.target is not None:
        raise MethodError(f"target {ctx.target}: {name} trains adapters and removes nothing; leave the target out")
