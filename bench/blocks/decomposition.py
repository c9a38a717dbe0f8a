"""The settings that low-rank methods share. No torch here, so that listing methods stays cheap."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from bench.method import MethodConfig

StackMode = Literal[1, 2, 3, 4, 5, 6]
MlpSet = Literal["gud", "ud", "gu"]
AttentionSet = Literal["split", "kv_group", "repeat", "faithful"]
Start = Literal["hosvd", "random"]


class DecompositionConfig(MethodConfig):
    """Which weights are approximated, chosen by trials, and what becomes of them."""

    layers: tuple[int, int] | None = Field(
        None,
        description="blocks that are tried, as [first, last); by default the last 15 % where one block is taken at a "
        "time and no size is asked for, else all",
    )
    group_ratio: float | None = Field(
        None, gt=0, lt=1, description="fraction of the numbers that goes, in place of the ranks tried"
    )
    materialize: bool = Field(
        False, description="write the approximation back as dense weights, as published; by default the factors stay"
    )
    calibration_samples: int = Field(40, ge=1, description="calibration windows")
    seq_len: int = Field(128, ge=2, description="tokens of a calibration window")
    validation_share: float = Field(
        0.2, gt=0, le=1, description="share of the windows that trials are scored on; the rest stays unseen"
    )
    spans: int = Field(
        8, ge=1, description="where a size is asked for: runs of consecutive blocks that are tried, the last first"
    )

    @model_validator(mode="after")
    def _layers_ascend(self) -> DecompositionConfig:
        if self.layers is not None and not 0 <= self.layers[0] < self.layers[1]:
            raise ValueError(f"layers: [first, last) must be 0 <= first < last, not {list(self.layers)}")
        return self
