"""Compresso: its phases, the size it ends at, and a run that was cut off. The kit asks what every method must do."""

from typing import Any

import pytest
import torch
import yaml

from bench.blocks import resume
from bench.blocks import train as training
from bench.blocks.groups import kept_of, shape_of
from bench.blocks.notice import NOTICE
from bench.blocks.train import Hooks
from bench.errors import Cancelled, UsageError
from bench.method import Example, Preset, Target
from bench.registry import load_registry
from methods.compresso import Compresso, CompressoConfig, l0
from methods.compresso import method as module
from tests.blocks.context import make_context, token_ids
from tests.tiny import make_model, make_tokenizer

ROWS = token_ids(12, 16, seed=3).tolist()
EXAMPLES = [Example(row, row) for row in ROWS]
FAST = {
    "steps": 6,
    "batch_size": 2,
    "micro_batch": 1,
    "holdout": 0,
    "max_length": 16,
    "finetune_epochs": 0,
    "init_heads": 2.0,
    "init_channels": 2.0,
    "init_hidden": 2.0,
    "mask_lr": 0.3,
    "lr": 1e-2,
}


def compress(model=None, ctx=None, **config):
    ctx = ctx or make_context(examples=EXAMPLES, target=Target(value=0.2))
    method = Compresso(CompressoConfig(**FAST | config))
    return method.compress((model or make_model(kv_heads=2, tied=True)).requires_grad_(False), ctx)


def weights(model):
    return torch.cat([parameter.flatten() for parameter in model.parameters()])


@pytest.fixture
def watched(monkeypatch):
    """What the training loop is given, run by run."""
    runs, train = [], training.train

    def spy(model, ctx, config, examples, *, name, hooks=Hooks()):  # noqa: B008
        runs.append((name, config, hooks, model))
        train(model, ctx, config, examples, name=name, hooks=hooks)

    monkeypatch.setattr(module, "train", spy)
    return runs


@pytest.fixture
def seen(monkeypatch):
    """The masks, and what they were after each step of learning."""
    made: list[Any] = []

    class Watched(l0.Masks):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.noises, self.drawn = [], 0
            made.append(self)

        def draw(self):
            super().draw()
            self.drawn += 1

        def sampled(self):
            self.noises.append((self.drawn, float(self.noise["hidden"][0])))
            return super().sampled()

    monkeypatch.setattr(module, "Masks", Watched)
    return made


def test_one_sample_of_the_masks_for_all_passes_of_a_step(seen):
    compress(steps=8, prepruning_epochs=2)
    [masks] = seen
    assert masks.drawn == 6  # the first 2 of 8 steps train LoRA alone
    assert [step for step, _ in masks.noises] == [step for step in range(1, 7) for _ in range(2)]
    assert len({noise for _, noise in masks.noises}) == 6


def test_adapters_masks_and_multipliers_have_rates_of_their_own(watched):
    compress(multiplier_lr=0.7, mask_lr=0.3, lr=1e-3)
    [(_name, config, hooks, _model)] = watched
    adapters, logits, multipliers = hooks.groups()
    assert len(adapters["params"]) == 4 * 2 * 2
    assert [len(p) for p in logits["params"]] == [4 * 2, 4 * 96, 64]
    assert (logits["lr"], multipliers["lr"], config.lr) == (0.3, 0.7, 1e-3)
    assert multipliers["maximize"]
    assert multipliers["params"][0].shape == (2,)
    assert hooks.clipped == adapters["params"]


def test_logits_stay_within_the_limit_and_multipliers_rise_with_the_gap(watched, seen):
    compress(limit=2.1, steps=12, init_heads=10.0)
    [(_, _, hooks, _)], [masks] = watched, seen
    assert max(logits.abs().max().item() for logits in masks.logits.values()) <= 2.1
    first, second = hooks.groups()[2]["params"][0].tolist()
    assert first != 0
    assert second > 0  # its gradient is a square


def test_without_a_target_the_published_rule_decides_or_what_is_missing_is_made_up_for(seen):
    dense = shape_of(make_model(channels=256))
    short = compress(make_model(channels=256), make_context(examples=EXAMPLES), target_sparsity=0.25)
    assert dense.removed(shape_of(short))["block_params"] == pytest.approx(0.25, abs=0.005)
    far = compress(make_model(channels=256), make_context(examples=EXAMPLES), target_sparsity=0.02)
    masks = seen[-1]
    assert masks.sparsity().item() > 0.02
    assert kept_of(far) == masks.kept()


@pytest.mark.parametrize("kinds", [("channels",), ("heads", "channels"), ("hidden", "channels")])
def test_only_what_is_masked_goes(kinds):
    model = compress(make_model(channels=256), masks=kinds)
    after = shape_of(model)
    assert (after.hidden < 64) == ("hidden" in kinds)
    assert (sum(b.heads for b in after.blocks) < 16) <= ("heads" in kinds)
    assert all(b.channels < 256 for b in after.blocks)


def test_adapters_are_tuned_on_under_the_fixed_masks_and_what_comes_back_computes_what_was_tuned(monkeypatch):
    ids, runs, train = torch.tensor(ROWS), [], training.train

    def spy(model, ctx, config, examples, *, name, **options):
        train(model, ctx, config, examples, name=name, **options)
        with torch.no_grad():
            runs.append((name, config, model(ids).logits))  # within the block, so still masked

    monkeypatch.setattr(module, "train", spy)
    ctx = make_context(examples=EXAMPLES, target=Target(value=0.2))
    tuned = compress(ctx=ctx, finetune_epochs=8, finetune_batch_size=4, finetune_lr=1e-2)
    (_, _, _), (name, settings, logits) = runs
    assert name == "compresso: fine-tuning"
    assert (settings.steps, settings.batch_size, settings.lr, settings.holdout) == (3, 4, 1e-2, 0)
    assert ctx.meter.optimiser_steps == 6 + 3
    torch.testing.assert_close(tuned(ids).logits, logits, atol=2e-4, rtol=0)
    untuned = compress()
    assert kept_of(tuned) == kept_of(untuned)
    with torch.no_grad():
        losses = [model(input_ids=ids, labels=ids).loss.item() for model in (tuned, untuned)]
    assert losses[0] < losses[1] - 0.05


def test_epochs_become_steps_that_keep_their_proportions(watched):
    config = {"steps": None, "epochs": 4.0, "finetune_epochs": 2.0, "finetune_batch_size": 3, "holdout": 2}
    compress(**config)
    (_, learning, _, _), (_, tuning, _, _) = watched
    assert learning.steps == 4 * 10 / 2
    assert tuning.steps == round(2 * 10 / 3)


@pytest.mark.parametrize("stop", [2, 5, 8])
def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(stop, tmp_path, monkeypatch):
    """Cut off with LoRA alone, with masks, and after they were fixed."""
    monkeypatch.setattr(resume, "SAVE_SECONDS", 0.0)
    config = {
        "prepruning_epochs": 4,
        "finetune_epochs": 4,
        "finetune_batch_size": 2,
        "dropout": 0.1,
        "holdout": 2,
        "evaluate_every": 1,
        "sparsity_epsilon": 0.2,
    }

    def context(workspace=None):
        return make_context(examples=EXAMPLES, target=Target(value=0.2), workspace=workspace)

    whole, ctx = compress(ctx=context(), **config), context(tmp_path)
    ctx.is_cancelled = lambda: ctx.meter.optimiser_steps >= stop
    with pytest.raises(Cancelled):
        compress(ctx=ctx, **config)
    assert list(tmp_path.glob("*.safetensors"))
    again = context(tmp_path)
    resumed = compress(ctx=again, **config)
    assert torch.equal(weights(resumed), weights(whole))
    assert again.meter.earlier_seconds > 0


def test_the_notice_is_asked_for_and_changes_the_result():
    tokenizer, models, asked = make_tokenizer(), [], []
    notice = tokenizer(NOTICE)["input_ids"]

    def source(max_length, prefix):
        asked.append((max_length, prefix))
        before = notice if prefix else []
        return [Example(before + row, [-100] * len(before) + row) for row in ROWS]

    for wanted in (True, False):
        ctx = make_context(target=Target(value=0.2))
        ctx.examples_source = source
        models.append(compress(ctx=ctx, notice=wanted, steps=2))
    assert asked == [(16, NOTICE), (16, "")]
    assert CompressoConfig().notice
    assert kept_of(models[0]) != kept_of(models[1])


def test_the_seed_decides():
    first, other = (
        compress(ctx=make_context(seed=seed, examples=EXAMPLES, target=Target(value=0.2))) for seed in (1, 2)
    )
    assert kept_of(first) != kept_of(other)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"prepruning_epochs": 8}, "prepruning_epochs: must be fewer than epochs=8, not 8"),
        ({"masks": ["heads", "heads"]}, "masks: each at most once"),
        ({"masks": ["layers"]}, "masks"),
        ({"high": 0.9}, "high"),
    ],
)
def test_settings_that_cannot_be_are_refused(config, sentence):
    with pytest.raises(UsageError, match=sentence):
        load_registry().method("compresso").config(Preset(description=""), config)


def test_the_published_settings_are_the_defaults():
    config = CompressoConfig()
    entry = load_registry().method("compresso")
    assert entry.config(entry.preset("paper")).model_dump() == config.model_dump() | {"holdout": 500}
    assert (config.epochs, config.prepruning_epochs, config.ramp_epochs, config.finetune_epochs) == (8, 1, 4, 3)
    assert (config.lr, config.mask_lr, config.multiplier_lr, config.finetune_lr) == (5e-5, 0.1, 0.1, 4e-4)
    assert (config.r, config.alpha, config.targets, config.max_length) == (8, 8, ("q_proj", "v_proj"), 1024)
    assert Compresso.Config.model_validate(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))) == config
