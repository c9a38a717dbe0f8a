"""LLM-Pruner: structured pruning of coupled groups by gradient-based importance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from bench.blocks.settings import GqaFold, Importance, Reduction, SelectionConfig
from bench.method import Context, Method, Traits

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LLMPrunerConfig(SelectionConfig):
    """Defaults: the published code's."""

    mode: Literal["block", "channel", "layer"] = Field(
        "block", description="what is removed: heads and MLP channels, hidden dimensions, or the last blocks"
    )
    importance: Importance = Field("param_first", description="what a weight is worth (the paper's Element^1)")
    reduction: Reduction = Field("sum", description="how the members of a group are put together")
    iterative_steps: int = Field(1, ge=1, description="prune in this many steps, calibrating anew before each")
    calibration_samples: int = Field(10, ge=1, description="calibration windows per step")
    seq_len: int = Field(64, ge=2, description="tokens of a calibration window (64 in the code, 128 in the paper)")
    gqa_fold: GqaFold = Field(
        "contiguous", description="which query heads a key/value head counts: its own, or strided as the code does"
    )

    @model_validator(mode="after")
    def _fields_go_together(self) -> LLMPrunerConfig:
        if self.mode == "channel" and self.importance in ("param_second", "param_mix"):
            raise ValueError(f"importance: '{self.importance}' needs the Fisher pass, which mode 'channel' lacks")
        if self.mode != "block" and self.layers is not None:
            raise ValueError(f"layers: does not go with mode '{self.mode}', which takes all blocks")
        if self.mode != "block" and (self.global_ranking or self.round_to != 1):
            raise ValueError(f"mode: '{self.mode}' knows neither global_ranking nor round_to")
        if self.mode == "layer" and self.iterative_steps != 1:
            raise ValueError("iterative_steps: mode 'layer' has no scores to refresh")
        return self


class LLMPruner(Method):
    """Removes the coupled groups whose loss change, estimated by a Taylor expansion, is smallest."""

    name = "llm_pruner"
    version = "1"
    traits = Traits(
        title="LLM-Pruner",
        track="pruning",
        needs=frozenset({"calibration", "gradients"}),
        changes=frozenset({"shapes"}),
        deterministic=False,
        paper="Ma, Fang, Wang, LLM-Pruner: On the Structural Pruning of Large Language Models, NeurIPS 2023, "
        "arXiv 2305.11627",
    )
    Config = LLMPrunerConfig
    config: LLMPrunerConfig

    def compress(self, model: PreTrainedModel, ctx: Context) -> PreTrainedModel:
        from .method import compress

        return compress(model, ctx, self.config)
