"""CapaBoost: parallel low-rank branches that share their weights under static random masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from bench.blocks.settings import LoraTuning
from bench.method import Context, Method, Traits

if TYPE_CHECKING:
    from transformers import PreTrainedModel


MaskKind = Literal["unstructured", "nm", "complementary"]


class CapaBoostConfig(LoraTuning):
    """The defaults beyond those of LoRA are the published code's.

    Trained are r·(in + out) numbers per target, or in the adapter form b·(2·hidden + 1) + hidden per block, with
    b = hidden // reduction.
    """

    form: Literal["lora", "adapter"] = Field(
        "lora",
        description="low-rank updates of the targets, which are merged, or a bottleneck behind every MLP, "
        "which stays; r, alpha, dropout and targets belong to the first, reduction to the second",
    )
    reduction: int = Field(12, ge=1, description="the hidden width over that of one branch's bottleneck")
    d: int = Field(2, ge=1, description="parallel branches; the update's rank is up to d·r")
    density: float = Field(0.5, gt=0, le=1, description="fraction of the entries that each branch sees")
    mask_type: MaskKind = Field(
        "unstructured", description="unstructured, nm (2 of every 4), or complementary (two branches, no entry twice)"
    )
    mask_seed: int = Field(0, ge=0, description="seed of the masks, which do not depend on the run's seed")
    init_fan: Literal["in", "r"] = Field(
        "in", description="A starts uniform on 1/sqrt of this: inputs, as LoRA, or rank, as the published code"
    )
    normalize_scale: bool = Field(
        False, description="scale alpha/(r·d·density²) in place of alpha/r: the mean over masks is then LoRA's update"
    )

    @model_validator(mode="after")
    def _masks_can_be_drawn(self) -> CapaBoostConfig:
        if self.mask_type != "unstructured" and self.density != 0.5:
            raise ValueError(f"density: mask_type '{self.mask_type}' keeps half of the entries, not {self.density:g}")
        if self.mask_type == "complementary" and self.d != 2:
            raise ValueError(f"d: mask_type 'complementary' has two branches, not {self.d}")
        if self.mask_type == "nm" and self.form == "lora" and self.r % 4:
            raise ValueError(f"r: mask_type 'nm' keeps 2 of every 4, so r must be a multiple of 4, not {self.r}")
        if self.form == "adapter" and (self.init_fan != "in" or self.normalize_scale):
            raise ValueError("form: 'adapter' has neither init_fan nor normalize_scale, which are of the LoRA form")
        return self


class CapaBoost(Method):
    """Adapters whose pair of matrices is used d times, each time under other masks: more rank from as many numbers."""

    name = "capaboost"
    version = "1"
    traits = Traits(
        title="CapaBoost",
        track="peft",
        needs=frozenset({"training"}),
        changes=frozenset({"values", "adds_parameters"}),
        deterministic=False,
        paper="Song et al., Increasing Model Capacity for Free: A Simple Strategy for Parameter Efficient Fine-tuning, "
        "ICLR 2024, arXiv 2407.01320",
    )
    Config = CapaBoostConfig
    config: CapaBoostConfig

    def compress(self, model: PreTrainedModel, ctx: Context) -> PreTrainedModel:
        from .method import compress

        return compress(model, ctx, self.config)
