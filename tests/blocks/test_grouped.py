import pytest
import torch
from torch import nn

from bench.blocks.grouped import adapt, merge, recover
from bench.blocks.groups import Kept, kept_of, prune, shape_of
from bench.blocks.quant import spread
from bench.blocks.recoveries import load_recovery, resolve_recovery
from bench.blocks.settings import GroupedRecovery, LoraRecovery
from bench.blocks.train import causal_loss, mean_loss
from bench.errors import BudgetExceeded, MethodError
from bench.method import Target
from methods.saap import SAAP, SAAPConfig
from tests.blocks.context import make_context, token_ids
from tests.tiny import make_model

QUICK = GroupedRecovery(
    steps=6, batch_size=4, max_length=32, lr=5e-3, warmup_steps=1, holdout=0, r=4, group_size=24, dropout=0.1
)


def pruned_model(**shape):
    """Widths that differ from layer to layer, and MLPs that no group size divides."""
    model = make_model(**shape).requires_grad_(False)
    return SAAP(SAAPConfig(layers=(0, 4))).compress(model, make_context(target=Target(value=0.2)))


def projections(model):
    return {name: m for name, m in model.named_modules() if name.endswith("_proj")}


@pytest.mark.parametrize("shape", [{}, {"kv_heads": 2, "tied": True}], ids=["mha", "gqa-tied"])
@pytest.mark.parametrize("bits", [4, None])
def test_adapters_learn_and_leave_a_plain_model(shape, bits):
    model = pruned_model(**shape)
    assert len({(b.heads, b.channels) for b in shape_of(model).blocks}) > 1
    names, kept, before = [n for n, _ in model.named_parameters()], kept_of(model), shape_of(model)
    others = {n: p.clone() for n, p in model.named_parameters() if "_proj" not in n}
    ctx = make_context()
    untrained = mean_loss(model, ctx.examples(32), 4, causal_loss, ctx.device)
    state = torch.get_rng_state()
    after = recover(model, ctx, QUICK.model_copy(update={"bits": bits}))
    assert torch.equal(torch.get_rng_state(), state)
    assert mean_loss(after, ctx.examples(32), 4, causal_loss, ctx.device) < untrained - 0.1
    assert [n for n, _ in after.named_parameters()] == names
    assert (shape_of(after), kept_of(after)) == (before, kept)
    assert all(torch.equal(p, others[n]) for n, p in after.named_parameters() if n in others)
    assert not after.training
    assert all(p.grad is None and not p.requires_grad for p in after.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in after.modules())
    assert ctx.meter.optimiser_steps == 6
    assert ctx.meter.trainable_parameters == sum(
        4 * (m.out_features + -(-m.in_features // 24)) for m in projections(after).values()
    )


@pytest.mark.parametrize("bits", [3, 4])
def test_every_group_of_the_recovered_weights_lies_on_a_grid(bits):
    model = pruned_model(kv_heads=2)
    assert any(m.in_features % 24 for m in projections(model).values())
    after = recover(model, make_context(), QUICK.model_copy(update={"bits": bits}))
    for m in projections(after).values():
        for group in m.weight.split(24, 1):
            step = (group.amax(1) - group.amin(1)) / (2**bits - 1)
            codes = (group - group.amin(1, True)) / step[:, None]
            torch.testing.assert_close(codes, codes.round(), atol=2e-3, rtol=0)
            assert max(len(row.round().unique()) for row in codes) <= 2**bits


@pytest.mark.parametrize("bits", [4, None])
@pytest.mark.parametrize("shape", [{}, {"kv_heads": 2}], ids=["mha", "gqa"])
def test_the_merged_model_is_the_adapted_one(bits, shape):
    model, ids = pruned_model(**shape), token_ids(3, 12)
    generator = torch.Generator().manual_seed(1)
    linears = list(projections(model).values())
    for linear in linears:
        adapt(linear, QUICK.model_copy(update={"bits": bits}))
        linear.group_adapter.b.data.normal_(0, 0.02, generator=generator)
    model.eval()
    with torch.no_grad():
        adapted = model(ids).logits
        plain = torch.cat([linear.weight.flatten() for linear in linears])
        for linear in linears:
            merge(linear)
        merged = model(ids).logits
    assert (torch.cat([linear.weight.flatten() for linear in linears]) - plain).abs().max() > 1e-2
    assert ((merged - adapted).norm() / adapted.norm()) < 1e-4
    assert not any("group_adapter" in name for name, _ in model.named_modules())


def test_merging_shifts_the_offset_and_leaves_codes_and_steps():
    linear = nn.Linear(50, 7, bias=False).requires_grad_(False)
    adapt(linear, QUICK)
    adapter, before = linear.group_adapter, linear.weight.clone()
    adapter.b.data.normal_()
    shift = 16 / 4 * adapter.b @ adapter.a
    merge(linear)
    torch.testing.assert_close(linear.weight - before, spread(shift, 24, 50), atol=1e-5, rtol=1e-5)
    for group, old in zip(linear.weight.split(24, 1), before.split(24, 1), strict=True):
        torch.testing.assert_close(group - group.amin(1, True), old - old.amin(1, True), atol=1e-5, rtol=1e-4)


def test_the_gradients_are_those_of_the_written_out_formula():
    linear, x = nn.Linear(50, 7).requires_grad_(False), torch.randn(9, 50)
    adapt(linear, QUICK)
    adapter = linear.group_adapter.eval()
    adapter.b.data.normal_()
    linear(x).square().sum().backward()
    a, b = (p.detach().clone().requires_grad_() for p in (adapter.a, adapter.b))
    pooled = torch.stack([part.sum(1) for part in x.split(24, 1)], 1)
    (x @ linear.weight.T + linear.bias + 16 / 4 * pooled @ a.T @ b.T).square().sum().backward()
    torch.testing.assert_close(adapter.a.grad, a.grad, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(adapter.b.grad, b.grad, atol=1e-3, rtol=1e-4)


def test_sixteen_bits_without_training_leave_the_model_as_it_is():
    model, ids = pruned_model(), token_ids(2, 9)
    still = QUICK.model_copy(update={"bits": 16, "steps": 1, "lr": 1e-12})
    with torch.no_grad():
        before = model(ids).logits
        after = recover(model, make_context(), still)(ids).logits
    torch.testing.assert_close(after, before, atol=2e-3, rtol=1e-3)


def test_same_seed_same_weights():
    first, again, other = (recover(pruned_model(), make_context(seed=seed), QUICK) for seed in (1, 1, 2))
    a, b, c = ([m.weight for m in projections(model).values()] for model in (first, again, other))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not all(x.shape == y.shape and torch.equal(x, y) for x, y in zip(a, c, strict=True))


def test_it_fits_models_with_fewer_hidden_dimensions_and_in_half_precision():
    model = make_model().requires_grad_(False)
    narrow = prune(model, Kept(shape_of(model).keep_all().blocks, tuple(range(50)))).bfloat16()
    after = recover(narrow, make_context(), QUICK)
    assert {p.dtype for p in after.parameters()} == {torch.bfloat16}
    assert torch.isfinite(after(token_ids(2, 9)).logits).all()


class Factored(nn.Module):
    """A projection that is no plain matrix."""

    def __init__(self, dense):
        super().__init__()
        self.outer = nn.Parameter(torch.randn(dense.in_features, 5) * 0.1)
        self.inner = nn.Parameter(torch.randn(dense.out_features, 5) * 0.1)

    def forward(self, x):
        return x @ self.outer @ self.inner.T


def test_factored_projections_and_the_head_stay_as_they_are():
    model = make_model().requires_grad_(False)
    mlp = model.model.layers[1].mlp
    mlp.up_proj = Factored(mlp.up_proj)
    before = [p.clone() for p in (*mlp.up_proj.parameters(), model.lm_head.weight)]
    recover(model, make_context(), QUICK.model_copy(update={"bits": 2}))
    after = (*mlp.up_proj.parameters(), model.lm_head.weight)
    assert all(torch.equal(a, b) and not a.requires_grad for a, b in zip(after, before, strict=True))
    assert max(len(row.unique()) for row in mlp.gate_proj.weight[:, :24]) <= 4


def test_a_model_of_factors_alone_is_a_clear_error():
    model = make_model(layers=1)
    for parent in (model.model.layers[0].mlp, model.model.layers[0].self_attn):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, Factored(child))
    with pytest.raises(MethodError, match="no projection is a plain matrix"):
        recover(model, make_context(), QUICK)


def test_the_budget_stops_the_training():
    with pytest.raises(BudgetExceeded, match="3 optimiser steps"):
        recover(pruned_model(), make_context(max_steps=3), QUICK)


def test_too_few_examples_are_a_clear_error():
    with pytest.raises(MethodError, match="more than holdout=2000 examples; there are 16"):
        recover(pruned_model(), make_context(), GroupedRecovery())


def test_it_is_found_by_name_and_trains_by_the_published_recipe():
    resolved = resolve_recovery({"name": "grouped", **QUICK.model_dump()}, "suite x")
    recovered = load_recovery(resolved)(pruned_model(), make_context())
    direct = recover(pruned_model(), make_context(), QUICK)
    pairs = zip(recovered.parameters(), direct.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    lora, grouped = LoraRecovery().model_dump(), GroupedRecovery().model_dump()
    assert {k: grouped[k] for k in lora if k != "targets"} == {k: lora[k] for k in lora if k != "targets"}
