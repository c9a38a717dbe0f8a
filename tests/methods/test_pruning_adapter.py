import numpy as np
import pytest
import torch

from bench.blocks.groups import blocks_of, keep_groups, kept_of, prune, shape_of
from bench.blocks.lora import merge
from bench.blocks.train import causal_loss, mean_loss
from bench.data.glue import TEMPLATES, labelled_examples
from bench.errors import MethodError
from bench.method import IGNORED, Example, Target
from methods.pruning_adapter import PruningAdapter, PruningAdapterConfig
from methods.pruning_adapter.head_masks import UnitMasks, masked
from methods.pruning_adapter.method import attach, norms_of, parameter_groups, score
from methods.pruning_adapter.ranking import Queue, adapter_ranks, group_scores, normalised, ranks_of, select
from tests.blocks.context import make_context, token_ids
from tests.tiny import make_model, make_tokenizer

SHAPES = {"mha": {}, "gqa-tied": {"heads": 8, "kv_heads": 4, "tied": True}}
QUICK = {"n_samples": 4, "steps": 2, "batch_size": 2}


@pytest.fixture(params=SHAPES)
def shape(request):
    return SHAPES[request.param]


def make(**shape):
    return make_model(**shape).requires_grad_(False)


def rows(n, seed=5):
    return [Example(row, row) for row in token_ids(n, 20, seed=seed).tolist()]


def compress(model, ctx=None, **config):
    settings = PruningAdapterConfig(**QUICK | config)
    return PruningAdapter(settings).compress(model, ctx or make_context(examples=rows(8)))


def random_scores(sizes, seed=0, distinct=1000):
    generator = torch.Generator().manual_seed(seed)
    return {i: torch.randint(distinct, (n,), generator=generator).float() for i, n in enumerate(sizes)}


def guarded(scores, count):
    """Units that go, one after another: the worst (of equals the last) whose layer keeps another."""
    left = {layer: dict(enumerate(vector.tolist())) for layer, vector in scores.items()}
    for _ in range(count):
        choices = [(value, -i, -u) for i, units in left.items() if len(units) > 1 for u, value in units.items()]
        _, layer, unit = min(choices)
        del left[-layer][-unit]
    return {layer: sorted(units) for layer, units in left.items()}


def test_training_on_glue_teaches_the_answer():
    """Sentences with a question in words; the loss is on the answer alone, and heads are scored by it too."""
    words, tokenizer = ("good", "bad"), make_tokenizer()
    table = [{"sentence": f"the model is {words[i % 2]}", "label": 1 - i % 2} for i in range(16)]
    examples = labelled_examples(table, TEMPLATES["glue_sst2"], tokenizer, 160)
    assert all(example.labels[0] == IGNORED and example.labels[-1] != IGNORED for example in examples)
    ctx = make_context(examples=examples)
    plain = compress(make(), make_context(examples=examples), steps=1, lr=1e-9)
    tuned = compress(make(), ctx, steps=20, batch_size=8, lr=1e-2)
    losses = [mean_loss(model, examples, 8, causal_loss, ctx.device) for model in (plain, tuned)]
    assert losses[1] < 0.5 * losses[0]
    heads = [score(make(), make_context(examples=e), PruningAdapterConfig(**QUICK), e) for e in (examples, rows(16))]
    assert not torch.allclose(heads[0].heads[1], heads[1].heads[1])


def test_normalisation_is_by_layer_then_over_all():
    raw = {0: torch.tensor([3.0, 4.0]), 1: torch.zeros(2), 2: torch.tensor([1e-3, 2e-3, 2e-3])}
    unit = np.array([0.6, 0.8, 0, 0, 1 / 3, 2 / 3, 2 / 3])
    found = torch.cat(list(normalised(raw).values())).numpy()
    np.testing.assert_allclose(found, unit / 0.8, rtol=1e-6)
    assert all(torch.equal(v, torch.zeros(2)) for v in normalised({0: torch.zeros(2), 1: torch.zeros(2)}).values())


def test_places_are_a_permutation_best_first_and_equals_in_order():
    assert {i: v.tolist() for i, v in ranks_of({0: torch.tensor([5.0, 9]), 1: torch.tensor([9.0, 1, 5])}).items()} == {
        0: [2, 0],
        1: [1, 4, 3],
    }
    places = torch.cat(list(ranks_of(random_scores([12] * 12)).values()))
    assert sorted(places.tolist()) == list(range(144))


@pytest.mark.parametrize("distinct", [1000, 3])
def test_the_worst_go_but_no_layer_is_emptied(distinct):
    sizes = [3, 1, 5, 2]
    for seed in range(5):
        scores = random_scores(sizes, seed, distinct)
        scores[2] -= 2000
        for count in range(sum(sizes) - len(sizes) + 1):
            assert Queue(scores).kept(count / sum(sizes)) == guarded(scores, count)


def test_by_default_43_of_berts_144_heads_go():
    kept = Queue(random_scores([12] * 12)).kept(PruningAdapterConfig().prune_ratio)
    assert sum(map(len, kept.values())) == 144 - 43


def test_a_group_is_worth_what_its_query_heads_are():
    shape = shape_of(make(heads=8, kv_heads=4, layers=1))
    heads = {0: torch.tensor([1.0, 2, 3, 4, 5, 6, 7, 8])}
    assert group_scores(shape, heads, "sum")[0].tolist() == [3, 7, 11, 15]
    assert group_scores(shape, heads, "mean")[0].tolist() == [1.5, 3.5, 5.5, 7.5]


def test_exactly_so_many_heads_go_and_nothing_else(shape):
    model = make(**shape)
    dense = shape_of(model)
    after = shape_of(compress(model, prune_ratio=0.3))
    groups = sum(block.kv_heads for block in dense.blocks)
    gone = groups - sum(block.kv_heads for block in after.blocks)
    assert gone == round(0.3 * groups)
    n_rep = dense.blocks[0].heads // dense.blocks[0].kv_heads
    assert dense.params() - after.params() == gone * 2 * dense.hidden * dense.head_dim * (n_rep + 1)
    assert all(block.channels == 96 for block in after.blocks)


def test_pruning_equals_masking_the_heads(shape):
    model, ids = make(**shape), token_ids(2, 9)
    dense, ctx, config = shape_of(model), make_context(examples=rows(8)), PruningAdapterConfig()
    kept = select(dense, None, score(model, ctx, config, rows(8)), config)
    masks = {
        layer: torch.tensor([float(head in mine.heads) for head in range(dense.blocks[layer].heads)])
        for layer, mine in kept.blocks.items()
    }
    assert any(0 in mask for mask in masks.values())
    with masked(model, UnitMasks(masks)):
        closed = model(ids).logits
    torch.testing.assert_close(prune(model, kept)(ids).logits, closed, atol=1e-5, rtol=1e-5)


def test_the_task_decides_which_heads_go():
    def heads(seed, **config):
        model = compress(make(), make_context(examples=rows(8, seed)), prune_ratio=0.5, **config)
        return {layer: mine.heads for layer, mine in kept_of(model).blocks.items()}

    assert heads(1) == heads(1)
    assert len({str(heads(seed)) for seed in range(4)}) > 1
    assert heads(1, n_samples=8) == heads(1, n_samples=500)


def test_heads_without_any_gradient_go_first_and_give_numbers():
    model = make()
    blocks_of(model)[2].o.weight.zero_()
    after = compress(model, prune_ratio=0.18)
    assert [block.kv_heads for block in shape_of(after).blocks] == [4, 4, 1, 4]
    assert torch.isfinite(after(token_ids(1, 9)).logits).all()


@pytest.mark.parametrize("basis", ["params", "macs"])
def test_a_size_is_met_by_heads_where_they_are_enough_and_with_channels_elsewhere(basis):
    dense = shape_of(make())
    some = dense.removed(shape_of(prune(make(), keep_groups(dense, {0: [0, 1]}, {}))))[basis]
    by_value = {}
    for value in (some, 0.2, 0.35):
        after = shape_of(compress(make(), make_context(target=Target(basis=basis, value=value), examples=rows(8))))
        assert abs(dense.removed(after)[basis] - value) <= 0.005
        by_value[value] = after
    assert all(block.channels == 96 for block in by_value[some].blocks)
    assert sum(block.kv_heads for block in by_value[some].blocks) == 14
    for value in (0.2, 0.35):
        assert sum(block.channels for block in by_value[value].blocks) < 4 * 96
        assert sum(block.kv_heads for block in by_value[value].blocks) < 16


def test_heads_alone_where_channels_are_not_wanted():
    ctx = make_context(target=Target(value=0.45), examples=rows(8))
    with pytest.raises(MethodError, match=r"target params=0\.45 cannot be reached: the nearest"):
        compress(make(), ctx, channels=False)
    ctx.target = Target(basis="group_ratio", value=0.5)
    assert [block.channels for block in shape_of(compress(make(), ctx)).blocks] == [96] * 4


def test_a_ratio_that_would_empty_layers_is_a_clear_error():
    with pytest.raises(MethodError, match=r"prune_ratio: 0\.9 of 16 key/value heads cannot go: .* at most 12 can"):
        compress(make(), prune_ratio=0.9)


def test_the_best_third_of_the_layers_gets_the_high_rank():
    config = PruningAdapterConfig(rank_high=8, rank_low=4)
    scores = random_scores([12] * 12)
    sums = [places.sum().item() for places in ranks_of(scores).values()]
    best = set(np.argsort(sums)[:4])
    assert adapter_ranks(scores, config) == [8 if layer in best else 4 for layer in range(12)]


def adapters_of(model):
    return {name: p for name, p in model.named_parameters() if ".lora_" in name}


def test_ranks_go_to_exactly_their_layers():
    """Layer 1 has the high rank, layers 10 and 11 do not."""
    model, config = make(layers=12, channels=8), PruningAdapterConfig(rank_high=6, rank_low=2)
    attach(model, make_context(), config, [6 if layer == 1 else 2 for layer in range(12)])
    for name, factor in adapters_of(model).items():
        assert min(factor.shape) == (6 if ".layers.1." in name else 2), name
    assert len(adapters_of(model)) == 12 * 3 * 2


def test_what_is_trained_is_the_adapters_and_the_norms_alone(shape):
    dense, ranks = make(**shape), [5, 3, 3, 5]
    model = prune(dense, keep_groups(shape_of(dense), {1: [0], 3: [1, 2, 3]}, {}))
    widths = [
        (block.heads * shape_of(model).head_dim, block.kv_heads * shape_of(model).head_dim)
        for block in shape_of(model).blocks
    ]
    ctx, config = make_context(), PruningAdapterConfig()
    attach(model, ctx, config, ranks)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if ".lora_" in name or "norm" in name}
    adapters, norms = parameter_groups(model, config)
    assert sum(p.numel() for p in adapters["params"]) == sum(
        r * (3 * 64 + q + 2 * kv) for r, (q, kv) in zip(ranks, widths, strict=True)
    )
    assert sum(p.numel() for p in norms["params"]) == (2 * 4 + 1) * 64
    assert norms["weight_decay"] == 0
    attach(plain := make(**shape), ctx, config.model_copy(update={"train_norms": False}), ranks)
    assert all(".lora_" in name for name, parameter in plain.named_parameters() if parameter.requires_grad)
    assert len(parameter_groups(plain, config.model_copy(update={"train_norms": False}))) == 1


@pytest.mark.parametrize(("alpha", "scale"), [(None, 2), (1, 1 / 3)])
def test_adapters_start_at_nothing_and_merge_exactly(shape, alpha, scale):
    model, ids = make(**shape), token_ids(2, 9)
    before, config = model(ids).logits, PruningAdapterConfig(alpha=alpha, targets=("k_proj", "down_proj"))
    weight = blocks_of(model)[2].k.weight.clone()
    adapted = attach(model, make_context(), config, [3] * 4)
    torch.testing.assert_close(adapted(ids).logits, before)
    factors = {name: p for name, p in adapters_of(model).items() if ".layers.2." in name and ".k_proj." in name}
    a, b = (next(p for name, p in factors.items() if f".lora_{x}." in name) for x in "AB")
    assert a.std().item() == pytest.approx(0.01, rel=0.25)
    with torch.no_grad():
        for name, factor in adapters_of(model).items():
            if ".lora_B." in name:
                factor.normal_()
    unmerged = adapted(ids).logits
    assert not torch.allclose(unmerged, before, atol=1e-2)
    change = scale * (b @ a).detach()
    merged = merge(adapted)
    torch.testing.assert_close(merged(ids).logits, unmerged, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(blocks_of(merged)[2].k.weight - weight, change, atol=1e-6, rtol=1e-4)


def test_training_teaches_the_task_and_frozen_weights_stay(shape):
    data, ctx = rows(8), make_context(examples=rows(8))
    start = make(**shape)
    config = PruningAdapterConfig()
    pruned = prune(make(**shape), select(shape_of(start), None, score(start, ctx, config, data), config))
    untrained = mean_loss(pruned, data, 4, causal_loss, ctx.device)
    trained = compress(make(**shape), ctx, steps=12, lr=1e-2, batch_size=4, n_samples=128)
    assert kept_of(trained) == kept_of(pruned)
    assert mean_loss(trained, data, 4, causal_loss, ctx.device) < untrained - 0.2
    for before, after in zip(blocks_of(pruned), blocks_of(trained), strict=True):
        assert torch.equal(before.up.weight, after.up.weight)
        assert torch.equal(before.o.weight, after.o.weight)
        assert not torch.equal(before.v.weight, after.v.weight)
    assert not any(torch.equal(a, b) for a, b in zip(norms_of(pruned), norms_of(trained), strict=True))
    assert ctx.meter.optimiser_steps == 12
    assert ctx.meter.calibration_tokens == 0
