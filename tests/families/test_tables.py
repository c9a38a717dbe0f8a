"""Each table against transformers' own model and against the groups that Torch-Pruning traces in it."""

from collections.abc import Iterable, Iterator
from functools import cache

import pytest
import torch
import torch_pruning
from torch import nn
from transformers import PreTrainedModel

from bench.blocks.groups import Member, attention_members, hidden_members, mlp_members, shape_of
from bench.family import Family, known
from bench.model.classes import config_class, stock_class
from bench.model.layers import blocks_of, embedding_of, family_of
from bench.shape import Shape
from tests.families.models import MODELS, make

pytestmark = pytest.mark.filterwarnings("ignore:Unwrapped parameters detected")
LAYER = 1


def sizes_in(family: Family, shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and size of every parameter that the table tells of."""
    yield f"{family.embedding}.weight", (shape.vocab, shape.hidden)
    for i in range(len(shape.blocks)):
        for norm in (family.attention_norm, family.mlp_norm):
            yield f"{family.layers}.{i}.{norm}.weight", (shape.hidden,)
        for norm in family.head_norms.values():
            yield f"{family.layers}.{i}.{norm}.weight", (shape.head_dim,)
        for projection in family.projections:
            yield f"{family.path(i, projection.name)}.weight", shape.size(i, projection.name)
            if projection.name in shape.biased:
                yield f"{family.path(i, projection.name)}.bias", shape.size(i, projection.name)[:1]
    yield f"{family.final_norm}.weight", (shape.hidden,)
    if not shape.tied:
        yield f"{family.head}.weight", (shape.vocab, shape.hidden)


def sizes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("name", MODELS)
def test_names_and_sizes_are_those_of_transformers(name: str) -> None:
    model = make(name)
    assert dict(sizes_in(family_of(model), shape_of(model))) == sizes_of(model)


@pytest.mark.parametrize("family", known().values(), ids=list(known()))
def test_what_a_config_leaves_out_is_what_transformers_takes(family: Family) -> None:
    widths = {"hidden_size": 64, "intermediate_size": 8, "num_attention_heads": 32, "num_hidden_layers": 1}
    config = {"model_type": family.model_type, "vocab_size": 16, **widths}
    stock = config_class(family)(vocab_size=16, **widths)
    with torch.device("meta"):
        model = stock_class(family)(stock)
    assert dict(sizes_in(family, Shape.of(config))) == sizes_of(model)
    assert family.window(config) == getattr(stock, "sliding_window", None) == family.window(stock.to_dict())


@cache
def traced(name: str) -> tuple[PreTrainedModel, torch_pruning.DependencyGraph]:
    model = make(name, tied=False).requires_grad_(True)
    model.config._attn_implementation = "eager"
    inputs = {"input_ids": torch.arange(8)[None], "use_cache": False}
    graph = torch_pruning.DependencyGraph()
    graph.build_dependency(model, example_inputs=inputs, output_transform=lambda output: output.logits)
    return model, graph


Rows = dict[tuple[int, int], list[int]]
"""Indices by the weight's id and the dimension that they run along."""


def group(graph: torch_pruning.DependencyGraph, module: nn.Module, rows: bool, indices: Iterable[int]) -> Rows:
    """What Torch-Pruning removes together with rows (columns) of `module`; of its own nodes, parameters alone."""
    linear = (torch_pruning.prune_linear_in_channels, torch_pruning.prune_linear_out_channels)[rows]
    prune = torch_pruning.prune_embedding_out_channels if isinstance(module, nn.Embedding) else linear
    found = {}
    for dependency, idxs in graph.get_pruning_group(module, prune, idxs=list(indices)):
        target = dependency.target.module
        if isinstance(target, nn.Linear):
            found[id(target.weight), 0 if dependency.handler.__name__ == "prune_out_channels" else 1] = sorted(idxs)
        elif isinstance(target, nn.Embedding):
            found[id(target.weight), 1] = sorted(idxs)
        elif isinstance(target, nn.Parameter):
            found[id(target), 0] = sorted(idxs)
    return found


def in_table(members: Iterable[Member], indices: Iterable[int]) -> Rows:
    """The same of our members, each of which has the indices in the dimension that a score keeps."""
    return {(id(m.weight), 0 if m.weight.dim() == 1 else 1 - m.dim): list(indices) for m in members}


@pytest.mark.parametrize("heads", [(0,), (1, 3)])
@pytest.mark.parametrize("name", [name for name in MODELS if name.endswith("mha")])
def test_heads_go_together(name: str, heads: tuple[int, ...]) -> None:
    """Of plain multi-head attention: Torch-Pruning cannot follow heads through the repetition of key/value heads."""
    model, graph = traced(name)
    block, family, head_dim = blocks_of(model)[LAYER], family_of(model), shape_of(model).head_dim
    indices = [head * head_dim + i for head in heads for i in range(head_dim)]
    layer = model.get_submodule(f"{family.layers}.{LAYER}")
    norms = {(id(layer.get_submodule(path).weight), 0) for path in family.head_norms.values()}
    for module, rows in ((block.q, True), (block.k, True), (block.v, True), (block.o, False)):
        found = group(graph, module, rows, indices)
        assert norms <= found.keys()  # all heads share them, so that they stay as they are
        left = {member: idxs for member, idxs in found.items() if member not in norms}
        assert left == in_table(attention_members(block), indices)


@pytest.mark.parametrize("name", MODELS)
def test_channels_and_hidden_dimensions_go_together(name: str) -> None:
    model, graph = traced(name)
    block = blocks_of(model)[LAYER]
    for module, rows in ((block.gate, True), (block.up, True), (block.down, False)):
        assert group(graph, module, rows, [3, 70]) == in_table(mlp_members(block), [3, 70])
    for module, rows in ((embedding_of(model), True), (block.o, True), (block.q, False)):
        assert group(graph, module, rows, [5]) == in_table(hidden_members(model), [5])
