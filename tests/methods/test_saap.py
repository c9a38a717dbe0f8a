import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from bench.blocks.groups import BlockShape, Scores, Shape, kept_of, shape_of
from bench.blocks.ranking import Ranking, to_target
from bench.blocks.taylor import random_scores as uniform_scores
from bench.errors import MethodError
from bench.method import Target
from methods.saap import SAAP, SAAPConfig
from methods.saap.fusion import Line, fuse, means, variance
from methods.saap.method import removal_scores
from methods.saap.sampled import sample_groups
from methods.saap.search import Budget, fluctuation, order_scores, standardise
from tests.blocks.context import make_context, token_ids
from tests.tiny import make_model

SHAPES = {"mha": {}, "gqa-tied": {"heads": 8, "kv_heads": 4, "tied": True}}


@pytest.fixture(params=SHAPES)
def shape(request):
    return SHAPES[request.param]


def random_scores(seed=0, groups=((4, 90), (4, 60))):
    """Skewed and positive, as importances are: two metrics with little in common."""
    generator = torch.Generator().manual_seed(seed)

    def vectors(i):
        return {layer: torch.randn(sizes[i], generator=generator).exp() for layer, sizes in enumerate(groups)}

    return Scores(vectors(0), vectors(1))


def prune(model, target=None, ids=None, seed=0, **config):
    return SAAP(SAAPConfig(**config)).compress(model, make_context(target=target, ids=ids, seed=seed))


def removed(dense, after, basis="params"):
    return shape_of(dense).removed(shape_of(after))[basis]


# --- fusion


@pytest.mark.parametrize("scope", ["model", "module_type", "layer_module"])
def test_the_fitted_noise_is_the_least_of_the_likelihood(scope):
    scores = random_scores()
    line = Line.of(scores)
    metric, labels = line.flat(scores) * 37, line.labels(scope)
    exact, descended = (variance(metric, labels, fit) for fit in ("closed_form", "adam"))
    assert len(exact) == {"model": 1, "module_type": 2, "layer_module": 4}[scope]
    torch.testing.assert_close(descended.log(), exact.log(), atol=1e-3, rtol=0)

    def cost(s):
        return (metric / (2 * s[labels]) + s[labels].log() / 2).mean()

    assert all(cost(exact) < cost(exact * factor) for factor in (0.9, 0.999, 1.001, 1.1))


def test_adam_converges_where_the_mean_is_far_from_the_median():
    metric = torch.cat([torch.full((999,), 1e-3), torch.tensor([5e3])]).double()
    labels = torch.zeros(1000, dtype=torch.int64)
    exact, descended = (variance(metric, labels, fit) for fit in ("closed_form", "adam"))
    assert abs(math.log(descended / exact)) < 1e-3


def test_the_fused_scores_are_positive_and_average_one_in_each_scope():
    vector, element = random_scores(0), random_scores(1)
    line = Line.of(vector)
    labels = line.labels("module_type")
    fused = fuse(line.flat(vector), line.flat(element), labels, "fusion", "closed_form").of(
        line.flat(vector), line.flat(element)
    )
    assert (fused > 0).all()
    torch.testing.assert_close(means(fused, labels), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("search", ["asi", "flap_z", "uniform"])
def test_the_scale_of_a_metric_does_not_matter(search):
    def larger(scores):
        return Scores(*({i: v * 1e4 for i, v in part.items()} for part in (scores.attention, scores.mlp)))

    found = sample_groups(make_model().requires_grad_(False), range(1, 3), token_ids(5, 12))
    scaled = replace(found, vector=larger(found.vector), vectors=[larger(s) for s in found.vectors])
    config = SAAPConfig(search=search)
    line = Line.of(found.vector)
    first, other = (line.flat(removal_scores(s, config)) for s in (found, scaled))
    torch.testing.assert_close(first, other, rtol=1e-5, atol=1e-6)


def test_two_equal_metrics_fuse_to_their_own_order():
    scores = random_scores()
    line = Line.of(scores)
    flat, labels = line.flat(scores), line.labels("model")
    fused = fuse(flat, flat, labels, "fusion", "closed_form").of(flat, flat)
    assert torch.equal(fused.argsort(stable=True), flat.argsort(stable=True))


def test_single_scores_and_the_plain_mean_are_what_they_say():
    v, e = torch.tensor([1.0, 4.0]).double(), torch.tensor([3.0, 2.0]).double()
    labels = torch.zeros(2, dtype=torch.int64)
    score: Any
    for score, wanted in (("vector", [1, 4]), ("element", [3, 2]), ("mean", [2, 3])):
        assert fuse(v, e, labels, score, "closed_form").of(v, e).tolist() == wanted


def test_the_line_goes_by_layer_module_and_index():
    attention = {2: torch.tensor([0.0, 1]), 5: torch.tensor([4.0])}
    mlp = {2: torch.tensor([2.0, 3]), 5: torch.tensor([5.0])}
    scores = Scores(attention, mlp)
    line = Line.of(scores)
    assert line.flat(scores).tolist() == [0, 1, 2, 3, 4, 5]
    assert line.scores(line.flat(scores)).mlp[5].tolist() == [5]
    assert line.labels("layer_module").tolist() == [0, 0, 1, 1, 2, 3]
    assert line.labels("module_type").tolist() == [0, 0, 1, 1, 0, 1]


# --- search


def order(search, **config):
    scores = random_scores()
    line = Line.of(scores)
    importance = line.flat(scores)
    generator = torch.Generator().manual_seed(3)
    noise = torch.rand(8, len(importance), generator=generator, dtype=torch.float64)
    samples = importance * (1 + noise * torch.rand(len(importance), generator=generator))
    modules = line.labels("layer_module")
    settings = SAAPConfig(search=search, **config)
    return order_scores(importance, torch.zeros_like(importance), samples, modules, settings), modules


def test_the_indicator_has_mean_zero_and_deviation_one_in_each_module():
    for search in ("asi", "flap_z", "fluct_literal", "fluct_var"):
        scores, modules = order(search)
        for i in range(4):
            mine = scores[modules == i]
            assert mine.mean().item() == pytest.approx(0, abs=1e-12)
            assert mine.std().item() == pytest.approx(1, abs=1e-12)


def test_no_stability_weight_is_the_plain_z_score():
    assert torch.equal(order("asi", stability=0)[0], order("flap_z")[0])
    assert not torch.equal(order("asi")[0], order("flap_z")[0])


def test_of_two_equally_important_structures_the_unstable_one_goes_first():
    samples = torch.tensor([[1.0, 0.2, 2.0], [1.0, 1.8, 2.0]]).double()
    modules, importance = torch.zeros(3, dtype=torch.int64), torch.tensor([1.0, 1.0, 2.0]).double()
    assert fluctuation(samples).tolist() == pytest.approx([0, math.sqrt(2 * 0.64), 0])
    asi = order_scores(importance, importance * 0, samples, modules, SAAPConfig())
    assert asi.argsort().tolist() == [1, 0, 2]


def test_a_level_module_scores_zero_and_so_does_a_lone_structure():
    values = torch.tensor([0.1, 0.1, 0.1, 7.0, 1.0, 3.0]).double() + 1e-17
    assert standardise(values, torch.tensor([0, 0, 0, 1, 2, 2]))[:4].tolist() == [0, 0, 0, 0]


def test_fluctuation_needs_two_rows():
    for search in ("asi", "fluct_literal", "fluct_var"):
        with pytest.raises(MethodError, match=f"search '{search}' needs at least two calibration rows"):
            prune(make_model().requires_grad_(False), ids=token_ids(1, 12), search=search)
    prune(make_model().requires_grad_(False), ids=token_ids(1, 12), search="flap_z")


# --- budget


def ranking(channels=(100, 60), heads=(4, 4), seed=0):
    model = make_model(layers=2, channels=channels[0])
    dense = shape_of(model)
    dense = type(dense)(
        dense.hidden,
        dense.head_dim,
        dense.vocab,
        dense.tied,
        tuple(BlockShape(h, h, c) for h, c in zip(heads, channels, strict=True)),
    )
    return dense, Ranking(dense, dense, random_scores(seed, tuple(zip(heads, channels, strict=True))))


def test_one_threshold_for_all_modules():
    dense, ranked = ranking()
    kept = Budget(ranked, 1, 0.05).choose(0.4, 0.4)
    scores = random_scores(0, ((4, 100), (4, 60)))
    gone, stays = [], []
    for layer, block in kept.blocks.items():
        for vector, mine in ((scores.attention[layer], block.heads), (scores.mlp[layer], block.channels)):
            stays += [vector[i].item() for i in mine]
            gone += [v.item() for i, v in enumerate(vector) if i not in mine]
    assert gone
    assert max(gone) < min(stays)
    whole = sum(64 * b.heads + 3 * b.channels for b in dense.blocks)
    left = sum(64 * len(b.heads) + 3 * len(b.channels) for b in kept.blocks.values())
    assert 0.4 - 64 / whole <= 1 - left / whole <= 0.4


@pytest.mark.parametrize("round_to", [1, 8, 32])
def test_rounding_leaves_multiples_and_a_minimum(round_to):
    for ratio in (0.1, 0.3, 0.5, 0.7, 0.9, 1.0):
        _, ranked = ranking()
        kept = Budget(ranked, round_to, 0.2).choose(ratio, ratio)
        for (_, block), channels in zip(sorted(kept.blocks.items()), (100, 60), strict=True):
            left = len(block.channels)
            assert left == channels or left % round_to == 0
            assert left >= max(round_to, 0.2 * channels)
            assert block.heads
    assert [len(b.heads) for b in kept.blocks.values()] == [1, 1]


@pytest.mark.parametrize("search", ["asi", "flap_z", "fluct_literal", "fluct_var", "uniform", "global_raw"])
def test_every_search_meets_the_target_and_spares_the_outer_blocks(shape, search):
    dense = make_model(layers=6, channels=160, **shape)
    model = make_model(layers=6, channels=160, **shape).requires_grad_(False)
    after = prune(model, Target(value=0.2), search=search)
    assert abs(removed(dense, after) - 0.2) <= 0.0025
    kept, whole = kept_of(after).blocks, shape_of(dense).keep_all().blocks
    assert (kept[0], kept[5]) == (whole[0], whole[5])
    widths = {(b.heads, b.channels) for b in shape_of(after).blocks[1:5]}
    assert (len(widths) == 1) == (search == "uniform")


@pytest.mark.slow
@pytest.mark.parametrize("round_to", [1, 32])
@pytest.mark.parametrize("search", ["asi", "uniform"])
def test_real_widths_are_met_within_a_quarter_of_a_point(search, round_to):
    """In closed form: SmolLM2-135M's shape, three key/value heads a layer, random scores."""
    dense = Shape(576, 64, 49152, True, (BlockShape(9, 3, 1536),) * 30)
    for seed, value in enumerate((0.1, 0.2, 0.35, 0.5)):
        scores = uniform_scores(dense, range(4, 28), torch.Generator().manual_seed(seed))
        ranking = Ranking(dense, dense, scores)
        choose = Budget(ranking, round_to, 0.05).choose
        if search == "uniform":
            choose = partial(ranking.module_wise, round_to=round_to)
        after = dense.after(to_target(dense, Target(value=value), choose))
        assert abs(dense.removed(after)["params"] - value) <= 0.0025


def test_without_a_target_the_config_says_how_much(shape):
    dense, model = make_model(**shape), make_model(**shape).requires_grad_(False)
    assert abs(removed(dense, prune(model, param_ratio=0.12)) - 0.12) <= 0.0025


def test_a_group_ratio_is_a_share_of_the_pruned_blocks():
    dense = make_model(layers=6, channels=160)
    after = prune(make_model(layers=6, channels=160).requires_grad_(False), Target(basis="group_ratio", value=0.3))
    share = removed(dense, after, "block_params") * 6 / 4
    assert share == pytest.approx(0.3, abs=0.025)


def test_search_steps_calibrate_anew_and_end_at_the_same_size():
    dense, ctx = make_model(channels=256), make_context(target=Target(value=0.2))
    once = prune(make_model(channels=256).requires_grad_(False), Target(value=0.2))
    steps = SAAP(SAAPConfig(search_steps=3)).compress(make_model(channels=256).requires_grad_(False), ctx)
    assert ctx.meter.calibration_tokens == 3 * 640
    assert abs(removed(dense, steps) - 0.2) <= 0.0025
    assert kept_of(steps) != kept_of(once)


@pytest.mark.slow
def test_the_scores_decide_and_the_seed_draws_the_text():
    def kept(seed=0, **config):
        return kept_of(prune(make_model().requires_grad_(False), seed=seed, **config))

    assert kept() == kept()
    assert kept() != kept(seed=1)
    assert kept(score="vector") != kept(score="element")
    assert kept(score="fusion") != kept(score="vector")
    assert kept() == kept(sigma_fit="adam")
    assert kept(search="global_raw") != kept(search="flap_z")


def test_a_target_out_of_reach_is_a_clear_error():
    with pytest.raises(MethodError, match=r"target params=0\.7 cannot be reached"):
        prune(make_model().requires_grad_(False), Target(value=0.7))
