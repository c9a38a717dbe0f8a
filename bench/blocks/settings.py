"""The settings that methods and recoveries share. No torch here, so that listing methods stays cheap."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from bench.families import PROJECTIONS, Q, V
from bench.method import MethodConfig

Gradient = Literal["vectorize", "param_first", "param_second", "param_mix"]
Norm = Literal["l1", "l2"]
Importance = Gradient | Norm
Reduction = Literal["sum", "mean", "max", "prod", "first", "last"]
GqaFold = Literal["contiguous", "strided"]

FACTORS = "factors"
KEPT_SHARE, KEPT_LEAST = 0.08, 176 * 2**20
"""What sums over backward passes may take: this share of the model's bytes, or so many bytes where that is more."""
ROWS_BACKWARD, ROWS_FORWARD = 16, 8
"""Calibration windows of one pass forwards and backwards, and of one pass forwards alone."""
WORKING = 2_500_000_000
"""Bytes of a GPU that a model leaves for activations, logits and caches: where they are lacking, it is spread."""


class SelectionConfig(MethodConfig):
    """How groups are selected once they have scores: the same for every criterion, so that criteria can be compared."""

    layers: tuple[int, int] | None = Field(
        None,
        description="pruned blocks as [first, last); by default all but the first 4 and the last 2, where a model of n "
        "blocks has n // 4 to spare at each end",
    )
    group_ratio: float = Field(0.25, gt=0, lt=1, description="fraction of groups removed, where no target is given")
    global_ranking: bool = Field(False, description="rank the groups of all pruned blocks together, not by module")
    round_to: int = Field(1, ge=1, description="remove MLP channels in multiples of this many")

    @model_validator(mode="after")
    def _layers_ascend(self) -> SelectionConfig:
        if self.layers is not None and not 0 <= self.layers[0] < self.layers[1]:
            raise ValueError(f"layers: [first, last) must be 0 <= first < last, not {list(self.layers)}")
        return self


class TrainingConfig(MethodConfig):
    """The training loop of `bench.blocks.train`. Defaults: LLM-Pruner's recipe (§4.1)."""

    lr: float = Field(1e-4, gt=0, description="peak learning rate of AdamW")
    warmup_steps: int = Field(100, ge=0, description="steps of linear warm-up, within the first half of the steps")
    weight_decay: float = Field(0.0, ge=0, description="weight decay of AdamW")
    grad_clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    batch_size: int = Field(64, ge=1, description="examples per optimiser step")
    micro_batch: int = Field(4, ge=1, description="examples per forward pass; changes memory and speed, not the result")
    epochs: float = Field(2.0, gt=0, description="passes over the examples")
    steps: int | None = Field(None, ge=1, description="optimiser steps; where given, in place of epochs")
    max_length: int = Field(256, ge=2, description="tokens of an example at most")
    holdout: int = Field(2000, ge=0, description="examples set aside to choose the best step by; 0 keeps the last step")
    evaluate_every: int = Field(200, ge=1, description="steps between two looks at the examples set aside")


class LoraSettings(TrainingConfig):
    """Low-rank adapters and their training."""

    r: int = Field(8, ge=1, description="rank of the adapters")
    alpha: float = Field(16.0, gt=0, description="scale of the adapters, divided by r")
    dropout: float = Field(0.05, ge=0, lt=1, description="dropout before the adapters")
    targets: tuple[str, ...] = Field(PROJECTIONS, min_length=1, description="projections that get an adapter")


class LoraRecovery(LoraSettings):
    """Training of low-rank adapters on every projection, merged at the end."""

    targets: tuple[str, ...] = Field(
        LoraSettings.model_fields["targets"].default,
        min_length=1,
        description=f"projections that get an adapter; with `{FACTORS}` low-rank factors in the place of others too",
    )

    @field_validator("targets")
    @classmethod
    def _not_factors_alone(cls, targets: tuple[str, ...]) -> tuple[str, ...]:
        if set(targets) == {FACTORS}:
            raise ValueError(f"{FACTORS} goes with projections; name one")
        return targets


class LoraTuning(LoraSettings):
    """Training of low-rank adapters as a method: what PEFT methods share, so that they compare at equal parameters."""

    lr: float = Field(3e-4, gt=0, description="peak learning rate of AdamW")
    holdout: int = Field(0, ge=0, description="examples set aside to choose the best step by; 0 keeps the last step")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout before the adapters")
    targets: tuple[str, ...] = Field((Q, V), min_length=1, description="projections that get an adapter")


class GroupedRecovery(TrainingConfig):
    """Training of group-wise low-rank adapters on quantised projections, merged at the end without leaving the grid."""

    bits: int | None = Field(4, ge=1, le=16, description="bits of a weight; null leaves the weights float")
    group_size: int = Field(32, ge=1, description="neighbouring columns that share a grid and an entry of the adapter")
    r: int = Field(8, ge=1, description="rank of the adapters")
    alpha: float = Field(16.0, gt=0, description="scale of the adapters, divided by r")
    dropout: float = Field(0.05, ge=0, lt=1, description="dropout before the adapters")
