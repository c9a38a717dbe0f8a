"""Compression made real: slices the weights that `Kept` names, puts low-rank factors in the place of projections or
bottlenecks behind the MLPs, and builds the model that is left around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from bench.errors import MethodError
from bench.factor_shape import FactorShape, Slice
from bench.family import Axis
from bench.model.classes import config_class, lean_class, stock_class
from bench.model.factors import Factors
from bench.model.layers import (
    Block,
    blocks_of,
    bottleneck_path,
    embedding_of,
    family_of,
    final_norm_of,
    head_of,
    shape_of,
)
from bench.model.lean import Bottleneck
from bench.model.place import connect
from bench.shape import BlockKept, BlockShape, Kept, Shape

NOT_TAKEN_OVER = (
    "model_type",
    "architectures",
    "auto_map",
    "bottleneck",
    "factors",
    "per_layer_config",
    "transformers_version",
)
PER_LAYER = ("num_attention_heads", "num_key_value_heads", "intermediate_size")


def prune(model: PreTrainedModel, kept: Kept) -> PreTrainedModel:
    """Remove all but `kept`; indices keep their order, `head_dim` never changes.

    The weights of `model` are sliced in place, one matrix at a time, and handed over: use only what is returned, the
    family's stock class where the result is uniform, its lean class elsewhere.

    Raises:
        MethodError: `kept` does not fit the model (see `Shape.after`).
    """
    dense = shape_of(model)
    after = dense.after(kept)
    history = _compose(kept_of(model), kept)
    with torch.no_grad():
        for block in blocks_of(model):
            if block.index in kept.blocks:
                _slice_block(block, dense, kept)
        if kept.hidden is not None:
            _slice_hidden(model, kept.hidden)
    layers = model.get_submodule(family_of(model).layers)
    for index in sorted(set(range(len(dense.blocks))) - set(kept.blocks), reverse=True):
        del layers[index]
    lean = _rebuild(model, after, model.state_dict())
    lean.leanboard_kept = history
    return lean


def average_over_fewer(model: PreTrainedModel, ratio: float) -> None:
    """Make ready for the removal of hidden dimensions that are 0: all but 1/`ratio` of them, in place.

    The mean that a norm takes over those left is `ratio` times what it was, so the epsilon is multiplied by `ratio` and
    the norm's weight by √ratio. Norms of heads share that epsilon: what they are given is multiplied by √ratio.
    """
    family = family_of(model)
    with torch.no_grad():
        for block in blocks_of(model):
            for norm in (block.attention_norm, block.mlp_norm):
                norm.weight *= ratio**0.5
            for name in family.head_norms:
                for parameter in block.linear(name).parameters():
                    parameter *= ratio**0.5
        final_norm_of(model).weight *= ratio**0.5
    setattr(model.config, family.epsilon, getattr(model.config, family.epsilon) * ratio)


def factorize(model: PreTrainedModel, found: Sequence[tuple[Sequence[Slice], Factors]]) -> PreTrainedModel:
    """Put low-rank factors in the place of the projections that are their slices, in the model's own precision.

    The cores of `Factors` are those of the slices in their order, several for a projection that is several slices.
    `model` is handed over: use only what is returned, of the family's lean class. It stores and multiplies the factors,
    each set once, keeps the biases of the projections, and can no longer be pruned.

    Raises:
        MethodError: sizes do not fit (see `Shape.factored`).
    """
    shape, kept, family = shape_of(model), kept_of(model), family_of(model)
    pairs = [(FactorShape(f.inner.shape[0], f.outer.shape[0], f.rank, tuple(pieces)), f) for pieces, f in found]
    after = shape.factored(form for form, _ in pairs)
    state = dict(model.state_dict())
    for number, (form, factors) in enumerate(pairs, start=len(shape.factors)):
        place = f"{model.base_model_prefix}.factors.{number}"
        shared = {f"{place}.inner": factors.inner, f"{place}.outer": factors.outer}
        weights = {name: weight.to(model.device) for name, weight in shared.items()}
        counts = [form.count(piece, shape.size) for piece in form.slices]
        for piece, core in zip(form.slices, factors.core.split(counts), strict=True):
            path = family.path(piece.layer, piece.projection)
            weights[f"{path}.core"] = core.to(state.pop(f"{path}.weight").device)
        state |= {name: weight.to(model.dtype).contiguous() for name, weight in weights.items()}
    lean = _rebuild(model, after, state)
    lean.leanboard_kept = kept
    return lean


def add_bottlenecks(model: PreTrainedModel, bottlenecks: Sequence[Bottleneck]) -> PreTrainedModel:
    """Put `bottlenecks`, one for each block and all of one width, behind the MLPs.

    `model` is handed over: use only what is returned, of the family's lean class, which takes the bottlenecks' weights.

    Raises:
        MethodError: the model has bottlenecks, or their number is not that of the blocks.
    """
    shape, kept = shape_of(model), kept_of(model)
    if shape.bottleneck:
        raise MethodError("the model has bottlenecks already")
    if len(bottlenecks) != len(shape.blocks):
        raise MethodError(f"{len(bottlenecks)} bottlenecks for {len(shape.blocks)} blocks")
    state = dict(model.state_dict())
    layers = family_of(model).layers
    for number, bottleneck in enumerate(bottlenecks):
        device = next(model.get_submodule(f"{layers}.{number}").parameters()).device
        weights = bottleneck.to(device, model.dtype).state_dict()
        place = f"{layers}.{number}.{bottleneck_path(family_of(model))}"
        state |= {f"{place}.{name}": weight for name, weight in weights.items()}
    lean = _rebuild(model, replace(shape, bottleneck=bottlenecks[0].down.out_features), state)
    lean.leanboard_kept = kept
    return lean


def kept_of(model: PreTrainedModel) -> Kept:
    """What all prunings of `model` so far have kept, in indices of the dense model."""
    kept: Kept = getattr(model, "leanboard_kept", None) or shape_of(model).keep_all()
    return kept


def _compose(before: Kept, kept: Kept) -> Kept:
    """`kept`, whose indices are those of the model after `before`, in indices of the dense model."""
    old_blocks = [before.blocks[i] for i in sorted(before.blocks)]
    old_index = sorted(before.blocks)
    blocks = {
        old_index[i]: BlockKept(
            tuple(old_blocks[i].heads[h] for h in mine.heads), tuple(old_blocks[i].channels[c] for c in mine.channels)
        )
        for i, mine in kept.blocks.items()
    }
    hidden = before.hidden if kept.hidden is None else kept.hidden
    if before.hidden is not None and kept.hidden is not None:
        hidden = tuple(before.hidden[d] for d in kept.hidden)
    return Kept(blocks, hidden)


def _slice_block(block: Block, dense: Shape, kept: Kept) -> None:
    mine = kept.blocks[block.index]
    keep = {
        Axis.QUERY: _head_rows(mine.heads, dense.head_dim),
        Axis.KV: _head_rows(dense.kept_kv_heads(block.index, mine.heads), dense.head_dim),
        Axis.CHANNELS: mine.channels,
    }
    if kept.hidden is not None:
        keep[Axis.HIDDEN] = kept.hidden
        for norm in (block.attention_norm, block.mlp_norm):
            _slice(norm, kept.hidden, 0)
    for projection in block.family.projections:
        for dim, axis in enumerate((projection.rows, projection.columns)):
            if axis in keep:
                _slice(block.linear(projection.name), keep[axis], dim)


def _slice_hidden(model: PreTrainedModel, hidden: Sequence[int]) -> None:
    tied = head_of(model).weight is embedding_of(model).weight
    _slice(embedding_of(model), hidden, 1)
    if tied:
        head_of(model).weight = embedding_of(model).weight
    else:
        _slice(head_of(model), hidden, 1)
    _slice(final_norm_of(model), hidden, 0)


def _slice(module: nn.Module, keep: Sequence[int], dim: int) -> None:
    weight: nn.Parameter = module.weight
    if len(keep) < weight.shape[dim]:
        index = torch.tensor(keep, device=weight.device)
        module.weight = nn.Parameter(weight.index_select(dim, index), requires_grad=weight.requires_grad)
    if dim == 0 and getattr(module, "bias", None) is not None and len(keep) < module.bias.shape[0]:
        index = torch.tensor(keep, device=weight.device)
        module.bias = nn.Parameter(module.bias.index_select(0, index), requires_grad=module.bias.requires_grad)


def _head_rows(heads: Sequence[int], head_dim: int) -> list[int]:
    return [head * head_dim + i for head in heads for i in range(head_dim)]


def _rebuild(model: PreTrainedModel, shape: Shape, state: Mapping[str, torch.Tensor]) -> PreTrainedModel:
    """The model class that fits `shape`, with the weights `state`, no copy made; new ones require no gradients."""
    config = _config_for(model, shape)
    with torch.device("meta"):
        lean = (stock_class if config.model_type == shape.family.model_type else lean_class)(shape.family)(config)
    lean.set_submodule(shape.family.rotary, model.get_submodule(shape.family.rotary))
    lean.load_state_dict(state, assign=True)
    lean.tie_weights()
    lean.generation_config = model.generation_config
    lean.config._attn_implementation = model.config._attn_implementation
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name, parameter in lean.named_parameters():
        parameter.requires_grad_(name in trained)
    connect(lean)
    return lean.train(model.training)


def _config_for(model: PreTrainedModel, shape: Shape) -> PreTrainedConfig:
    """Stock where `shape` is uniform and the stock class takes it, else lean."""
    stock, lean = config_class(shape.family), lean_class(shape.family).config_class
    fields = model.config.to_dict()
    for name in NOT_TAKEN_OVER:
        fields.pop(name, None)
    layers = len(shape.blocks)
    fields |= {"hidden_size": shape.hidden, "num_hidden_layers": layers, "head_dim": shape.head_dim}
    if fields.get("layer_types"):
        fields["layer_types"] = fields["layer_types"][:layers]  # all alike: others are refused
    first = shape.blocks[0]
    plain = not shape.factors and not shape.bottleneck and set(shape.blocks) == {first}
    derived = shape.hidden == first.heads * shape.head_dim or not shape.family.derives_head_dim
    if plain and derived and shape.hidden % first.heads == 0:
        return stock(**fields | dict(zip(PER_LAYER, _widths(first), strict=True)))
    per_layer = {i: dict(zip(PER_LAYER, _widths(block), strict=True)) for i, block in enumerate(shape.blocks)}
    factors = [
        {"rows": f.rows, "columns": f.columns, "rank": list(f.rank), "slices": [list(astuple(s)) for s in f.slices]}
        for f in shape.factors
    ]
    return lean(**fields, per_layer_config=per_layer, factors=factors, bottleneck=shape.bottleneck or None)


def _widths(block: BlockShape) -> tuple[int, int, int]:
    return block.heads, block.kv_heads, block.channels
