"""Bottlenecks behind the MLPs: their place in a checkpoint, their counts, and what they forbid."""

import pytest
import torch

from bench.blocks.bottleneck import attach
from bench.errors import MethodError
from bench.measure import size
from bench.model.checkpoint import load_checkpoint, save_checkpoint
from bench.model.layers import bottlenecks_of, shape_of
from bench.model.lean import Bottleneck
from bench.model.surgery import add_bottlenecks, kept_of, prune
from bench.shape import BlockKept, Kept
from tests.blocks.context import make_context
from tests.model.test_checkpoint import IDS
from tests.tiny import make_model

GQA = {"heads": 6, "kv_heads": 2, "hidden": 96, "tied": True}


def widened(**shape):
    return attach(make_model(**shape), make_context(), 10).requires_grad_(False).eval()


@torch.no_grad()
def logits(model):
    return model(torch.tensor([IDS])).logits


@pytest.mark.parametrize("shape", [{}, GQA], ids=["mha", "gqa tied"])
def test_a_checkpoint_with_bottlenecks_loads(tmp_path, shape):
    model = widened(**shape)
    assert (logits(model) - logits(make_model(**shape))).abs().max() > 1e-3
    kept = kept_of(model)
    save_checkpoint(tmp_path / "made", model, None, ingredients={}, achieved={}, kept=kept)
    loaded, _ = load_checkpoint(tmp_path / "made")
    torch.testing.assert_close(logits(loaded), logits(model), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [{}, GQA], ids=["mha", "gqa tied"])
def test_counts_in_closed_form_are_those_of_the_model_and_of_torch(shape):
    model = widened(**shape)
    after = shape_of(model)
    assert after.bottleneck == 10
    assert after.params() == sum(p.numel() for p in model.parameters())
    assert 2 * after.matmul_macs(16) == size.counted_flops(model, 16)
    dense = shape_of(make_model(**shape))
    per_token = len(dense.blocks) * (2 * dense.hidden * 10 + 10)
    assert after.macs(16) - dense.macs(16) == 16 * per_token


def test_heads_channels_and_blocks_can_still_be_pruned_and_hidden_dimensions_cannot():
    model = widened()
    kept = Kept({i: BlockKept((0, 2), tuple(range(0, 96, 2))) for i in (0, 2, 3)})
    weights = [bottlenecks_of(model)[i].down.weight.clone() for i in (0, 2, 3)]
    pruned = prune(model, kept)
    assert all(torch.equal(b.down.weight, w) for b, w in zip(bottlenecks_of(pruned), weights, strict=True))
    assert shape_of(pruned).params() == sum(p.numel() for p in pruned.parameters())
    with pytest.raises(MethodError, match="bottlenecks, so its hidden dimensions cannot be pruned"):
        prune(pruned, Kept(shape_of(pruned).keep_all().blocks, hidden=tuple(range(32))))


def test_one_set_of_bottlenecks_one_for_each_block():
    with pytest.raises(MethodError, match="has bottlenecks already"):
        add_bottlenecks(widened(), [])
    with pytest.raises(MethodError, match="1 bottlenecks for 4 blocks"):
        add_bottlenecks(make_model(), [Bottleneck(64, 4)])
