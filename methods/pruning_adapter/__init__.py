"""Pruning-Adapter: task-oriented removal of attention heads, then low-rank adapters on what is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bench.blocks.settings import TrainingConfig
from bench.families import K, ProjectionName, Q, V
from bench.method import Context, Method, Traits

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PruningAdapterConfig(TrainingConfig):
    """Defaults: the published criterion, with ranks, scale and training that suit a decoder."""

    n_samples: int = Field(128, ge=1, description="training examples that heads are scored on (released code: 3)")
    prune_ratio: float = Field(0.2986, gt=0, lt=1, description="fraction of heads removed, where no target is given")
    gqa_fold: Literal["sum", "mean"] = Field(
        "sum", description="what a key/value head is worth: the sum or the mean over the query heads that read it"
    )
    channels: bool = Field(
        True,
        description="remove MLP channels too, by the same criterion, where prune_ratio of the heads cannot meet a size "
        "target",
    )
    rank_high: int = Field(16, ge=1, description="rank of the adapters in the most important layers (published: 8)")
    rank_low: int = Field(8, ge=1, description="rank of the adapters in the other layers (published: 4)")
    high_share: float = Field(1 / 3, ge=0, le=1, description="fraction of the layers whose adapters get rank_high")
    alpha: float | None = Field(
        None, gt=0, description="scale of the adapters, divided by their rank; by default twice the rank (published: 1)"
    )
    targets: tuple[ProjectionName, ...] = Field((Q, K, V), min_length=1, description="projections that get an adapter")
    train_norms: bool = Field(True, description="train the weights of all norms, too")
    lr: float = Field(5e-4, gt=0, description="peak learning rate of AdamW (published: 2e-5)")
    warmup_steps: int = Field(0, ge=0, description="steps of linear warm-up, within the first half of the steps")
    weight_decay: float = Field(0.01, ge=0, description="weight decay of AdamW; none on norms")
    batch_size: int = Field(32, ge=1, description="examples per optimiser step")
    epochs: float = Field(3.0, gt=0, description="passes over the examples (published: 30)")
    holdout: int = Field(0, ge=0, description="examples set aside to choose the best step by; 0 keeps the last step")


class PruningAdapter(Method):
    """Removes the heads whose masks move the task's loss least, then trains adapters of two ranks and the norms."""

    name = "pruning_adapter"
    version = "1"
    traits = Traits(
        title="Pruning-Adapter",
        track="pruning",
        needs=frozenset({"training", "gradients"}),
        changes=frozenset({"shapes", "values"}),
        deterministic=False,
        paper="Wang, Yang, Sun, Task-oriented Memory-efficient Pruning-Adapter, 2023, arXiv 2303.14704",
    )
    Config = PruningAdapterConfig
    config: PruningAdapterConfig

    def compress(self, model: PreTrainedModel, ctx: Context) -> PreTrainedModel:
        from .method import compress

        return compress(model, ctx, self.config)
