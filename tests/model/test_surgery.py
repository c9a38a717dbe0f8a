"""Slicing: what is left computes what the whole computes with the removed parts silenced."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import MethodError
from bench.model.layers import blocks_of, shape_of
from bench.model.surgery import kept_of, prune
from bench.shape import BlockKept, Kept
from tests.tiny import make_model

IDS = torch.arange(40).view(2, 20) % 300
SHAPES: list[dict[str, Any]] = [{"kv_heads": 4}, {"kv_heads": 2}, {"kv_heads": 2, "tied": True}, {"kv_heads": 1}]


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(IDS).logits


def some_kept(kv_heads: int) -> Kept:
    """Every layer differently: all, half the key/value groups, one channel, every third channel."""
    n_rep = 4 // kv_heads
    half = tuple(range(4 - max(1, kv_heads // 2) * n_rep, 4))
    return Kept(
        {
            0: BlockKept((0, 1, 2, 3), tuple(range(96))),
            1: BlockKept(half, tuple(range(0, 96, 3))),
            2: BlockKept((0, 1, 2, 3), (41,)),
            3: BlockKept(half, tuple(range(50, 96))),
        }
    )


def silence(model: torch.nn.Module, kept: Kept) -> None:
    """Zero what is removed, where it would be read: columns of o and down."""
    head_dim = shape_of(model).head_dim
    for block in blocks_of(model):
        mine = kept.blocks[block.index]
        heads = torch.zeros(4, dtype=torch.bool)
        heads[list(mine.heads)] = True
        channels = torch.zeros(96, dtype=torch.bool)
        channels[list(mine.channels)] = True
        block.o.weight.data[:, ~heads.repeat_interleave(head_dim)] = 0
        block.down.weight.data[:, ~channels] = 0


@pytest.mark.parametrize("shape", SHAPES)
def test_masked_equals_sliced(shape: dict[str, Any]) -> None:
    kept = some_kept(shape["kv_heads"])
    masked = make_model(**shape)
    silence(masked, kept)
    sliced = prune(make_model(**shape), kept)
    torch.testing.assert_close(logits(sliced), logits(masked), atol=1e-5, rtol=0)
    assert shape_of(sliced) == shape_of(make_model(**shape)).after(kept)


@pytest.mark.parametrize("shape", SHAPES)
def test_pruning_nothing_changes_nothing(shape: dict[str, Any]) -> None:
    dense = make_model(**shape)
    expected = logits(dense)
    left = prune(dense, shape_of(dense).keep_all())
    assert type(left).__name__ == "LlamaForCausalLM"
    assert torch.equal(logits(left), expected)


@pytest.mark.parametrize("tied", [False, True])
def test_hidden_dimensions_go_everywhere(tied: bool) -> None:
    dense = make_model(kv_heads=2, tied=tied)
    blocks = shape_of(dense).keep_all().blocks
    left = prune(dense, Kept(blocks, hidden=tuple(range(0, 64, 2))))
    assert shape_of(left).hidden == 32
    assert logits(left).shape == (2, 20, 300)
    assert sum(p.numel() for p in left.parameters()) == shape_of(left).params()
    assert all(p.shape[-1] in (32, 64, 96) for p in left.parameters())


def test_a_hidden_dimension_that_is_silent_can_go() -> None:
    """A dimension that nothing writes and nothing reads costs only its share in the norms' mean."""
    dense = make_model()
    for name, weight in dense.named_parameters():
        if weight.dim() == 2 and weight.shape[1] == 64 and "o_proj" not in name:
            weight.data[:, 32:] = 0
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weight.data[32:] = 0
    expected = logits(dense)
    left = prune(dense, Kept(shape_of(dense).keep_all().blocks, hidden=tuple(range(32))))
    for name, weight in left.named_parameters():
        if "norm" in name:
            weight.data *= 2**0.5  # the mean of squares is now over half as many
    left.model.norm.variance_epsilon *= 2
    for block in blocks_of(left):
        block.attention_norm.variance_epsilon *= 2
        block.mlp_norm.variance_epsilon *= 2
    torch.testing.assert_close(logits(left), expected, atol=1e-4, rtol=1e-4)


def test_dropped_blocks_are_gone_and_generation_works() -> None:
    dense = make_model(kv_heads=2)
    blocks = dict(shape_of(dense).keep_all().blocks)
    del blocks[1]
    left = prune(dense, Kept(blocks))
    assert left.config.num_hidden_layers == 3
    assert left.generate(IDS[:, :5], max_new_tokens=4, do_sample=False).shape == (2, 9)


def test_two_prunings_are_remembered_in_indices_of_the_dense_model() -> None:
    once = prune(make_model(), Kept({i: BlockKept((1, 3), tuple(range(10, 90))) for i in (0, 2, 3)}))
    twice = prune(once, Kept({0: BlockKept((0, 1), (0, 5)), 2: BlockKept((1,), tuple(range(80)))}))
    kept = kept_of(twice)
    assert kept.blocks[0] == BlockKept((1, 3), (10, 15))
    assert kept.blocks[3] == BlockKept((3,), tuple(range(10, 90)))
    assert set(kept.blocks) == {0, 3}


@pytest.mark.parametrize(
    ("heads", "channels", "sentence"),
    [
        ((), (0,), "none of the heads of layer 1 is kept"),
        ((0, 1), (), "none of the MLP channels of layer 1 is kept"),
        ((1, 0), (0,), "must be ascending"),
        ((0, 1), (0, 96), "within 0..95"),
        ((0, 1, 2), (0,), "left with \\[2, 1\\] query heads"),
    ],
)
def test_impossible_kept_sets_are_refused(heads: tuple[int, ...], channels: tuple[int, ...], sentence: str) -> None:
    dense = make_model(kv_heads=2)
    blocks = dict(shape_of(dense).keep_all().blocks) | {1: BlockKept(heads, channels)}
    with pytest.raises(MethodError, match=sentence):
        prune(dense, Kept(blocks))


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_counts_in_closed_form_are_the_real_ones(data: st.DataObject) -> None:
    kv_heads = data.draw(st.sampled_from([1, 2, 4]))
    n_rep = 4 // kv_heads
    blocks = {}
    for layer in range(4):
        groups = data.draw(st.sets(st.integers(0, kv_heads - 1), min_size=1))
        heads = tuple(c * n_rep + i for c in sorted(groups) for i in range(n_rep))
        channels = data.draw(st.sets(st.integers(0, 95), min_size=1))
        blocks[layer] = BlockKept(heads, tuple(sorted(channels)))
    model = make_model(kv_heads=kv_heads, tied=data.draw(st.booleans()))
    expected = shape_of(model).after(Kept(blocks))
    left = prune(model, Kept(blocks))
    assert sum(p.numel() for p in left.parameters()) == expected.params()
    assert shape_of(left) == expected


def test_the_model_file_that_is_copied_stays_short() -> None:
    from bench.model import lean

    assert len(Path(lean.__file__).read_text().splitlines()) < 230


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_a_uniform_result_is_stock_where_servers_read_it_so(family: str) -> None:
    """vLLM's Qwen2 takes hidden/heads for the width of a head, which it no longer is once heads are gone."""
    for heads, is_stock in (((0, 1, 2, 3), True), ((0, 1), family != "qwen2")):
        pruned = prune(make_model(family=family), Kept({i: BlockKept(heads, tuple(range(64))) for i in range(4)}))
        assert pruned.config.model_type == (family if is_stock else f"lean_{family}")
