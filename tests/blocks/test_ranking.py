from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.blocks.groups import BlockShape, Scores, Shape, pruned_layers
from bench.blocks.ranking import Ranking, excess, to_target
from bench.blocks.taylor import random_scores
from bench.errors import MethodError
from bench.method import TARGET_TOLERANCE, Target

SMOLLM = Shape(576, 64, 49152, True, (BlockShape(9, 3, 1536),) * 30)
TINY = Shape(64, 16, 300, False, (BlockShape(4, 4, 96),) * 4)


def ranking_of(shape, layers=None, seed=0):
    layers = pruned_layers(layers, len(shape.blocks))
    return Ranking(shape, shape, random_scores(shape, layers, torch.Generator().manual_seed(seed)))


def simple(attention, mlp, head_dim=4):
    """A ranking over one block with these scores."""
    shape = Shape(8, head_dim, 10, True, (BlockShape(len(attention), len(attention), len(mlp)),))
    return Ranking(shape, shape, Scores({0: torch.tensor(attention)}, {0: torch.tensor(mlp)}))


def test_published_counts():
    assert excess(11008, 11008, 0.25) == 2752
    assert excess(11008, 11008, 0.6) == 6605
    assert excess(4096, 4096, 0.25) // 128 == 8
    assert excess(4096, 4096, 0.6) // 128 == 19
    assert excess(1024, 1024, 0.25) // 128 == 2


def test_the_lowest_go_and_the_order_stays():
    kept = simple([3.0, 1.0, 2.0, 4.0], [5.0, 1.0, 4.0, 2.0, 3.0]).module_wise(0.5, 0.4)
    assert kept.blocks[0].heads == (0, 3)
    assert kept.blocks[0].channels == (0, 2, 4)


def test_ties_go_by_index():
    assert simple([1.0, 1.0], [1.0, 1.0, 1.0, 1.0]).module_wise(0.1, 0.5).blocks[0].channels == (2, 3)


def test_rounding_removes_whole_multiples():
    kept = simple([1.0, 2.0], [float(i) for i in range(20)]).module_wise(0.1, 0.5, round_to=4)
    assert kept.blocks[0].channels == tuple(range(8, 20))


def test_global_ranking_takes_everything_up_to_the_threshold():
    ranking = simple([0.5, 9.0], [0.1, 0.2, 0.2, 3.0, 4.0, 5.0])
    kept = ranking.overall(0.25)  # two of eight groups; 0.2 is the threshold, and there are two of it
    assert kept.blocks[0].heads == (0, 1)
    assert kept.blocks[0].channels == (3, 4, 5)
    kept = ranking.overall(0.5)  # a head counts as one group
    assert kept.blocks[0].heads == (1,)
    assert kept.blocks[0].channels == (3, 4, 5)


def test_global_ranking_leaves_whole_what_it_would_empty():
    kept = simple([7.0, 9.0], [0.1, 0.2, 0.3, 0.4]).overall(0.6)
    assert kept.blocks[0].channels == (0, 1, 2, 3)
    assert kept.blocks[0].heads == (0, 1)


def test_later_steps_count_from_the_dense_model():
    dense = Shape(8, 4, 10, True, (BlockShape(4, 4, 20),))
    current = Shape(8, 4, 10, True, (BlockShape(3, 3, 15),))
    scores = Scores({0: torch.arange(3.0) + 100}, {0: torch.arange(15.0)})
    ranking = Ranking(dense, current, scores)
    assert ranking.module_wise(0.5, 0.5).blocks[0].heads == (1, 2)
    assert len(ranking.module_wise(0.5, 0.5).blocks[0].channels) == 10
    assert len(ranking.module_wise(0.1, 0.1).blocks[0].channels) == 15
    assert len(ranking.overall(0.5).blocks[0].channels) == 9  # 12 of 24 groups stay, 3 of them heads


@settings(max_examples=60, deadline=None)
@given(
    heads=st.integers(1, 5),
    n_rep=st.integers(1, 3),
    head_dim=st.sampled_from([2, 4, 6]),
    channels=st.integers(1, 40),
    attention=st.floats(0, 1),
    mlp=st.floats(0, 1),
    seed=st.integers(0, 5),
)
def test_counts_follow_the_formula_and_nothing_is_emptied(heads, n_rep, head_dim, channels, attention, mlp, seed):
    shape = Shape(16, head_dim, 50, True, (BlockShape(heads * n_rep, heads, channels),) * 3)
    ranking = ranking_of(shape, (1, 3), seed)
    after = shape.after(ranking.module_wise(attention, mlp))
    rows = heads * head_dim
    kept_heads = max(1, heads - (rows - int(rows * (1 - attention))) // head_dim)
    assert after.blocks[0] == shape.blocks[0]
    assert after.blocks[1] == after.blocks[2]
    assert after.blocks[1] == BlockShape(kept_heads * n_rep, kept_heads, max(1, int(channels * (1 - mlp))))
    assert shape.after(ranking.overall(mlp))  # raises where a module is empty


@settings(max_examples=40, deadline=None)
@given(ratios=st.tuples(st.floats(0, 1), st.floats(0, 1)), seed=st.integers(0, 5))
def test_more_asked_is_more_removed_and_what_went_stays_gone(ratios, seed):
    low, high = sorted(ratios)
    ranking = ranking_of(TINY, seed=seed)
    more, less = ranking.module_wise(low, low), ranking.module_wise(high, high)
    for layer, block in less.blocks.items():
        assert set(block.heads) <= set(more.blocks[layer].heads)
        assert set(block.channels) <= set(more.blocks[layer].channels)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(value=st.floats(0.01, 0.57), seed=st.integers(0, 3), overall=st.booleans())
def test_targets_are_met_on_smollm(value, seed, overall):
    ranking = ranking_of(SMOLLM, seed=seed)
    limit = 0.44 if overall else 0.57
    target = Target(basis="params", value=min(value, limit))
    choose = (lambda _, ratio: ranking.overall(ratio)) if overall else ranking.module_wise
    kept = to_target(SMOLLM, target, choose)
    assert abs(SMOLLM.removed(SMOLLM.after(kept))["params"] - target.value) <= TARGET_TOLERANCE


@pytest.mark.parametrize("basis", ["params", "block_params", "macs"])
def test_achieved_size_grows_with_the_target(basis):
    ranking = ranking_of(SMOLLM)
    achieved = []
    for percent in range(2, 56, 6):
        kept = to_target(SMOLLM, Target(basis=basis, value=percent / 100), ranking.module_wise)
        achieved.append(SMOLLM.removed(SMOLLM.after(kept))[basis])
        assert abs(achieved[-1] - percent / 100) <= TARGET_TOLERANCE
    assert achieved == sorted(achieved)


def test_heads_that_jump_over_the_target_are_frozen_on_the_nearer_side():
    ranking = ranking_of(SMOLLM)
    jump = 1 - 129 / 192  # from here on 64 of the 192 rows of three heads go
    below, above = (ranking.module_wise(ratio, ratio) for ratio in (jump - 1e-4, jump + 1e-4))
    removed = [SMOLLM.removed(SMOLLM.after(kept))["params"] for kept in (below, above)]
    assert removed[0] < 0.2 - TARGET_TOLERANCE  # one common ratio cannot remove 20 %
    assert removed[1] > 0.2 + TARGET_TOLERANCE
    steered = partial(to_target, SMOLLM, choose=ranking.module_wise)
    assert SMOLLM.after(steered(Target(value=0.2))).blocks[10].kv_heads == 2
    assert SMOLLM.after(steered(Target(value=0.18))).blocks[10].kv_heads == 3


def test_a_group_ratio_is_taken_as_it_is():
    ranking = ranking_of(TINY)
    assert to_target(TINY, Target(basis="group_ratio", value=0.3), ranking.module_wise) == ranking.module_wise(0.3, 0.3)


def test_what_cannot_be_reached_is_said_with_what_can():
    shape = Shape(64, 16, 300, False, (BlockShape(4, 4, 96),) * 8)
    ranking = ranking_of(shape, (3, 4))
    with pytest.raises(MethodError, match=r"target params=0.6 cannot be reached: the nearest fraction .* is 0\.\d{4}$"):
        to_target(shape, Target(value=0.6), ranking.module_wise)
    coarse = Shape(64, 16, 300, False, (BlockShape(4, 4, 1),) * 4)
    with pytest.raises(MethodError, match=r"is 0\.\d{4} or 0\.\d{4}$"):
        to_target(coarse, Target(value=0.2), ranking_of(coarse).module_wise)
    assert to_target(coarse, Target(value=0.2), ranking_of(coarse).module_wise, must_reach=False)
