"""TRAWL: projections stacked into a tensor, and the tensor approximated by CP or Tucker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from bench.blocks.decomposition import AttentionSet, DecompositionConfig, MlpSet, StackMode, Start
from bench.method import Context, Method, Traits

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TrawlConfig(DecompositionConfig):
    """Defaults: the published headline setting (CP of one block's MLP), kept as factors."""

    mode: StackMode = Field(
        5, description="what is stacked: attention of all blocks (1), of one (2), of a segment (3), or MLPs (4 to 6)"
    )
    mlp_set: MlpSet = Field("gud", description="which MLP projections: g(ate), u(p), d(own)")
    attention_set: AttentionSet = Field(
        "split",
        description="how q, k, v, o are stacked: two stacks, one with q and o cut to the key/value heads, one "
        "with keys and values repeated, or one of square matrices as published",
    )
    segments: int = Field(3, ge=1, description="segments of blocks in modes 3 and 6")
    decomposition: Literal["cp", "tucker"] = Field("cp", description="the tensor approximation")
    ranks: tuple[int, ...] = Field((8, 16, 32, 48, 64, 80), min_length=1, description="ranks that are tried")
    rank0: int | None = Field(
        None, ge=1, description="Tucker rank of the stacking mode; by default it is not compressed (2 as published)"
    )
    starts: tuple[Start, ...] = Field(
        ("hosvd", "random", "random"), min_length=1, description="where CP starts from; the best result is kept"
    )
    sweeps: int = Field(100, ge=1, description="sweeps of the alternating iteration at most")
    tolerance: float | None = Field(
        None, ge=0, description="ends when the relative error changes by less; by default 1e-8 for cp, 1e-4 for tucker"
    )
    ridge: float = Field(1e-10, ge=0, description="ridge of the CP normal equations, a share of their mean diagonal")
    oversampling: int = Field(
        4, ge=0, description="fit CP to a Tucker core of this many times its rank (CANDELINC); 0 to the whole tensor"
    )
    normalize_slices: bool = Field(False, description="weigh every stacked matrix alike, whatever its norm")

    @model_validator(mode="after")
    def _fields_go_together(self) -> TrawlConfig:
        if min(self.ranks) < 1:
            raise ValueError(f"ranks: must be at least 1, not {list(self.ranks)}")
        if self.mode <= 3 and self.attention_set == "repeat" and not self.materialize:
            raise ValueError("attention_set: 'repeat' averages heads, which factors cannot; set materialize: true")
        return self


class Trawl(Method):
    """Replaces the weights of one block (or more) by a low-rank approximation of their stack."""

    name = "trawl"
    version = "1"
    traits = Traits(
        title="TRAWL",
        track="decomposition",
        needs=frozenset({"calibration"}),
        changes=frozenset({"shapes", "values"}),
        deterministic=False,
        paper="Luo, Patel, Fu, Ahn, Chen, Dong, Papalexakis, TRAWL: Tensor Reduced and Approximated Weights for Large "
        "Language Models, PAKDD 2025, arXiv 2406.17261",
    )
    Config = TrawlConfig
    config: TrawlConfig

    def compress(self, model: PreTrainedModel, ctx: Context) -> PreTrainedModel:
        from .method import compress

        return compress(model, ctx, self.config)
