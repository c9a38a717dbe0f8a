"""The dense model: the control that every other row is measured against."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.method import Context, Method, Traits

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Dense(Method):
    """Changes nothing."""

    name = "dense"
    version = "1"
    traits = Traits(title="dense", track="control")

    def compress(self, model: PreTrainedModel, ctx: Context) -> PreTrainedModel:
        return model
