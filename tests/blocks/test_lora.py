import json
import subprocess
import sys

import pytest
import torch

from bench.blocks.groups import Kept, keep_groups, kept_of, prune, shape_of
from bench.blocks.lora import recover
from bench.blocks.recoveries import load_recovery, resolve_recovery
from bench.blocks.settings import LoraRecovery, TrainingConfig
from bench.blocks.train import causal_loss, collate, mean_loss, train
from bench.errors import BudgetExceeded, Cancelled, MethodError, UsageError
from bench.method import Example
from tests.blocks.context import make_context, token_ids
from tests.tiny import make_model

QUICK = LoraRecovery(steps=6, batch_size=4, micro_batch=2, max_length=32, lr=5e-3, warmup_steps=2, holdout=0)


def pruned_model(**shape):
    """Widths of its own in every layer."""
    model = make_model(**shape).requires_grad_(False)
    kv_heads = shape.get("kv_heads", 4)
    return prune(model, keep_groups(shape_of(model), {1: range(kv_heads - 1)}, {1: range(50), 2: range(7, 90)}))


@pytest.mark.parametrize("shape", [{}, {"kv_heads": 2, "tied": True}], ids=["mha", "gqa-tied"])
def test_lora_learns_and_leaves_a_plain_model(shape):
    model = pruned_model(**shape)
    names, kept, before = [n for n, _ in model.named_parameters()], kept_of(model), shape_of(model)
    ctx = make_context()
    data = ctx.examples(32)
    untrained = mean_loss(model, data, 4, causal_loss, ctx.device)
    state = torch.get_rng_state()
    after = recover(model, ctx, QUICK)
    assert torch.equal(torch.get_rng_state(), state)
    assert mean_loss(after, data, 4, causal_loss, ctx.device) < untrained - 0.1
    assert [n for n, _ in after.named_parameters()] == names
    assert shape_of(after) == before
    assert kept_of(after) == kept
    assert not after.training
    assert all(p.grad is None and not p.requires_grad for p in after.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in after.modules())
    assert ctx.meter.optimiser_steps == 6
    assert ctx.meter.trainable_parameters == 8 * sum(
        sum(weight.shape) for name, weight in after.named_parameters() if name.endswith("_proj.weight")
    )


def test_a_recovered_model_saves_and_loads(tmp_path):
    import bench.model  # noqa: F401  (registers the lean classes)

    model = recover(pruned_model(), make_context(), QUICK)
    ids = token_ids(2, 9)
    model.save_pretrained(tmp_path)
    assert not (tmp_path / "adapter_config.json").exists()
    assert "peft" not in (tmp_path / "config.json").read_text()
    again = type(model).from_pretrained(tmp_path)
    torch.testing.assert_close(again(ids).logits, model(ids).logits, atol=1e-6, rtol=1e-6)


def test_same_seed_same_weights():
    first, again, other = (recover(pruned_model(), make_context(seed=seed), QUICK) for seed in (1, 1, 2))
    a, b, c = (m.model.layers[1].mlp.up_proj.weight for m in (first, again, other))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_micro_batches_do_not_change_the_result():
    settings = [QUICK.model_copy(update={"micro_batch": m, "dropout": 0.0}) for m in (1, 4)]
    rows = token_ids(8, 24, seed=3).tolist()
    examples = [Example(row[: 10 + i], [-100] * (5 + i) + row[5 + i : 10 + i]) for i, row in enumerate(rows)]
    results = [recover(pruned_model(), make_context(examples=examples), s) for s in settings]
    a, b = (m.model.layers[2].self_attn.q_proj.weight for m in results)
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_the_best_step_on_the_examples_set_aside_is_kept():
    """The learning rate is wild, so that later steps are worse than the first."""
    examples = [Example(row, row) for row in token_ids(24, 16, seed=5).tolist()]
    config = TrainingConfig(
        steps=12, batch_size=4, micro_batch=8, lr=0.5, warmup_steps=0, grad_clip=1e9, holdout=8, evaluate_every=1
    )
    model, looks = make_model().requires_grad_(True), []

    def loss(model, ids, labels):
        value = causal_loss(model, ids, labels)
        if not model.training:
            looks.append((value.item(), ids, labels))
        return value

    train(model, make_context(), config, examples, name="t", loss=loss)
    assert len(looks) == 12
    best, ids, labels = min(looks, key=lambda look: look[0])
    assert best < looks[-1][0]
    with torch.no_grad():
        assert causal_loss(model, ids, labels).item() == pytest.approx(best, rel=1e-5)


def test_padding_and_prompts_take_no_loss():
    model, ctx = make_model(), make_context()
    row = token_ids(1, 10)[0].tolist()
    alone = collate([Example(row, row)], ctx.device)
    padded = collate([Example(row, row), Example(row * 2, row * 2)], ctx.device)
    assert padded[0].shape == (2, 20)
    assert (padded[1][0, 10:] == -100).all()
    with torch.no_grad():
        torch.testing.assert_close(
            causal_loss(model, *alone), causal_loss(model, padded[0][:1], padded[1][:1]), atol=1e-4, rtol=1e-5
        )
        half = collate([Example(row, [-100] * 9 + row[9:])], ctx.device)
        assert causal_loss(model, *half) < causal_loss(model, *alone)


def test_the_budget_and_an_interruption_stop_the_training():
    with pytest.raises(BudgetExceeded, match="3 optimiser steps"):
        recover(pruned_model(), make_context(max_steps=3), QUICK)
    ctx = make_context()
    ctx.is_cancelled = lambda: ctx.meter.optimiser_steps >= 2
    with pytest.raises(Cancelled):
        recover(pruned_model(), ctx, QUICK)
    assert ctx.meter.optimiser_steps == 2


def test_a_loss_that_is_not_finite_is_a_clear_error():
    model = pruned_model()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = torch.nan
    with pytest.raises(MethodError, match="lora: step 1: the loss is not finite"):
        recover(model, make_context(), QUICK)


def test_too_few_examples_are_a_clear_error():
    with pytest.raises(MethodError, match="more than holdout=2000 examples; there are 16"):
        recover(pruned_model(), make_context(), LoraRecovery())


def test_unknown_projections_are_a_clear_error():
    with pytest.raises(MethodError, match="'up' is not a projection"):
        recover(pruned_model(), make_context(), QUICK.model_copy(update={"targets": ("q_proj", "up")}))


def test_recoveries_resolve_by_name():
    resolved = resolve_recovery({"name": "lora", "steps": 3}, "suite x")
    assert resolved == json.loads(json.dumps(resolved))
    assert resolved["name"] == "lora"
    assert resolved["steps"] == 3
    assert set(resolved) == {"name", "version", *LoraRecovery.model_fields}
    assert resolve_recovery(None, "suite x") is None
    with pytest.raises(UsageError, match="suite x: unknown recovery 'lore'; did you mean lora"):
        resolve_recovery({"name": "lore"}, "suite x")
    with pytest.raises(UsageError, match="suite x: stepz: unknown key; did you mean 'steps'"):
        resolve_recovery({"name": "lora", "stepz": 3}, "suite x")


def test_a_resolved_recovery_runs():
    resolved = resolve_recovery({"name": "lora", **QUICK.model_dump()}, "suite x")
    recovered = load_recovery(resolved)(pruned_model(), make_context())
    direct = recover(pruned_model(), make_context(), QUICK)
    assert torch.equal(recovered.lm_head.weight, direct.lm_head.weight)
    assert torch.equal(recovered.model.layers[1].mlp.up_proj.weight, direct.model.layers[1].mlp.up_proj.weight)


def test_lora_fits_a_model_with_fewer_hidden_dimensions():
    model = make_model().requires_grad_(False)
    narrow = prune(model, Kept(shape_of(model).keep_all().blocks, tuple(range(48))))
    assert recover(narrow, make_context(), QUICK).model.embed_tokens.weight.shape == (300, 48)


def test_settings_and_recoveries_import_no_torch():
    code = "import sys, bench.blocks.settings, bench.blocks.recoveries; assert not {'torch', 'peft'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


class Factored(torch.nn.Module):
    """A projection as two thin matrices, which is no `nn.Linear`."""

    def __init__(self, linear):
        super().__init__()
        u, s, v = torch.linalg.svd(linear.weight.detach(), full_matrices=False)
        self.first, self.second = torch.nn.Linear(64, 20, bias=False), torch.nn.Linear(20, 64, bias=False)
        self.first.weight.data, self.second.weight.data = v[:20].clone(), (u * s)[:, :20].clone()

    def forward(self, x):
        return self.second(self.first(x))


def test_factored_projections_get_no_adapter():
    model = make_model().requires_grad_(False)
    for layer in model.model.layers[:2]:
        layer.self_attn.q_proj = Factored(layer.self_attn.q_proj).requires_grad_(False)
    before, ctx = {name: weight.clone() for name, weight in model.named_parameters()}, make_context()
    recovered = recover(model, ctx, QUICK.model_copy(update={"targets": ("q_proj",)}))
    changed = {name for name, weight in recovered.named_parameters() if not torch.equal(weight, before[name])}
    assert changed == {f"model.layers.{i}.self_attn.q_proj.weight" for i in (2, 3)}
    assert ctx.meter.trainable_parameters == 2 * 8 * 128


def test_a_model_without_a_plain_target_is_a_clear_error():
    model = make_model().requires_grad_(False)
    for layer in model.model.layers:
        layer.self_attn.q_proj = Factored(layer.self_attn.q_proj)
    with pytest.raises(MethodError, match="lora: targets: in this model none of q_proj is a plain matrix"):
        recover(model, make_context(), QUICK.model_copy(update={"targets": ("q_proj",)}))
