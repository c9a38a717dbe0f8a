"""LoRA: low-rank adaptation, the control that PEFT methods are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.blocks.settings import LoraTuning
from bench.method import Context, Method, Traits

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Lora(Method):
    """Trains low-rank adapters on frozen weights, merges them, and keeps them with the merged model."""

    name = "lora"
    version = "1"
    traits = Traits(
        title="LoRA",
        track="peft",
        needs=frozenset({"training"}),
        changes=frozenset({"values"}),
        deterministic=False,
        paper="Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022, arXiv 2106.09685",
    )
    Config = LoraTuning
    config: LoraTuning

    def compress(self, model: PreTrainedModel, ctx: Context) -> PreTrainedModel:
        from .method import compress

        return compress(model, ctx, self.config)
