"""TEMPLATE: structured pruning by a score of your own. No torch here, so that listing methods stays cheap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bench.blocks.settings import SelectionConfig
from bench.method import Context, Method, Traits

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TemplateConfig(SelectionConfig):
    """Added to the fields of `SelectionConfig`; each field needs a default and a description."""

    norm: Literal["l1", "l2"] = Field("l2", description="norm of a column of the output projections")


class Template(Method):
    """Removes the heads and MLP channels that are read with the smallest weights."""

    name = "template"
    version = "1"  # raise it whenever a number may change
    traits = Traits(
        title="TEMPLATE",
        track="pruning",
        needs=frozenset(),
        changes=frozenset({"shapes"}),
        deterministic=True,
        paper="authors, title, venue, arXiv number",
    )
    Config = TemplateConfig
    config: TemplateConfig

    def compress(self, model: PreTrainedModel, ctx: Context) -> PreTrainedModel:
        from .method import compress

        return compress(model, ctx, self.config)
