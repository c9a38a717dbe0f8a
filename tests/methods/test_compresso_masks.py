"""Masks while training and after slicing, against a forward pass written out by hand."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

import bench.model  # noqa: F401  (registers the lean classes)
from bench.blocks.groups import keep_groups, kept_of, prune, shape_of
from bench.errors import MethodError
from methods.compresso.masks import Values, fold, masked
from tests.blocks.context import token_ids
from tests.tiny import make_model

SHAPES: dict[str, dict[str, Any]] = {
    "mha": {},
    "mha-tied": {"tied": True},
    "gqa": {"heads": 8, "kv_heads": 4},
    "gqa-tied": {"kv_heads": 2, "tied": True},
}
HIDDEN_KEPT = 47


@pytest.fixture(params=SHAPES)
def model(request):
    model = make_model(**SHAPES[request.param]).requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for norm in (module for name, module in model.named_modules() if name.endswith("norm")):
        norm.weight += 0.3 * torch.randn(64, generator=generator)
    model.config.rms_norm_eps = 0.03  # large enough to be seen
    for module in model.modules():
        if hasattr(module, "variance_epsilon"):
            module.variance_epsilon = 0.03
    return model


def soft_values(model, *, kinds=("heads", "channels", "hidden"), seed=0):
    """Soft masks in (0, 1], some of them 0, never all of a module."""
    generator = torch.Generator().manual_seed(seed)

    def mask(kind, n, zeros):
        if kind not in kinds:
            return torch.ones(n)
        value = 0.2 + 0.8 * torch.rand(n, generator=generator)
        value[torch.randperm(n, generator=generator)[:zeros]] = 0
        return value

    blocks = shape_of(model).blocks
    return Values(
        tuple(mask("heads", b.kv_heads, i % 2) for i, b in enumerate(blocks)),
        tuple(mask("channels", b.channels, 10 + i) for i, b in enumerate(blocks)),
        mask("hidden", 64, 64 - HIDDEN_KEPT),
    )


def by_hand(model, values, ids):
    """The masked forward pass of Compresso, from the weights alone; attention by plain softmax."""
    config, shape, z = model.config, shape_of(model), values.hidden

    def norm(module, x):
        return module.weight * x / (x.square().sum(-1, keepdim=True) / 64 + config.rms_norm_eps).sqrt()

    x = model.model.embed_tokens.weight[ids] * z
    n, t = ids.shape
    cos, sin = model.model.rotary_emb(x, torch.arange(t).unsqueeze(0))
    later = torch.full((t, t), -torch.inf).triu(1)
    for i, layer in enumerate(model.model.layers):
        h, block, attention = norm(layer.input_layernorm, x), shape.blocks[i], layer.self_attn
        q, k, v = (
            (h @ w.weight.T).view(n, t, -1, shape.head_dim).transpose(1, 2)
            for w in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        q, k = apply_rotary_pos_emb(q, k, cos, sin)
        group = torch.arange(block.heads) * block.kv_heads // block.heads
        weights = (q @ k[:, group].transpose(2, 3) / shape.head_dim**0.5 + later).softmax(-1)
        heads = weights @ v[:, group] * values.heads[i][group].view(1, -1, 1, 1)
        x = x + z * (heads.transpose(1, 2).reshape(n, t, -1) @ attention.o_proj.weight.T)
        h, c = norm(layer.post_attention_layernorm, x), values.channels[i]
        inner = nn.functional.silu(c * (h @ layer.mlp.gate_proj.weight.T)) * (c * (h @ layer.mlp.up_proj.weight.T))
        x = x + z * (inner @ layer.mlp.down_proj.weight.T)
    return norm(model.model.norm, x) @ model.lm_head.weight.T


def hooks_in(model):
    return [hook for module in model.modules() for hook in (*module._forward_hooks, *module._forward_pre_hooks)]


@pytest.mark.parametrize(
    "kinds", [("heads",), ("channels",), ("hidden",), ("heads", "channels", "hidden")], ids="-".join
)
def test_masked_logits_are_those_of_the_formula_and_of_the_sliced_model(model, kinds, tmp_path):
    values, ids, dense = soft_values(model, kinds=kinds), token_ids(2, 12), shape_of(model)
    plain = model(ids).logits
    with masked(model, lambda: values):
        logits = model(ids).logits
    assert (logits - plain).abs().max() > 0.01
    torch.testing.assert_close(logits, by_hand(model, values, ids), atol=1e-4, rtol=0)
    assert torch.equal(model(ids).logits, plain)
    assert not hooks_in(model)
    sliced = fold(model, values)
    torch.testing.assert_close(sliced(ids).logits, logits, atol=1e-4, rtol=0)
    after = shape_of(sliced)
    for i, (old, new) in enumerate(zip(dense.blocks, after.blocks, strict=True)):
        gone = i % 2 if "heads" in kinds else 0
        assert (new.kv_heads, new.heads) == (old.kv_heads - gone, (old.kv_heads - gone) * old.heads // old.kv_heads)
        assert new.channels == 96 - (10 + i if "channels" in kinds else 0)
    assert after.hidden == (HIDDEN_KEPT if "hidden" in kinds else 64)
    assert after.params() == sum(p.numel() for p in sliced.parameters())
    sliced.save_pretrained(tmp_path)
    again = type(sliced).from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again(ids).logits, logits, atol=1e-4, rtol=0)
    epsilons = {module.variance_epsilon for module in again.modules() if hasattr(module, "variance_epsilon")}
    assert epsilons == {again.config.rms_norm_eps}
    assert again.config.rms_norm_eps == pytest.approx(0.03 * 64 / after.hidden)


def test_masks_fit_a_model_whose_layers_differ_already():
    model = make_model().requires_grad_(False)
    model = prune(model, keep_groups(shape_of(model), {1: range(3)}, {2: range(50)}))
    values, ids = soft_values(model), token_ids(2, 12)
    with masked(model, lambda: values):
        logits = model(ids).logits
    sliced = fold(model, values)
    torch.testing.assert_close(sliced(ids).logits, logits, atol=1e-4, rtol=0)
    assert set(kept_of(sliced).blocks[1].heads) < {0, 1, 2}


def test_biases_are_masked_with_their_rows():
    model = make_model(kv_heads=2).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for module in model.model.layers.modules():
        if isinstance(module, nn.Linear):
            module.bias = nn.Parameter(torch.randn(module.out_features, generator=generator), requires_grad=False)
    model.config.attention_bias = model.config.mlp_bias = True
    values, ids = soft_values(model), token_ids(2, 12)
    with masked(model, lambda: values):
        logits = model(ids).logits
    torch.testing.assert_close(fold(model, values)(ids).logits, logits, atol=1e-4, rtol=0)


def test_values_are_asked_for_once_in_every_pass_and_none_masks_nothing():
    model, ids, asked = make_model(), token_ids(1, 5), []

    plain = model(ids).logits
    with masked(model, lambda: asked.append("once")):  # which is None
        assert torch.equal(model(ids).logits, plain)
        model(ids)
    assert asked == ["once", "once"]


def test_hooks_go_even_when_the_block_fails():
    model = make_model()
    with pytest.raises(RuntimeError, match="on purpose"), masked(model, lambda: None):
        raise RuntimeError("on purpose")
    assert not hooks_in(model)


def test_gradients_reach_every_mask():
    model = make_model(kv_heads=2).requires_grad_(False)
    shape = shape_of(model)
    leaf = Values(
        tuple(torch.ones(b.kv_heads, requires_grad=True) for b in shape.blocks),
        tuple(torch.ones(b.channels, requires_grad=True) for b in shape.blocks),
        torch.ones(shape.hidden, requires_grad=True),
    )
    ids = token_ids(2, 12)
    with masked(model, lambda: leaf):
        model(input_ids=ids, labels=ids).loss.backward()
    step = 1e-2
    for masks, entry in ((leaf.heads[1], 1), (leaf.channels[2], 5), (leaf.hidden, 7)):
        losses = []
        for sign in (1, -1):
            masks.data[entry] += sign * step
            with masked(model, lambda: leaf), torch.no_grad():
                losses.append(model(input_ids=ids, labels=ids).loss.item())
            masks.data[entry] -= sign * step
        assert masks.grad[entry].item() == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=0.05, abs=2e-4)


def test_a_module_without_any_mask_left_is_a_clear_error():
    model = make_model().requires_grad_(False)
    values = soft_values(model, kinds=())
    values.channels[2].zero_()
    with pytest.raises(MethodError, match="none of the MLP channels of layer 2 is kept"):
        fold(model, values)
