"""Random structured pruning: the control that a criterion must beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.blocks.settings import SelectionConfig
from bench.method import Context, Method, Traits

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Random(Method):
    """Removes random heads and MLP channels, as many as LLM-Pruner and from the same blocks."""

    name = "random"
    version = "1"
    traits = Traits(
        title="Random",
        track="control",
        changes=frozenset({"shapes"}),
        deterministic=False,
        paper="the random control of Ma, Fang, Wang, LLM-Pruner, NeurIPS 2023, arXiv 2305.11627",
    )
    Config = SelectionConfig
    config: SelectionConfig

    def compress(self, model: PreTrainedModel, ctx: Context) -> PreTrainedModel:
        from .method import compress

        return compress(model, ctx, self.config)
