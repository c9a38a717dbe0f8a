"""Structured pruning by the size of the weights: the control that costs no calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from bench.blocks.settings import Norm, Reduction, SelectionConfig
from bench.method import Context, Method, Traits

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class MagnitudeConfig(SelectionConfig):
    norm: Norm = Field("l2", description="what a row or column is worth: l1 the sum of |w|, l2 the sum of w²")
    reduction: Reduction = Field("mean", description="how the members of a group are put together")


class Magnitude(Method):
    """Removes the heads and MLP channels with the smallest weights."""

    name = "magnitude"
    version = "1"
    traits = Traits(
        title="Magnitude (L2)",
        track="control",
        changes=frozenset({"shapes"}),
        paper="the L2 control of Ma, Fang, Wang, LLM-Pruner, NeurIPS 2023, arXiv 2305.11627",
    )
    Config = MagnitudeConfig
    config: MagnitudeConfig

    def compress(self, model: PreTrainedModel, ctx: Context) -> PreTrainedModel:
        from .method import compress

        return compress(model, ctx, self.config)
