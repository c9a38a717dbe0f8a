"""Compresso: structured pruning whose masks are learnt together with LoRA, on text with a notice to the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from bench.blocks.settings import LoraSettings
from bench.families import Q, V
from bench.method import Context, Method, Traits

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class CompressoConfig(LoraSettings):
    """Defaults: the published code's, for its 8 epochs of pruning and 3 of fine-tuning on GPT-4's Alpaca answers.

    Only the examples set aside, 500 there, are left to the `paper` preset: a caller's own text may be shorter.
    """

    target_sparsity: float = Field(
        0.3, gt=0, lt=1, description="fraction of the blocks' projections removed, where no target is given"
    )
    masks: tuple[Literal["heads", "channels", "hidden"], ...] = Field(
        ("heads", "channels", "hidden"), min_length=1, description="what is masked"
    )
    notice: bool = Field(True, description="put the notice about the pruning before every training example")

    epochs: float = Field(8.0, gt=0, description="passes over the examples before the masks are fixed")
    prepruning_epochs: float = Field(1.0, ge=0, description="the first of them that train LoRA alone, without masks")
    ramp_epochs: float = Field(4.0, ge=0, description="those after that in which the sparsity asked for rises from 0")
    ramp: Literal["linear", "cubic"] = Field("linear", description="how it rises")
    finetune_epochs: float = Field(3.0, ge=0, description="passes that train LoRA on after the masks are fixed")
    steps: int | None = Field(
        None,
        ge=1,
        description="optimiser steps until the masks are fixed, in place of epochs; the phases keep their "
        "shares, and fine-tuning comes on top with as many examples to each of these as the epochs say",
    )

    lr: float = Field(5e-5, gt=0, description="peak learning rate of LoRA while masks are learnt")
    finetune_lr: float = Field(4e-4, gt=0, description="peak learning rate of LoRA once they are fixed")
    mask_lr: float = Field(0.1, gt=0, description="peak learning rate of the masks' logits")
    multiplier_lr: float = Field(0.1, gt=0, description="peak rate of ascent of the Lagrangian's multipliers")
    warmup_steps: int = Field(0, ge=0, description="steps of linear warm-up of all rates")
    batch_size: int = Field(1, ge=1, description="examples per optimiser step while masks are learnt")
    finetune_batch_size: int = Field(8, ge=1, description="examples per optimiser step once they are fixed")
    micro_batch: int = Field(1, ge=1, description="examples per forward pass; changes memory and speed, not the result")
    max_length: int = Field(1024, ge=2, description="tokens of an example at most, the notice not counted")
    holdout: int = Field(0, ge=0, description="examples set aside to choose the best step by; 0 keeps the last step")
    evaluate_every: int = Field(5000, ge=1, description="steps between two looks at the examples set aside")

    alpha: float = Field(8.0, gt=0, description="scale of the adapters, divided by r")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout before the adapters")
    targets: tuple[str, ...] = Field((Q, V), min_length=1, description="projections that get an adapter")

    init_heads: float = Field(10.0, description="mean logit of the heads' masks at first")
    init_channels: float = Field(4.59512, description="the channels' (a mask is 0 with probability 0.002 then)")
    init_hidden: float = Field(10.0, description="the hidden dimensions'")
    init_spread: float = Field(0.01, ge=0, description="standard deviation of the logits at first")
    limit: float = Field(4.60517, gt=0, description="largest absolute logit after a step (the logarithm of 100)")
    beta: float = Field(2 / 3, gt=0, description="temperature of the hard-concrete distribution")
    low: float = Field(-0.1, lt=0, description="lower end of the interval that samples are stretched to")
    high: float = Field(1.1, gt=1, description="upper end of that interval")
    sparsity_epsilon: float = Field(
        0.005, ge=0, description="how far below the target the expected sparsity of a step that is kept may be"
    )

    @model_validator(mode="after")
    def _fields_go_together(self) -> CompressoConfig:
        if self.prepruning_epochs >= self.epochs:
            raise ValueError(
                f"prepruning_epochs: must be fewer than epochs={self.epochs:g}, not {self.prepruning_epochs:g}"
            )
        if len(set(self.masks)) < len(self.masks):
            raise ValueError(f"masks: each at most once, not {list(self.masks)}")
        return self


class Compresso(Method):
    """Learns what goes by L0 regularisation, together with LoRA, on text with a notice to the model."""

    name = "compresso"
    version = "1"
    traits = Traits(
        title="Compresso",
        track="pruning",
        needs=frozenset({"training"}),
        changes=frozenset({"shapes", "values"}),
        deterministic=False,
        paper="Guo, Xu, Zhang, Yang, Compresso: Structured Pruning with Collaborative Prompting Learns Compact Large "
        "Language Models, arXiv 2310.05015",
    )
    Config = CompressoConfig
    config: CompressoConfig

    def compress(self, model: PreTrainedModel, ctx: Context) -> PreTrainedModel:
        from .method import compress

        return compress(model, ctx, self.config)
