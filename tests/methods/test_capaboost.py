"""CapaBoost as a method: the rank it reaches, its settings, and its agreement with a training written out by hand."""

import pytest
import torch
from torch import nn

from bench.blocks.groups import blocks_of, shape_of
from bench.blocks.lora import attach
from bench.blocks.train import causal_loss, collate
from bench.errors import MethodError, UsageError
from bench.method import Example, Preset
from bench.model.adapter import adapter_of
from bench.registry import load_registry
from methods.capaboost import CapaBoostConfig
from methods.capaboost.bottleneck import attach as attach_bottlenecks
from methods.capaboost.bottleneck import fuse
from methods.capaboost.branches import BranchMasks, share
from tests.blocks.context import make_context, token_ids
from tests.methods.test_lora_method import compress
from tests.tiny import make_model


def change(model, layer=1):
    return blocks_of(model)[layer].q.weight - blocks_of(make_model())[layer].q.weight


@pytest.mark.parametrize(
    ("config", "rank"),
    [
        ({"r": 2, "d": 1, "density": 1.0}, 2),
        ({"r": 2, "d": 4}, 8),
        ({"r": 2, "d": 4, "density": 1.0}, 2),
        ({"r": 4, "mask_type": "nm"}, 8),
        ({"r": 4, "mask_type": "complementary"}, 8),
    ],
)
def test_what_is_learned_has_rank_d_times_r(config, rank):
    examples = [Example(row, row) for row in token_ids(24, 32, seed=5).tolist()]
    tuned = compress("capaboost", make_context(examples=examples), **config)
    adapter = adapter_of(tuned)
    a, b = (
        adapter.weights[f"base_model.model.model.layers.1.self_attn.q_proj.lora_{factor}.weight"].double()
        for factor in "AB"
    )
    assert torch.linalg.matrix_rank(b @ a) == rank
    torch.testing.assert_close(change(tuned), (2 * 8 / config["r"] * b @ a).float(), atol=1e-5, rtol=1e-4)


def test_training_is_that_of_masked_branches_written_out():
    """Two steps of AdamW on shared A and B under a hook that adds Σ_k (B ⊙ M_B^k)(A ⊙ M_A^k) x, without peft."""
    row = token_ids(1, 24, seed=7)[0].tolist()
    examples, model, ctx = [Example(row, row)] * 2, make_model().requires_grad_(False), make_context()
    tuned = compress(
        "capaboost",
        make_context(examples=examples),
        targets=["v_proj"],
        steps=2,
        batch_size=2,
        warmup_steps=0,
        r=4,
        alpha=8,
        d=2,
        lr=1e-2,
        normalize_scale=True,
    )
    started = adapter_start()
    masks, pairs = BranchMasks(2, 0.5, "unstructured", 0), []
    for block in blocks_of(model):
        path = f"model.layers.{block.index}.self_attn.v_proj"
        a, b = nn.Parameter(started[path]), nn.Parameter(torch.zeros(64, 4))
        ma, mb = masks.draw(f"{path}|A", (4, 64)), masks.draw(f"{path}|B", (64, 4))
        pairs += [a, b]

        def add(module, args, out, a=a, b=b, ma=ma, mb=mb):
            return out + 8 / (4 * 2 * 0.25) * sum((args[0] @ (a * ma[k]).T) @ (b * mb[k]).T for k in range(2))

        block.v.register_forward_hook(add)
    optimiser = torch.optim.AdamW(pairs, lr=1e-2, weight_decay=0.0)
    ids, labels = collate(examples, ctx.device)
    for factor in (1.0, 0.5):
        optimiser.param_groups[0]["lr"] = 1e-2 * factor
        (causal_loss(model, ids, labels) / 46).backward()
        nn.utils.clip_grad_norm_(pairs, 1.0)
        optimiser.step()
        optimiser.zero_grad()
    with torch.no_grad():
        torch.testing.assert_close(tuned(ids).logits, model(ids).logits, atol=2e-4, rtol=1e-4)
        assert (tuned(ids).logits - make_model()(ids).logits).abs().max() > 0.05


def adapter_start():
    """A by projection, as it is before training."""
    model = make_model().requires_grad_(False)
    share(
        attach(model, make_context(), CapaBoostConfig(r=8, targets=("v_proj",)), name="capaboost"),
        BranchMasks(2, 0.5, "unstructured", 0),
    )
    return {
        path.removesuffix(".lora_A.default.parametrizations.weight.original"): weight.detach().clone()
        for path, weight in model.named_parameters()
        if "lora_A" in path
    }


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"mask_type": "nm", "density": 0.25}, "density: mask_type 'nm' keeps half of the entries, not 0.25"),
        ({"mask_type": "nm", "r": 2}, "r: mask_type 'nm' keeps 2 of every 4, so r must be a multiple of 4, not 2"),
        ({"mask_type": "complementary", "d": 3}, "d: mask_type 'complementary' has two branches, not 3"),
        ({"form": "adapter", "init_fan": "r"}, "form: 'adapter' has neither init_fan nor normalize_scale"),
        ({"form": "adapter", "normalize_scale": True}, "form: 'adapter' has neither"),
        ({"mask_type": "random"}, "mask_type"),
        ({"density": 0}, "density"),
        ({"d": 0}, "d: "),
    ],
)
def test_settings_that_do_not_go_together_are_refused(config, sentence):
    with pytest.raises(UsageError, match=sentence):
        load_registry().method("capaboost").config(Preset(description=""), config)


def test_the_adapter_form_stays_in_the_model_and_only_its_bottlenecks_learn():
    ctx = make_context()
    tuned = compress("capaboost", ctx, form="adapter", reduction=8, steps=4, lr=1e-2)
    dense = dict(make_model().named_parameters())
    assert shape_of(tuned).bottleneck == 2 * 8
    assert ctx.meter.trainable_parameters == 4 * (2 * 8 * 64 + 8 + 64)
    assert all(torch.equal(weight, tuned.get_parameter(name)) for name, weight in dense.items())
    assert adapter_of(tuned) is None
    untrained = fuse(attach_bottlenecks(make_model(), make_context(), 8, BranchMasks(2, 0.5, "unstructured", 0)))
    ids, labels = collate([Example(row, row) for row in token_ids(4, 24).tolist()], ctx.device)
    with torch.no_grad():
        assert causal_loss(tuned, ids, labels) < causal_loss(untrained, ids, labels)


def test_a_bottleneck_without_width_is_refused():
    with pytest.raises(MethodError, match="reduction: 65 leaves no width of the model's 64"):
        compress("capaboost", form="adapter", reduction=65)


@pytest.mark.parametrize("form", ["lora", "adapter"])
def test_every_setting_changes_the_result(form):
    own = [{"init_fan": "r"}, {"normalize_scale": True, "density": 0.25}, {"alpha": 4}]
    settings = [
        {},
        {"d": 3},
        {"density": 0.25},
        {"mask_type": "complementary"},
        {"mask_type": "nm"},
        {"mask_seed": 1},
        *(own if form == "lora" else [{"reduction": 16}]),
    ]
    results = [outcome(compress("capaboost", **{"steps": 2, "form": form, "reduction": 8} | one)) for one in settings]
    assert len(set(results)) == len(settings)


def outcome(model):
    with torch.no_grad():
        return tuple(model(token_ids(1, 9)).logits.flatten().tolist())
