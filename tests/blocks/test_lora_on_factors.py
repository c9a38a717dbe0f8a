"""LoRA recovery where a method left low-rank factors in the place of projections."""

import pytest
import torch
from torch.nn.utils import parametrize

from bench.blocks import resume
from bench.blocks.lora import recover
from bench.blocks.lora_on_factors import NAMES, FactorAdapter, attach, merge
from bench.blocks.recoveries import resolve_recovery
from bench.blocks.settings import FACTORS, LoraRecovery
from bench.blocks.train import causal_loss, mean_loss
from bench.errors import UsageError
from bench.model.lean import SharedFactors
from tests.artefacts import SHAPES, factored
from tests.blocks.context import make_context, token_ids
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
        for factors in factor_sets(model)
        for weight in factors.parameters()
    )
    recover(model, with_factors, BOTH)
    recover(lean_model(), without, PLAIN)
    assert with_factors.meter.trainable_parameters == without.meter.trainable_parameters + expected


def test_an_adapter_begins_at_nothing_and_has_no_more_rank_than_its_factor():
    factors = SharedFactors(12, 16, [5])
    adapter = FactorAdapter(factors.inner, 8, 16.0)
    assert torch.equal(adapter(factors.inner), factors.inner)
    assert adapter.a.shape == (5, 5)
    torch.nn.init.normal_(adapter.b)
    torch.testing.assert_close(adapter(factors.inner), factors.inner + 2.0 * adapter.b @ adapter.a)


def test_what_is_merged_is_what_was_trained():
    model, ids = lean_model(), token_ids(2, 9)
    with torch.no_grad():
        untouched = model(ids).logits
        adapted = attach(model, 8, 16.0)
        torch.testing.assert_close(model(ids).logits, untouched, atol=0, rtol=0)
        for factors in adapted:
            for name in NAMES:
                torch.nn.init.normal_(factors.parametrizations[name][0].b, std=0.1)
        trained = model(ids).logits
        merge(adapted)
    assert not torch.allclose(trained, untouched, atol=1e-2)
    torch.testing.assert_close(model(ids).logits, trained, atol=1e-6, rtol=1e-6)
    assert not any(parametrize.is_parametrized(module) for module in model.modules())


def test_a_training_that_was_cut_off_goes_on_with_the_same_result(tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "SAVE_SECONDS", 0.0)

    def cut_off(what, done, total):
        if done == 3:
            raise KeyboardInterrupt

    whole = recover(lean_model(), make_context(), BOTH)
    cut = make_context(workspace=tmp_path)
    cut.on_progress = cut_off
    with pytest.raises(KeyboardInterrupt):
        recover(lean_model(), cut, BOTH)
    rest, steps = make_context(workspace=tmp_path), []
    rest.on_progress = lambda what, done, total: steps.append(done)
    again = recover(lean_model(), rest, BOTH)
    assert steps == [4, 5, 6]
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), whole.parameters(), strict=True))


def test_on_a_model_without_factors_it_is_plain_lora():
    one, two = (recover(make_model().requires_grad_(False), make_context(), config) for config in (PLAIN, BOTH))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_factors_alone_are_a_clear_error():
    with pytest.raises(UsageError, match="suite x: targets: factors goes with projections; name one"):
        resolve_recovery({"name": "lora", "targets": ["factors"]}, "suite x")
