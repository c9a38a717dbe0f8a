"""The transformation: score every group; `prune_groups` selects, meets the size target and slices."""

from __future__ import annotations

from transformers import PreTrainedModel

from bench.blocks.groups import Scores, blocks_of, shape_of
from bench.blocks.structured import prune_groups
from bench.method import Context

from . import TemplateConfig


def compress(model: PreTrainedModel, ctx: Context, config: TemplateConfig) -> PreTrainedModel:
    """Prune the groups with the lowest scores."""

    def score(model: PreTrainedModel, layers: range, step: int) -> Scores:
        shape, p = shape_of(model), {"l1": 1, "l2": 2}[config.norm]
        attention, mlp = {}, {}
        for block in blocks_of(model):
            if block.index in layers:
                columns = block.o.weight.float().norm(p, dim=0)  # one per row of the heads' values
                attention[block.index] = columns.view(shape.blocks[block.index].kv_heads, -1).sum(1)
                mlp[block.index] = block.down.weight.float().norm(p, dim=0)
        return Scores(attention, mlp)

    return prune_groups(model, ctx, config, score)
