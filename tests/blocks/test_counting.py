"""The published sizes, from the published recipes, through the real selection code: no weight is ever allocated."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bench.blocks.groups import BlockShape, Kept, Shape, pruned_layers, shape_of
from bench.blocks.ranking import Ranking
from bench.blocks.taylor import random_scores

LLAMA_7B = Shape(4096, 128, 32000, False, (BlockShape(32, 32, 11008),) * 32)
LLAMA_3_8B = Shape(4096, 128, 128256, False, (BlockShape(32, 8, 14336),) * 32)
TINY_LLAMA = Shape(2048, 64, 32000, False, (BlockShape(32, 4, 5632),) * 22)


def pruned(shape: Shape, ratio: float, layers: tuple[int, int] | None = None) -> Shape:
    scores = random_scores(shape, pruned_layers(layers, len(shape.blocks)), torch.Generator().manual_seed(0))
    return shape.after(Ranking(shape, shape, scores).module_wise(ratio, ratio))


@pytest.mark.parametrize(
    ("shape", "ratio", "layers", "params"),
    [
        (LLAMA_7B, 0.25, (4, 30), 5_422_977_024),
        (LLAMA_7B, 0.25, None, 5_422_977_024),
        (LLAMA_7B, 0.25, (4, 29), 5_473_570_816),
        (LLAMA_7B, 0.6, (3, 31), 3_350_188_032),
        (LLAMA_3_8B, 0.25, (4, 30), 6_612_586_496),
        (TINY_LLAMA, 0.25, (4, 18), 945_907_712),
    ],
)
def test_parameters(shape, ratio, layers, params):
    assert pruned(shape, ratio, layers).params() == params


@pytest.mark.parametrize(
    ("ratio", "layers", "gigamacs"), [(None, None, 424.02), (0.25, (4, 30), 339.60), (0.6, (3, 31), 206.59)]
)
def test_macs(ratio, layers, gigamacs):
    after = LLAMA_7B if ratio is None else pruned(LLAMA_7B, ratio, layers)
    assert round(after.macs(64) / 1e9, 2) == pytest.approx(gigamacs, abs=0.011)


def test_kept_share_and_memory():
    after = pruned(LLAMA_7B, 0.25, (4, 30))
    assert after.params() / LLAMA_7B.params() == pytest.approx(0.804785, abs=1e-6)
    rotary = 32 * 2**20
    assert (2 * LLAMA_7B.params() + rotary) / 2**20 == pytest.approx(12884.5, abs=0.1)
    assert (2 * after.params() + rotary) / 2**20 == pytest.approx(10375.5, abs=0.1)


def test_channel_mode_widths():
    for ratio, width in ((0.2, 3276), (0.5, 2048)):
        hidden = tuple(range(int(4096 * (1 - ratio))))
        assert LLAMA_7B.after(Kept(LLAMA_7B.keep_all().blocks, hidden)).hidden == width


def test_the_closed_form_counts_a_7b_model_on_the_meta_device():
    config = LlamaConfig(
        vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    assert shape_of(model) == LLAMA_7B
    assert sum(p.numel() for p in model.parameters()) == LLAMA_7B.params() == 6_738_415_616
