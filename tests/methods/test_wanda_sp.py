"""Wanda-sp against scores computed entry by entry from activations that the test gathers itself."""

import pytest
import torch

from bench.blocks.activations import input_norms, wanda_scores, watch
from bench.blocks.groups import blocks_of, head_of, kept_of
from bench.errors import MethodError
from bench.method import Preset
from bench.registry import load_registry
from tests.blocks.context import make_context, token_ids
from tests.tiny import make_model

HEAD_DIM = 16


def compress(model, ctx=None, **config):
    entry = load_registry().method("wanda_sp")
    return entry.cls(entry.config(Preset(description=""), config)).compress(model, ctx or make_context())


def by_hand(model, layer, ids):
    """MLP and attention scores of `layer` from the block's own output formula: no hooks, no vector operations."""
    states = model(ids, output_hidden_states=True).hidden_states[layer]
    module = model.model.layers[layer]
    with torch.no_grad():
        cos, sin = model.model.rotary_emb(states, torch.arange(ids.shape[1])[None])
        x, attention = module.input_layernorm(states), module.self_attn
        projected = (linear(x) for linear in (attention.q_proj, attention.k_proj, attention.v_proj))
        q, k, v = (y.unflatten(-1, (-1, HEAD_DIM)).transpose(1, 2) for y in projected)
        half = lambda x: torch.cat((-x[..., 8:], x[..., :8]), -1)  # noqa: E731
        q, k = (x * cos[:, None] + half(x) * sin[:, None] for x in (q, k))
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
        context = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        states = states + module.self_attn.o_proj(context)
        x = module.post_attention_layernorm(states)
        channels = torch.nn.functional.silu(module.mlp.gate_proj(x)) * module.mlp.up_proj(x)
    found = []
    for inputs, linear in ((context, module.self_attn.o_proj), (channels, module.mlp.down_proj)):
        weight = linear.weight.detach()
        norms = [sum(float(value) ** 2 for value in inputs[..., j].flatten()) ** 0.5 for j in range(inputs.shape[-1])]
        found.append([sum(abs(float(w)) for w in weight[:, j]) * norms[j] for j in range(len(norms))])
    rows = len(found[0]) // module.self_attn.k_proj.weight.shape[0] * HEAD_DIM  # columns of o per key/value head
    heads = [sum(found[0][i : i + rows]) for i in range(0, len(found[0]), rows)]
    return heads, found[1]


@pytest.mark.parametrize("shape", [{}, {"kv_heads": 2, "tied": True}], ids=["mha", "gqa-tied"])
def test_scores_are_those_of_the_definition(shape):
    model, ids = make_model(layers=2, channels=32, **shape), token_ids(3, 10)
    scores = wanda_scores(model, [1], ids)
    heads, channels = by_hand(model, 1, ids)
    assert scores.attention[1].tolist() == pytest.approx(heads, rel=1e-4)
    assert scores.mlp[1].tolist() == pytest.approx(channels, rel=1e-4)
    assert not [m for m in model.modules() if m._forward_pre_hooks]


def test_norms_do_not_depend_on_how_the_rows_are_split():
    model, ids = make_model(), token_ids(19, 6)
    down = [block.down for block in blocks_of(model)]
    whole = input_norms(model, ids, down)
    parts = [input_norms(model, row[None], down) for row in ids]
    for i, norm in enumerate(whole):
        again = torch.stack([part[i] for part in parts]).square().sum(0).sqrt()
        torch.testing.assert_close(norm, again)


def test_the_lowest_channels_and_heads_go():
    model, ids = make_model(layers=6), token_ids(8, 12)
    scores = wanda_scores(model, range(6), ids)
    kept = kept_of(compress(model, make_context(ids=ids), group_ratio=0.25))
    for layer in (1, 2, 3, 4):
        worst = scores.mlp[layer].argsort()[:24].tolist()
        assert set(kept.blocks[layer].channels) == set(range(96)) - set(worst)
        assert set(kept.blocks[layer].heads) == set(range(4)) - {int(scores.attention[layer].argmin())}
    assert len(kept.blocks[0].channels) == len(kept.blocks[5].channels) == 96


def test_activations_decide_and_not_weights_alone():
    kept = [kept_of(compress(make_model(), make_context(ids=token_ids(4, 16, seed=s)))) for s in (0, 0, 1)]
    assert kept[0] == kept[1]
    assert kept[0] != kept[2]
    model = make_model()
    with torch.no_grad():
        blocks_of(model)[1].up.weight[:24] = 0  # their activations are 0, however large the weights of down
        blocks_of(model)[1].down.weight[:, :24] *= 100
    assert kept_of(compress(model)).blocks[1].channels == tuple(range(24, 96))


def test_what_a_module_gets_is_shown_in_order_and_hooks_go_even_after_an_error():
    model, seen = make_model(), []
    modules = [*(block.attention_norm for block in blocks_of(model)), head_of(model)]
    watch(model, token_ids(9, 5), modules, lambda i, x: seen.append((i, tuple(x.shape))))
    assert seen == [(i, (rows, 5, 64)) for rows in (8, 1) for i in range(5)]

    def broken(i, x):
        raise ValueError("in a hook")

    with pytest.raises(ValueError, match="in a hook"):
        watch(model, token_ids(1, 5), modules, broken)
    assert not [m for m in model.modules() if m._forward_pre_hooks]


def test_activations_that_are_not_finite_are_a_clear_error():
    model = make_model()
    with torch.no_grad():
        blocks_of(model)[2].up.weight[0, 0] = torch.inf
    with pytest.raises(MethodError, match="activations on the calibration text are not finite"):
        compress(model)
