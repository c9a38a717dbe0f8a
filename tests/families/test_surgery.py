"""What is left of a model of any family computes what the dense model does with zeros for the rest, and is counted."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from bench.blocks.groups import average_over_fewer, kept_of, prune, shape_of
from bench.blocks.lowrank import svd
from bench.blocks.stacks import single_stack, stack
from bench.conformance import reload
from bench.conformance.oracle import zero_all_but
from bench.families import PROJECTIONS
from bench.method import Preset, Target
from bench.model.checkpoint import save_checkpoint
from bench.model.layers import blocks_of, embedding_of, final_norm_of
from bench.model.surgery import factorize
from bench.registry import load_registry
from bench.shape import BlockKept, Kept
from methods.compresso.masks import fold, masked
from methods.pruning_adapter.method import score
from methods.pruning_adapter.ranking import select
from tests.blocks.context import make_context
from tests.families.models import IDS, MODELS, assert_same, logits, make
from tests.methods.test_compresso_masks import soft_values

HIDDEN = (*range(0, 64, 2), 63)
every_model = pytest.mark.parametrize("name", MODELS)


def some_kept(model: PreTrainedModel, hidden: tuple[int, ...] | None = None) -> Kept:
    """Every block differently: whole, without its first key/value head, without two thirds of its channels, gone."""
    blocks = dict(shape_of(model).keep_all().blocks)
    block = shape_of(model).blocks[1]
    blocks[1] = BlockKept(blocks[1].heads[block.heads // block.kv_heads :], blocks[1].channels)
    blocks[2] = BlockKept(blocks[2].heads, blocks[2].channels[::3])
    del blocks[3]
    return Kept(blocks, hidden)


def assert_counted(model: PreTrainedModel) -> None:
    assert shape_of(model).params() == sum(parameter.numel() for parameter in model.parameters())


def assert_left(left: PreTrainedModel, dense: PreTrainedModel, kept: Kept) -> None:
    before = logits(dense)
    zero_all_but(dense, kept)
    assert not torch.allclose(logits(dense), before, rtol=1e-2)
    assert_same(logits(left), logits(dense))
    assert_counted(left)


@every_model
@pytest.mark.parametrize("hidden", [None, HIDDEN], ids=["blocks", "hidden"])
def test_what_is_left_computes_as_before(name: str, hidden: tuple[int, ...] | None) -> None:
    kept = some_kept(make(name), hidden)
    assert_left(prune(make(name), kept), make(name), kept)


@every_model
def test_what_is_left_generates_with_its_cache(name: str) -> None:
    """Beyond the window, and a prompt padded on the left as alone."""
    left = prune(make(name), some_kept(make(name)))
    long, short = IDS[:1, :20], IDS[1:, :15]
    padded = torch.cat([torch.zeros(1, 5, dtype=torch.long), short], dim=1)
    mask = torch.cat([torch.ones(1, 20), torch.arange(20)[None] >= 5]).long()
    batch = generated(left, torch.cat([long, padded]), mask, use_cache=True)
    for row, prompt in zip(batch, (long, short), strict=True):
        for use_cache in (True, False):
            assert torch.equal(generated(left, prompt, torch.ones_like(prompt), use_cache=use_cache)[0], row)


def generated(model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, *, use_cache: bool) -> torch.Tensor:
    with torch.no_grad():
        out = model.generate(
            ids,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=10,
            min_new_tokens=10,
            use_cache=use_cache,
            pad_token_id=0,
        )
    return out[:, ids.shape[1] :]


@every_model
def test_norms_may_average_over_fewer(name: str) -> None:
    """As in Compresso: dimensions that are 0 everywhere go, and the mean of a norm stays that over all."""
    zeros = [i for i in range(64) if i not in HIDDEN]
    models = make(name), make(name)
    for model in models:
        embedding_of(model).weight[:, zeros] = 0
        for block in blocks_of(model):
            for linear in (block.o, block.down):
                for parameter in linear.parameters():
                    parameter[zeros] = 0
    dense, left = models
    average_over_fewer(left, 64 / len(HIDDEN))
    left = prune(left, Kept(shape_of(left).keep_all().blocks, HIDDEN))
    assert_same(logits(left), logits(dense))
    assert_counted(left)


@every_model
def test_masks_are_folded(name: str) -> None:
    model = make(name)
    values = soft_values(model)
    with masked(model, lambda: values):
        expected = logits(model)
    left = fold(make(name), values)
    assert_same(logits(left), expected)
    assert_counted(left)


@every_model
@pytest.mark.parametrize("config", [{"mode": "channel"}, {"mode": "channel", "iterative_steps": 2}, {"mode": "layer"}])
def test_llm_pruners_other_modes(name: str, config: dict[str, object]) -> None:
    method = load_registry().method("llm_pruner").cls
    left = method(method.Config(**config)).compress(
        make(name), make_context(target=Target(basis="group_ratio", value=0.25))
    )
    kept = kept_of(left)
    assert (kept.hidden is None) == (config["mode"] == "layer")
    assert_left(left, make(name), kept)


@every_model
def test_pruning_adapters_criterion(name: str) -> None:
    """What it removes before it trains."""
    config: Any = (
        load_registry().method("pruning_adapter").config(Preset(description=""), {"n_samples": 4, "channels": True})
    )
    ctx = make_context(target=Target(value=0.25))
    model = make(name)
    kept = select(shape_of(model), ctx.target, score(model, ctx, config, ctx.examples(24)), config)
    assert_left(prune(model, kept), make(name), kept)


@every_model
def test_factors_keep_biases(name: str) -> None:
    """Of full rank, factors of every projection compute what the matrices did; of rank 5 they are counted as stored."""
    for rank in (64, 5):
        model = make(name)
        stacks = [single_stack(shape_of(model), layer, projection) for layer in (1, 2) for projection in PROJECTIONS]
        found = [(s, svd(x, min(rank, *x.shape[1:])).factors) for s in stacks for x in [stack(model, s)]]
        left = factorize(model, [(s.slices, factors) for s, factors in found])
        if rank == 64:
            assert_same(logits(left), logits(make(name)))
        assert_counted(left)


def test_a_biased_llama_is_counted() -> None:
    fields = {"layers": 6, "channels": 256, "kv_heads": 2, "rope_parameters": None, "tied": False}
    model = make("llama-gqa", **fields)
    assert shape_of(model).params() == sum(p.numel() for p in model.parameters()) == 412_480
    plain = make("llama-gqa", **fields, attention_bias=False, mlp_bias=False)
    assert shape_of(plain).params() == sum(p.numel() for p in plain.parameters()) == 407_872
    per_token = 6 * (64 + 2 * 32 + 64 + 2 * 256 + 64)
    assert shape_of(model).macs(10) - shape_of(plain).macs(10) == 10 * per_token


@pytest.mark.slow
def test_strangers_load_what_was_saved(tmp_path: Path) -> None:
    """Hidden dimensions and blocks gone, and factors: with the model file with the weights, without Leanboard."""
    expected, orders = {}, []
    for name in MODELS:
        factored = make(name)
        pieces = [single_stack(shape_of(factored), layer, projection) for layer in (0, 3) for projection in PROJECTIONS]
        found = [(piece.slices, svd(stack(factored, piece), 9).factors) for piece in pieces]
        pruned = prune(make(name), some_kept(make(name), HIDDEN))
        for kind, model in {"pruned": pruned, "factored": factorize(factored, found)}.items():
            folder, out = tmp_path / f"{name}-{kind}", tmp_path / f"{name}-{kind}.logits"
            save_checkpoint(folder, model, None, ingredients={}, achieved={}, kept=kept_of(model))
            stored = sum(weight.numel() for weight in load_file(folder / "model.safetensors").values())
            assert stored == shape_of(model).params(), folder.name
            expected[out] = reload.logits_of(model)
            orders.append(json.dumps({"folder": str(folder), "out": str(out)}))
    done = subprocess.run(
        [sys.executable, "-P", reload.__file__], input="\n".join(orders), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    for out, before in expected.items():
        assert_same(load_file(out)["logits"], before)


def test_norms_of_the_end_are_seen() -> None:
    """The models of these tests would show a norm that is not sliced, scaled or loaded."""
    assert float(final_norm_of(make("mistral-mha")).weight.std()) > 0.2
