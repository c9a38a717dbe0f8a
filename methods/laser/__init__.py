"""LASER: single weight matrices replaced by their best low-rank approximation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from bench.blocks.decomposition import DecompositionConfig
from bench.method import Context, Method, Traits

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Matrix = Literal["q", "k", "v", "o", "gate", "up", "down"]


class LaserConfig(DecompositionConfig):
    """Defaults: the MLP matrices of late blocks, where the paper gains most, kept as factors."""

    matrices: tuple[Matrix, ...] = Field(
        ("gate", "up", "down"),
        min_length=1,
        description="types of matrices: tried one by one, or taken together where a size is asked for",
    )
    rhos: tuple[float, ...] = Field(
        (0.01, 0.05, 0.1, 0.2, 0.4), min_length=1, description="ranks that are tried, as fractions of the full rank"
    )

    @model_validator(mode="after")
    def _rhos_are_fractions(self) -> LaserConfig:
        if not all(0 < rho < 1 for rho in self.rhos):
            raise ValueError(f"rhos: must lie between 0 and 1, not {list(self.rhos)}")
        if len(set(self.matrices)) < len(self.matrices):
            raise ValueError(f"matrices: named twice in {list(self.matrices)}")
        return self


class Laser(Method):
    """Truncates the singular values of one matrix, or of those of a few blocks."""

    name = "laser"
    version = "1"
    traits = Traits(
        title="LASER",
        track="control",
        needs=frozenset({"calibration"}),
        changes=frozenset({"shapes", "values"}),
        deterministic=False,
        paper="Sharma, Ash, Misra, The Truth is in There: Improving Reasoning in Language Models with Layer-Selective "
        "Rank Reduction, ICLR 2024, arXiv 2312.13558",
    )
    Config = LaserConfig
    config: LaserConfig

    def compress(self, model: PreTrainedModel, ctx: Context) -> PreTrainedModel:
        from .method import compress

        return compress(model, ctx, self.config)
