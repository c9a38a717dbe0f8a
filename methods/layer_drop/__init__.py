"""Layer drop: whole decoder blocks go, the plainest way to make a model shallower."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bench.method import Context, Method, MethodConfig, Traits

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LayerDropConfig(MethodConfig):
    order: Literal["influence", "contiguous", "last"] = Field(
        "influence",
        description="which blocks go first: those of the least influence (ShortGPT), the run of blocks across which "
        "the residual stream turns least (Gromov et al.), or the last ones",
    )
    ratio: float = Field(0.25, gt=0, lt=1, description="fraction of blocks dropped, where no target is given")
    remainder: bool = Field(
        True,
        description="take what whole blocks leave of the target from the MLP channels of the next block in the order; "
        "if not, a target between two blocks is an error",
    )
    calibration_samples: int = Field(16, ge=1, description="calibration windows")
    seq_len: int = Field(64, ge=2, description="tokens of a calibration window")


class LayerDrop(Method):
    """Drops the decoder blocks that change the residual stream least."""

    name = "layer_drop"
    version = "1"
    traits = Traits(
        title="Layer drop",
        track="control",
        needs=frozenset({"calibration"}),
        changes=frozenset({"shapes"}),
        deterministic=False,
        paper="Men, Xu, Zhang, Wang, Lin, Lu, Han, Chen, ShortGPT: Layers in Large Language Models are More Redundant "
        "Than You Expect, arXiv 2403.03853; Gromov, Tirumala, Shapourian, Glorioso, Roberts, The Unreasonable "
        "Ineffectiveness of the Deeper Layers, arXiv 2403.17887",
    )
    Config = LayerDropConfig
    config: LayerDropConfig

    def compress(self, model: PreTrainedModel, ctx: Context) -> PreTrainedModel:
        from .method import compress

        return compress(model, ctx, self.config)
