"""TRAWL: the trial that does least harm is the one installed, nothing else changes, sizes are met."""

from typing import Any

import pytest
import torch

from bench.blocks.groups import shape_of
from bench.blocks.stacks import matrices, stack, stacks_of, unstack
from bench.blocks.train import causal_loss
from bench.errors import Cancelled, MethodError, UsageError
from bench.method import Method, Preset, Target
from bench.registry import load_registry
from bench.shape import Shape
from tests.blocks.context import make_context, token_ids
from tests.tiny import make_model

TIED: dict[str, Any] = {"tied": True}
WIDE: dict[str, Any] = {"kv_heads": 2, "channels": 256}
FAST = {"starts": ["hosvd"], "sweeps": 5}


def configured(**config: object) -> Method:
    entry = load_registry().method("trawl")
    return entry.cls(entry.config(Preset(description=""), FAST | config))


def compress(model: torch.nn.Module, ctx=None, **config: object) -> torch.nn.Module:
    return configured(**config).compress(model.requires_grad_(False), ctx or make_context())


def factored_layers(shape: Shape) -> list[int]:
    return sorted({piece.layer for f in shape.factors for piece in f.slices})


@torch.no_grad()
def loss(model: torch.nn.Module, ids: torch.Tensor) -> float:
    return causal_loss(model, ids, ids).item()


@pytest.mark.parametrize("decomposition", ["cp", "tucker"])
def test_the_trial_with_the_lowest_loss_on_the_first_windows_is_installed(decomposition: str) -> None:
    ids = token_ids(20, 24)
    how = {"decomposition": decomposition, "normalize_slices": decomposition == "tucker"}
    alone = {}
    for layer in range(4):
        for rank in (2, 20):
            model = compress(make_model(), layers=[layer, layer + 1], ranks=[rank], materialize=True, **how)
            alone[layer, rank] = loss(model, ids[:4])
    best = min(alone, key=lambda trial: alone[trial])
    assert len({round(value, 3) for value in alone.values()}) == 8
    ids[4:] = token_ids(16, 24, seed=99)  # the other 80 % must not matter
    found = compress(make_model(), make_context(ids=ids), layers=[0, 4], ranks=[2, 20], **how)
    (factors,) = shape_of(found).factors
    assert (factors.slices[0].layer, factors.rank[0]) == best
    assert loss(found, ids[:4]) == pytest.approx(alone[best], rel=1e-5)


@pytest.mark.parametrize(
    ("config", "touched"),
    [
        ({"mode": 5, "layers": [2, 3]}, {"2.mlp": 3}),
        ({"mode": 5, "layers": [2, 3], "mlp_set": "ud"}, {"2.mlp.up": 1, "2.mlp.down": 1}),
        ({"mode": 2, "layers": [1, 2]}, {"1.self_attn": 4}),
        ({"mode": 1, "attention_set": "kv_group"}, {"self_attn": 16}),
        ({"mode": 3, "attention_set": "repeat", "segments": 2, "layers": [0, 2]}, {"self_attn": 4}),
        ({"mode": 4, "decomposition": "tucker", "rank0": 2}, {"mlp": 12}),
        ({"mode": 6, "segments": 1, "layers": [1, 3]}, {"1.mlp": 3, "2.mlp": 3}),
    ],
)
def test_only_the_targeted_weights_change(config: dict[str, object], touched: dict[str, int]) -> None:
    before = make_model(kv_heads=2).state_dict()
    ctx = make_context()
    model = compress(make_model(kv_heads=2), ctx, materialize=True, ranks=[3], **config)
    changed = [name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])]
    assert {part: sum(part in name for name in changed) for part in touched} == touched
    assert len(changed) == sum(touched.values())
    assert shape_of(model).factors == ()
    assert ctx.meter.calibration_tokens == 40 * 128


def test_written_back_or_kept_as_factors_it_is_the_same_function() -> None:
    dense, factored = (
        compress(make_model(), ranks=[5, 9], layers=[0, 4], materialize=materialize) for materialize in (True, False)
    )
    torch.testing.assert_close(factored(token_ids(2, 9)).logits, dense(token_ids(2, 9)).logits, rtol=1e-5, atol=1e-5)
    assert shape_of(factored).params() < shape_of(dense).params()


def test_a_stack_that_has_the_rank_is_left_as_it_is() -> None:
    model = make_model()
    ((one,),) = stacks_of(shape_of(model), 5, [2])
    generator = torch.Generator().manual_seed(0)
    a, b, c = (torch.randn(size, 3, generator=generator) for size in (3, 96, 64))
    unstack(model, one, torch.einsum("nr,pr,qr->npq", a, b, c) / 8)
    exact = stack(model, one)
    after = compress(model, ranks=[6], layers=[2, 3], materialize=True, sweeps=200)
    torch.testing.assert_close(stack(after, one), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("basis", "most", "shape", "decomposition"),
    [
        ("params", 0.3, TIED, "cp"),
        ("params", 0.3, WIDE, "tucker"),
        ("block_params", 0.4, TIED, "tucker"),
        ("block_params", 0.4, WIDE, "cp"),
        ("macs", 0.3, TIED, "cp"),
        ("macs", 0.3, WIDE, "tucker"),
    ],
)
def test_sizes_are_met_by_the_fewest_blocks(basis: str, most: float, shape: dict[str, Any], decomposition: str) -> None:
    dense, removed = shape_of(make_model(layers=6, **shape)), []
    for value in (0.1, 0.2, most):
        ctx = make_context(target=Target(basis=basis, value=value))
        after = shape_of(compress(make_model(layers=6, **shape), ctx, decomposition=decomposition, spans=2))
        removed.append(dense.removed(after)[basis])
        assert removed[-1] == pytest.approx(value, abs=0.003)
        layers = factored_layers(after)
        assert layers == list(range(layers[0], layers[-1] + 1))
        without = make_model(layers=6, **shape)
        mlp = 3 * dense.hidden * dense.blocks[0].channels
        if basis == "params":
            assert (len(layers) - 1) * mlp < (value + 0.005) * dense.params()
        assert shape_of(without) == dense
    assert removed == sorted(removed)


@pytest.mark.parametrize("mode", [1, 2, 3, 4, 6])
def test_every_mode_meets_a_size(mode: int) -> None:
    dense = shape_of(make_model(kv_heads=2))
    ctx = make_context(target=Target(value=0.1))
    after = shape_of(compress(make_model(kv_heads=2), ctx, mode=mode, attention_set="kv_group"))
    assert dense.removed(after)["params"] == pytest.approx(0.1, abs=0.003)


def test_spans_end_at_different_blocks_and_the_best_is_taken() -> None:
    ids, target, losses = token_ids(5, 24), Target(value=0.15), {}
    for last in range(1, 5):
        ctx = make_context(ids=ids, target=target)
        model = compress(make_model(), ctx, layers=[0, last], spans=1, validation_share=1.0) if last > 1 else None
        if model is not None:
            losses[tuple(factored_layers(shape_of(model)))] = loss(model, ids)
    assert set(losses) == {(0, 1), (1, 2), (2, 3)}
    every = compress(make_model(), make_context(ids=ids, target=target), validation_share=1.0)
    assert tuple(factored_layers(shape_of(every))) == min(losses, key=lambda layers: losses[layers])


def test_a_ratio_sets_the_rank() -> None:
    for target, config in ((None, {"group_ratio": 0.5}), (Target(basis="group_ratio", value=0.5), {})):
        after = shape_of(compress(make_model(), make_context(target=target), **config))
        assert [f.rank for f in after.factors] == [(int(0.5 * 3 * 96 * 64 / (3 + 96 + 64)),)]
    tucker = shape_of(compress(make_model(), group_ratio=0.5, decomposition="tucker"))
    (r, _) = tucker.factors[0].rank
    stored = [3 * x * x + (96 + 64) * x for x in (r, r + 1)]
    assert stored[0] <= 0.5 * 3 * 96 * 64 < stored[1]


def test_the_seed_decides_random_starts_alone() -> None:
    first, again, other = (
        compress(
            make_model(),
            make_context(seed=seed, ids=token_ids(5, 16)),
            layers=[1, 2],
            ranks=[8],
            starts=["random"],
            materialize=True,
        )
        for seed in (1, 1, 2)
    )
    ((one,),) = stacks_of(shape_of(first), 5, [1])
    for a, b, c in zip(*(matrices(model, one) for model in (first, again, other)), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


def test_what_cannot_be_reached_is_one_sentence() -> None:
    with pytest.raises(MethodError, match=r"params=0\.6 cannot be reached: .* all 4 units .* remove 0\.4"):
        compress(make_model(), make_context(target=Target(value=0.6)))
    with pytest.raises(MethodError, match="materialize=true writes dense weights back"):
        compress(make_model(), make_context(target=Target(value=0.2)), materialize=True)
    with pytest.raises(MethodError, match=r"layers: \[2, 9\) reaches beyond the model's 4 blocks"):
        compress(make_model(), layers=[2, 9])
    with pytest.raises(MethodError, match="would store more numbers"):
        compress(make_model(), ranks=[500])


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"mode": 7}, "mode"),
        ({"ranks": []}, "ranks"),
        ({"ranks": [0]}, "ranks: must be at least 1"),
        ({"layers": [3, 3]}, "layers"),
        ({"mode": 2, "attention_set": "repeat"}, "set materialize: true"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(config: dict[str, object], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        configured(**config)


def test_it_can_be_interrupted() -> None:
    ctx = make_context()
    ctx.is_cancelled = lambda: ctx.meter.calibration_tokens > 0
    with pytest.raises(Cancelled):
        compress(make_model(), ctx)
