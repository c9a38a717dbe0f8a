"""LoRA recovery where a method left low-rank factors in the place of projections."""

import pytest
import torch

from bench.blocks.lora import recover
from bench.blocks.lora_on_factors import FactorAdapter
from bench.blocks.recoveries import resolve_recovery
from bench.blocks.settings import FACTORS, LoraRecovery
from bench.blocks.train import causal_loss, mean_loss
from bench.errors import UsageError
from bench.model.lean_llama import SharedFactors
from tests.artefacts import SHAPES, factored
from tests.blocks.context import make_context
from tests.tiny import make_model

PLAIN = LoraRecovery(steps=6, batch_size=4, micro_batch=2, max_length=32, lr=5e-3, warmup_steps=2, holdout=0)
BOTH = PLAIN.model_copy(update={"targets": (*PLAIN.targets, FACTORS)})


def lean_model(kind: str = "mha"):
    return factored(make_model(**SHAPES[kind]).requires_grad_(False))


def factor_sets(model):
    return [module for module in model.modules() if isinstance(module, SharedFactors)]


@pytest.mark.parametrize("kind", SHAPES)
def test_factors_learn_and_keep_their_rank_and_form(kind):
    model, ctx = lean_model(kind), make_context()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    numbers, names = sum(p.numel() for p in model.parameters()), [name for name, _ in model.named_parameters()]
    untrained = mean_loss(model, ctx.examples(32), 4, causal_loss, ctx.device)
    after = recover(model, ctx, BOTH)
    assert mean_loss(after, ctx.examples(32), 4, causal_loss, ctx.device) < untrained - 0.1
    assert [name for name, _ in after.named_parameters()] == names
    assert sum(p.numel() for p in after.parameters()) == numbers
    assert {type(factors) for factors in factor_sets(after)} == {SharedFactors}
    changed = {name for name, weight in after.state_dict().items() if not torch.equal(weight, before[name])}
    assert changed == {n for n in names if n.endswith(("_proj.weight", ".inner", ".outer"))}
    assert all(p.grad is None and not p.requires_grad for p in after.parameters())


def test_adapters_on_factors_are_counted_beside_those_on_projections():
    with_factors, without, model = make_context(), make_context(), lean_model()
    expected = sum(
        min(PLAIN.r, *weight.shape) * sum(weight.shape)
        for factors in factor_sets(model) for weight in factors.parameters()
    )
    recover(model, with_factors, BOTH)
    recover(lean_model(), without, PLAIN)
    assert with_factors.meter.trainable_parameters == without.meter.trainable_parameters + expected


def test_what_is_merged_is_what_was_trained():
    factors = SharedFactors(12, 16, [5])
    adapter = FactorAdapter(factors.inner, 8, 16.0)
    assert torch.equal(adapter(factors.inner), factors.inner)
    assert adapter.a.shape == (5, 5)
    torch.nn.init.normal_(adapter.b)
    torch.testing.assert_close(adapter(factors.inner), factors.inner + 2.0 * adapter.b @ adapter.a)


def test_on_a_model_without_factors_it_is_plain_lora():
    one, two = (recover(make_model().requires_grad_(False), make_context(), config) for config in (PLAIN, BOTH))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_factors_alone_are_a_clear_error():
    with pytest.raises(UsageError, match="suite x: targets: factors goes beside projections; name one"):
        resolve_recovery({"name": "lora", "targets": ["factors"]}, "suite x")
