"""The methods that share groups and selection: what each does that the conformance kit does not ask of all."""

import pytest
import torch
import yaml

from bench.blocks.groups import kept_of, shape_of
from bench.blocks.settings import LoraRecovery
from bench.errors import MethodError, UsageError
from bench.method import Preset, Target
from bench.registry import load_registry
from methods.llm_pruner import LLMPruner, LLMPrunerConfig
from tests.blocks.context import make_context, token_ids
from tests.tiny import make_model

SHAPES = {
    "mha": {},
    "mha-tied": {"tied": True},
    "gqa": {"heads": 8, "kv_heads": 4},
    "gqa-tied": {"kv_heads": 2, "tied": True},
}
PRUNING = ("random", "magnitude", "llm_pruner")


@pytest.fixture(params=SHAPES)
def shape(request):
    return SHAPES[request.param]


def entry(name):
    return load_registry().method(name)


def compress(name, model, ctx=None, **config):
    method = entry(name)
    made = method.cls(method.config(Preset(description=""), config))
    return made.compress(model.requires_grad_(False), ctx or make_context())


@pytest.mark.parametrize("name", PRUNING)
def test_criteria_prune_the_same_blocks_by_the_same_counts(name):
    dense = make_model(layers=6)
    after = shape_of(compress(name, dense))
    assert [b.heads for b in after.blocks] == [4, 3, 3, 3, 3, 4]
    assert [b.channels for b in after.blocks] == [96, 72, 72, 72, 72, 96]


@pytest.mark.parametrize("layers", [[3, 2], [-1, 2], [2, 2]])
def test_layers_that_do_not_ascend_are_refused(layers):
    with pytest.raises(UsageError, match=r"layers: \[first, last\) must be"):
        entry("random").config(Preset(description=""), {"layers": layers})


def test_the_published_recipe_is_the_default_of_the_lora_settings():
    for name in ("paper", "paper50"):
        recovery = entry("llm_pruner").preset(name).recovery
        assert LoraRecovery(**{k: v for k, v in recovery.items() if k != "name"}) == LoraRecovery()
    config = entry("llm_pruner").config(entry("llm_pruner").preset("paper50"))
    assert (config.group_ratio, config.layers) == (0.6, (3, 31))


def test_dense_changes_nothing():
    model = make_model()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    after = compress("dense", model)
    assert after is model
    assert all(torch.equal(weight, before[name]) for name, weight in after.state_dict().items())


def test_random_depends_on_the_seed_and_magnitude_does_not():
    kept = {
        name: [kept_of(compress(name, make_model(), make_context(seed=seed))) for seed in (1, 2)]
        for name in ("random", "magnitude")
    }
    assert kept["random"][0] != kept["random"][1]
    assert kept["magnitude"][0] == kept["magnitude"][1]


def test_magnitude_keeps_the_largest_channels():
    model = make_model()
    with torch.no_grad():
        model.model.layers[1].mlp.gate_proj.weight[:24] *= 1e-3
        model.model.layers[1].mlp.up_proj.weight[:24] *= 1e-3
        model.model.layers[1].mlp.down_proj.weight[:, :24] *= 1e-3
    assert kept_of(compress("magnitude", model)).blocks[1].channels == tuple(range(24, 96))


def test_calibration_is_metered():
    for config, tokens in (({}, 640), ({"importance": "l2"}, 0), ({"iterative_steps": 2, "seq_len": 8}, 160)):
        ctx = make_context()
        compress("llm_pruner", make_model(), ctx, **config)
        assert ctx.meter.calibration_tokens == tokens
        assert ctx.meter.optimiser_steps == 0
    for name in ("random", "magnitude"):
        ctx = make_context()
        compress(name, make_model(), ctx)
        assert ctx.meter.calibration_tokens == 0


def test_token_ids_of_the_caller_decide():
    ids = [token_ids(4, 16, seed=s) for s in (0, 1)]
    kept = [kept_of(compress("llm_pruner", make_model(), make_context(ids=i))) for i in (ids[0], ids[0], ids[1])]
    assert kept[0] == kept[1]
    assert kept[0] != kept[2]


@pytest.mark.parametrize("global_ranking", [False, True])
def test_iterative_steps_end_at_the_same_size_with_fresh_scores(global_ranking):
    counts, kept = [], []
    for steps in (1, 3):
        config = {"iterative_steps": steps, "global_ranking": global_ranking, "group_ratio": 0.4}
        model = compress("llm_pruner", make_model(), **config)
        counts.append(sum(b.heads + b.channels for b in shape_of(model).blocks))
        kept.append(kept_of(model))
    assert counts[0] == counts[1]
    assert kept[0] != kept[1]


def test_steps_meet_a_target_too():
    ctx = make_context(target=Target(value=0.2))
    model = compress("llm_pruner", make_model(channels=256), ctx, iterative_steps=3, layers=[0, 4])
    assert abs(shape_of(make_model(channels=256)).removed(shape_of(model))["params"] - 0.2) <= 0.005


def test_the_fold_decides_under_grouped_attention_only():
    def kept(shape, how):
        models = (compress("llm_pruner", make_model(seed=s, **shape), gqa_fold=how, group_ratio=0.5) for s in range(4))
        return [{i: b.heads for i, b in kept_of(m).blocks.items()} for m in models]

    assert kept(SHAPES["gqa"], "contiguous") != kept(SHAPES["gqa"], "strided")
    assert kept(SHAPES["mha"], "contiguous") == kept(SHAPES["mha"], "strided")


@pytest.mark.parametrize("importance", ["vectorize", "param_first"])
def test_channel_mode_removes_hidden_dimensions(importance, shape):
    model = make_model(**shape)
    dense = shape_of(model)
    with torch.no_grad():
        for norm in (m for name, m in model.named_modules() if name.endswith("norm")):
            norm.weight[5] = 0  # nothing reads this dimension
    pruned = compress("llm_pruner", model, mode="channel", importance=importance, group_ratio=0.2)
    assert shape_of(pruned).hidden == int(64 * 0.8) == 51
    assert shape_of(pruned).blocks == dense.blocks
    assert len(kept_of(pruned).hidden) == 51
    assert 5 not in kept_of(pruned).hidden
    assert torch.isfinite(pruned(token_ids(2, 9)).logits).all()


def test_channel_mode_meets_a_target_in_steps():
    ctx = make_context(target=Target(value=0.2))
    pruned = compress("llm_pruner", make_model(hidden=128), ctx, mode="channel", iterative_steps=2)
    assert abs(shape_of(make_model(hidden=128)).removed(shape_of(pruned))["params"] - 0.2) <= 0.005
    assert ctx.meter.calibration_tokens == 1280


def test_layer_mode_keeps_the_first_blocks():
    pruned = compress("llm_pruner", make_model(), mode="layer", group_ratio=0.5)
    assert sorted(kept_of(pruned).blocks) == [0, 1]
    with pytest.raises(MethodError, match="cannot be reached: the nearest fraction of params that can be removed is"):
        compress("llm_pruner", make_model(), make_context(target=Target(value=0.3)), mode="layer")


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"mode": "channel", "importance": "param_mix"}, "importance: 'param_mix' needs the Fisher pass"),
        ({"mode": "channel", "importance": "param_second"}, "importance: 'param_second' needs the Fisher pass"),
        ({"mode": "channel", "layers": [1, 3]}, "layers: does not go with mode 'channel'"),
        ({"mode": "layer", "global_ranking": True}, "mode: 'layer' knows neither global_ranking nor round_to"),
        ({"mode": "layer", "iterative_steps": 2}, "iterative_steps: mode 'layer' has no scores"),
        ({"importance": "param_frist"}, "importance"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(config, sentence):
    with pytest.raises(UsageError, match=sentence):
        entry("llm_pruner").config(Preset(description=""), config)


def test_layers_beyond_the_model_are_a_clear_error():
    with pytest.raises(MethodError, match=r"\[4, 30\) reaches beyond the model's 4 blocks"):
        compress("llm_pruner", make_model(), layers=[4, 30])


def test_a_target_that_the_protected_blocks_forbid_is_a_clear_error():
    with pytest.raises(MethodError, match=r"target params=0\.6 cannot be reached"):
        compress("llm_pruner", make_model(), make_context(target=Target(value=0.6)))


def test_config_survives_json_and_yaml():
    config = LLMPrunerConfig(layers=(1, 3))
    assert LLMPruner.Config.model_validate(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))) == config
