"""SAAP: structured pruning by fused Taylor scores and a budget that all modules share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from bench.method import Context, Method, MethodConfig, Traits

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Score = Literal["fusion", "vector", "element", "mean"]
Scope = Literal["model", "module_type", "layer_module"]
Fit = Literal["closed_form", "adam"]
Search = Literal["asi", "flap_z", "fluct_literal", "fluct_var", "uniform", "global_raw"]


class SAAPConfig(MethodConfig):
    """Defaults: our reading of the paper, most of whose settings are not public (see the card)."""

    param_ratio: float = Field(0.2, gt=0, lt=1, description="fraction of parameters removed, where no target is given")
    layers: tuple[int, int] | None = Field(
        None,
        description="pruned blocks as [first, last); by default all but the first 4 and the last 2, where a model of n "
        "blocks has n // 4 to spare at each end",
    )
    score: Score = Field(
        "fusion", description="the two scores weighted by learned noise, one of them alone, or their plain mean"
    )
    element_order: Literal["param_first", "param_second", "param_mix"] = Field(
        "param_mix", description="terms of the Taylor expansion in the element-wise score"
    )
    vector_granularity: Literal["row", "member"] = Field(
        "row", description="what the vector-wise score takes the absolute value over: a row, or a group's whole matrix"
    )
    sigma_fit: Fit = Field("closed_form", description="how the noise is fitted: exactly, or by gradient descent")
    sigma_scope: Scope = Field("module_type", description="structures that share a pair of noise parameters")
    search: Search = Field(
        "asi",
        description="removal order: lowest stability indicator; the same without the stability penalty (flap_z); most "
        "fluctuating first, by coefficient of variation or by variance; the same ratio everywhere (uniform); or "
        "the fused score with its log term, noise by module, not standardised (global_raw)",
    )
    stability: float = Field(0.5, ge=0, description="weight of the fluctuation in the stability penalty (asi)")
    search_steps: int = Field(1, ge=1, description="prune in this many steps, calibrating and scoring anew before each")
    min_channels: float = Field(
        0.05, gt=0, lt=1, description="fraction of a block's MLP channels that always stays (not for uniform)"
    )
    round_to: int = Field(1, ge=1, description="kept MLP channels are a multiple of this, where a block loses any")
    calibration_samples: int = Field(10, ge=2, description="calibration windows per step, each its own gradient")
    seq_len: int = Field(64, ge=2, description="tokens of a calibration window")

    @model_validator(mode="after")
    def _layers_ascend(self) -> SAAPConfig:
        if self.layers is not None and not 0 <= self.layers[0] < self.layers[1]:
            raise ValueError(f"layers: [first, last) must be 0 <= first < last, not {list(self.layers)}")
        return self


class SAAP(Method):
    """Fuses vector-wise and element-wise Taylor scores and removes what is unstable and unimportant, wherever it is."""

    name = "saap"
    version = "1"
    traits = Traits(
        title="SAAP",
        track="pruning",
        needs=frozenset({"calibration", "row_gradients"}),
        changes=frozenset({"shapes"}),
        deterministic=False,
        paper="Zheng et al., Adaptive Pruning for Large Language Models with Structural Importance Awareness, 2024, "
        "arXiv 2412.15127",
    )
    Config = SAAPConfig
    config: SAAPConfig

    def compress(self, model: PreTrainedModel, ctx: Context) -> PreTrainedModel:
        from .method import compress

        return compress(model, ctx, self.config)
