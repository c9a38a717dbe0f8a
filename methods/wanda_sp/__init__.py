"""Wanda-sp: structured pruning by the weights times the activations they meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from bench.blocks.settings import SelectionConfig
from bench.method import Context, Method, Traits

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class WandaSpConfig(SelectionConfig):
    calibration_samples: int = Field(32, ge=1, description="calibration windows")
    seq_len: int = Field(64, ge=2, description="tokens of a calibration window")


class WandaSp(Method):
    """Removes the heads and MLP channels that hand on the least: small weights on small activations."""

    name = "wanda_sp"
    version = "1"
    traits = Traits(
        title="Wanda-sp",
        track="control",
        needs=frozenset({"calibration"}),
        changes=frozenset({"shapes"}),
        deterministic=False,
        paper="the Wanda-sp control of An, Zhao, Yu, Tang, Wang, Fluctuation-based Adaptive Structured Pruning for "
        "Large Language Models (FLAP), AAAI 2024, arXiv 2312.11983; after Sun, Liu, Bair, Kolter, A Simple and "
        "Effective Pruning Approach for Large Language Models (Wanda), ICLR 2024, arXiv 2306.11695",
    )
    Config = WandaSpConfig
    config: WandaSpConfig

    def compress(self, model: PreTrainedModel, ctx: Context) -> PreTrainedModel:
        from .method import compress

        return compress(model, ctx, self.config)
