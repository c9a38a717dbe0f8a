"""LoRA as a method: an independent merge, equal seeds, what is trained, and what is left alone."""

import pytest
import torch

from bench.blocks.lora import attach
from bench.blocks.settings import LoraTuning
from bench.blocks.train import causal_loss, mean_loss, train
from bench.errors import BudgetExceeded, MethodError, UsageError
from bench.method import Preset, Target
from bench.model.adapter import adapter_of
from bench.registry import load_registry
from tests.blocks.context import make_context, token_ids
from tests.tiny import make_model

QUICK = {"steps": 6, "batch_size": 4, "micro_batch": 2, "max_length": 32, "lr": 1e-2, "warmup_steps": 2}
SHAPES = [{}, {"tied": True}, {"kv_heads": 2}, {"kv_heads": 2, "tied": True}]
NAMES = ("lora", "capaboost")


def compress(name, ctx=None, model=None, **config):
    entry = load_registry().method(name)
    method = entry.cls(entry.config(Preset(description=""), QUICK | config))
    ctx = ctx or make_context()
    model = method.compress((model or make_model()).requires_grad_(False), ctx)
    return method.finalize(method.recover(model, ctx), ctx)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_training_lowers_the_loss_and_changes_the_targets_alone(name, shape):
    dense, ctx = make_model(**shape), make_context()
    data, state = ctx.examples(32), torch.get_rng_state()
    tuned = compress(name, ctx, make_model(**shape))
    assert type(tuned) is type(dense)
    losses = [mean_loss(model, data, 4, causal_loss, ctx.device) for model in (dense, tuned)]
    assert losses[1] < losses[0] - 0.1
    before = dict(dense.named_parameters())
    changed = {path for path, weight in tuned.named_parameters() if not torch.equal(weight, before[path])}
    assert set(before) == {path for path, _ in tuned.named_parameters()}
    assert changed == {path for path in before if path.split(".")[-2] in ("q_proj", "v_proj")}
    assert not tuned.training
    assert all(p.grad is None and not p.requires_grad for p in tuned.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in tuned.modules())
    make_model(**shape)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", NAMES)
def test_the_adapter_is_the_whole_change(name):
    """W + scale·B A by hand, from the numbers that are handed over."""
    tuned, dense = compress(name, r=4, alpha=6), make_model()
    adapter = adapter_of(tuned)
    scale = adapter.settings.lora_alpha / adapter.settings.r
    weights = {path: weight.clone() for path, weight in dense.named_parameters()}
    for key, a in adapter.weights.items():
        if ".lora_A." in key:
            path = key.removeprefix("base_model.model.").replace("lora_A.weight", "weight")
            weights[path] += scale * adapter.weights[key.replace("lora_A", "lora_B")] @ a
    for path, weight in tuned.named_parameters():
        torch.testing.assert_close(weight, weights[path], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_equal_seeds_equal_weights(name):
    first, again, other = (list(compress(name, make_context(seed=seed)).parameters()) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_both_methods_train_as_many_parameters_whatever_the_branches():
    counts = []
    for name, config in (("lora", {}), ("capaboost", {"d": 1}), ("capaboost", {"d": 3})):
        ctx = make_context()
        compress(name, ctx, make_model(kv_heads=2), r=4, **config)
        counts.append(ctx.meter.trainable_parameters)
        assert ctx.meter.optimiser_steps == 6
        assert ctx.meter.calibration_tokens == 0
    assert counts == [4 * 4 * (64 + 64 + 64 + 32)] * 3


def test_the_merged_model_is_the_adapted_one():
    model, ctx, config, ids = make_model().requires_grad_(False), make_context(), LoraTuning(**QUICK), token_ids(2, 9)
    adapted = attach(model, ctx, config)
    train(model, ctx, config, ctx.examples(32), name="lora")
    with torch.no_grad():
        torch.testing.assert_close(compress("lora")(ids).logits, adapted(ids).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_bad_input_is_one_clear_sentence(name):
    with pytest.raises(MethodError, match=f"target params=0.2: {name} trains adapters and removes nothing"):
        compress(name, make_context(target=Target(value=0.2)))
    with pytest.raises(MethodError, match="targets: 'qproj' is not a projection; known are q_proj"):
        compress(name, targets=["qproj"])
    with pytest.raises(BudgetExceeded):
        compress(name, make_context(max_steps=3))
    with pytest.raises(UsageError, match="rank: unknown key"):
        compress(name, rank=3)


def test_the_presets_of_both_methods_fit_together():
    lora, capaboost = (load_registry().method(name) for name in NAMES)
    for mine, theirs in (("quick", "quick"), ("small", "small"), ("paper_capaboost", "paper"), ("paper7b", "paper7b")):
        ours = lora.config(lora.preset(mine)).model_dump()
        other = capaboost.config(capaboost.preset(theirs)).model_dump()
        assert ours == {key: other[key] for key in ours}
