from dataclasses import replace

import pytest
import torch

from bench.blocks.groups import (
    BlockShape,
    Kept,
    Shape,
    attention_members,
    blocks_of,
    hidden_members,
    keep_groups,
    mlp_members,
    prune,
    pruned_layers,
    query_heads,
    shape_of,
)
from bench.errors import MethodError
from tests.blocks.context import token_ids
from tests.tiny import make_model


def test_a_kv_group_owns_a_contiguous_block_of_query_heads():
    assert query_heads(BlockShape(8, 2, 10), [1]) == (4, 5, 6, 7)
    assert query_heads(BlockShape(8, 4, 10), [2, 0]) == (0, 1, 4, 5)
    assert query_heads(BlockShape(4, 4, 10), [3, 1]) == (1, 3)


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_a_group_whose_members_are_zero_can_go_without_a_trace(kv_heads):
    model = make_model(kv_heads=kv_heads)
    block, shape, ids = blocks_of(model)[1], shape_of(model), token_ids(2, 9)
    with torch.no_grad():
        of_queries = 16 * 4 // kv_heads
        for member, rows in zip(attention_members(block), (of_queries, 16, 16, of_queries), strict=True):
            (member.weight if member.dim else member.weight.T)[-rows:] = 0
        for member in mlp_members(block):
            (member.weight if member.dim else member.weight.T)[[3, 50]] = 0
        before = model(ids).logits
        channels = [c for c in range(96) if c not in (3, 50)]
        pruned = prune(model, keep_groups(shape, {1: range(kv_heads - 1)}, {1: channels}))
        torch.testing.assert_close(pruned(ids).logits, before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_hidden_members_are_all_that_a_hidden_dimension_costs(tied):
    model = make_model(tied=tied, kv_heads=2)
    shape = shape_of(model)
    per_dimension = sum(m.weight.numel() // 64 for m in hidden_members(model))
    narrower = shape.after(Kept(shape.keep_all().blocks, tuple(range(1, 64))))
    assert shape.params() - narrower.params() == per_dimension


def test_default_layers_scale_with_depth():
    expected = {
        1: (0, 1),
        3: (0, 3),
        4: (1, 3),
        5: (1, 4),
        6: (1, 5),
        8: (2, 6),
        12: (3, 10),
        16: (4, 14),
        22: (4, 20),
        30: (4, 28),
        32: (4, 30),
        40: (4, 38),
    }
    assert {n: pruned_layers(None, n) for n in expected} == {n: range(*ends) for n, ends in expected.items()}
    assert pruned_layers((3, 31), 32) == range(3, 31)
    with pytest.raises(MethodError, match=r"\[3, 31\) reaches beyond the model's 30 blocks"):
        pruned_layers((3, 31), 30)


def test_keep_groups_leaves_other_layers_whole():
    shape = replace(Shape(64, 16, 300, True, ()), blocks=(BlockShape(4, 2, 6),) * 3)
    kept = keep_groups(shape, {1: [1]}, {2: [4, 0]})
    assert kept.blocks[0] == shape.keep_all().blocks[0]
    assert kept.blocks[1].heads == (2, 3)
    assert kept.blocks[1].channels == tuple(range(6))
    assert kept.blocks[2].channels == (0, 4)
