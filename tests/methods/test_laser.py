"""LASER: one matrix at its best rank, or those of a few blocks where a size is asked for."""

import pytest
import torch

from bench.blocks.groups import blocks_of, shape_of
from bench.blocks.train import causal_loss
from bench.errors import MethodError, UsageError
from bench.method import Preset, Target
from bench.registry import load_registry
from tests.blocks.context import make_context, token_ids
from tests.tiny import make_model


def compress(model: torch.nn.Module, ctx=None, **config: object) -> torch.nn.Module:
    entry = load_registry().method("laser")
    method = entry.cls(entry.config(Preset(description=""), config))
    return method.compress(model.requires_grad_(False), ctx or make_context())


def test_the_best_of_layer_matrix_and_rank_is_truncated_and_nothing_else() -> None:
    ids, losses = token_ids(10, 24), {}
    for layer in (1, 2):
        for name in ("q", "down"):
            for rho in (0.1, 0.5):
                model = make_model()
                weight = blocks_of(model)[layer].linear(f"{name}_proj").weight
                u, s, vt = torch.linalg.svd(weight.detach())
                r = int(rho * 64)
                weight.data.copy_(u[:, :r] @ s[:r].diag() @ vt[:r])
                with torch.no_grad():
                    losses[layer, name, r] = causal_loss(model, ids[:2], ids[:2]).item()
    layer, name, rank = min(losses, key=lambda trial: losses[trial])
    settings = {"layers": [1, 3], "matrices": ["q", "down"], "rhos": [0.1, 0.5]}
    after = compress(make_model(), make_context(ids=ids), materialize=True, **settings)
    before = make_model().state_dict()
    changed = [path for path, weight in after.state_dict().items() if not torch.equal(weight, before[path])]
    assert len(changed) == 1
    assert changed[0].startswith(f"model.layers.{layer}.")
    assert changed[0].endswith(f".{name}_proj.weight")
    assert torch.linalg.matrix_rank(after.state_dict()[changed[0]], rtol=1e-4) == rank
    with torch.no_grad():
        assert causal_loss(after, ids[:2], ids[:2]).item() == pytest.approx(losses[layer, name, rank], rel=1e-5)


@pytest.mark.parametrize("basis", ["params", "block_params", "macs"])
def test_sizes_are_met(basis: str) -> None:
    dense = shape_of(make_model(layers=6, kv_heads=2))
    for value in (0.1, 0.2, 0.3):
        ctx = make_context(target=Target(basis=basis, value=value))
        after = shape_of(compress(make_model(layers=6, kv_heads=2), ctx, spans=2))
        assert dense.removed(after)[basis] == pytest.approx(value, abs=0.003)
        assert all(len(f.slices) == 1 for f in after.factors)
    with pytest.raises(MethodError, match="cannot be reached"):
        compress(make_model(), make_context(target=Target(value=0.6)))


def test_all_matrices_reach_further() -> None:
    dense = shape_of(make_model())
    ctx = make_context(target=Target(value=0.6))
    after = shape_of(compress(make_model(), ctx, matrices=["q", "k", "v", "o", "gate", "up", "down"]))
    assert dense.removed(after)["params"] == pytest.approx(0.6, abs=0.003)


@pytest.mark.parametrize(("key", "value"), [("rhos", [0.5, 1.0]), ("matrices", ["up", "up"]), ("matrices", ["fc"])])
def test_bad_values_are_refused(key: str, value: list[object]) -> None:
    with pytest.raises(UsageError, match=key):
        compress(make_model(), **{key: value})
