"""Factored layers compute what the dense approximation computes, are counted exactly, and survive the disk."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from bench.blocks.lowrank import cp, svd, tucker
from bench.blocks.stacks import Stack, dims, single_stack, stack, stacks_of, unstack
from bench.errors import MethodError
from bench.factor_shape import FactorShape, Slice
from bench.measure import size
from bench.model.checkpoint import load_checkpoint, save_checkpoint
from bench.model.factors import Factors
from bench.model.layers import blocks_of, shape_of
from bench.model.load import load_folder
from bench.model.surgery import factorize, kept_of, prune
from bench.shape import BlockKept, Kept
from tests.model.test_checkpoint import IDS
from tests.tiny import make_checkpoint, make_model, make_tokenizer

MHA: dict[str, Any] = {}
GQA: dict[str, Any] = {"heads": 6, "kv_heads": 2, "hidden": 96, "tied": True}
CASES = [
    (shape, mode, attention_set, kind)
    for shape, mode, attention_set in [
        (MHA, 1, "split"),
        (MHA, 2, "faithful"),
        (MHA, 3, "kv_group"),
        (MHA, 5, "split"),
        (GQA, 1, "kv_group"),
        (GQA, 2, "split"),
        (GQA, 2, "kv_group"),
        (GQA, 4, "split"),
        (GQA, 5, "split"),
        (GQA, 6, "split"),
    ]
    for kind in ("cp", "tucker")
]


def approximate(x: torch.Tensor, kind: str, rank: int = 6) -> Factors:
    if kind == "cp":
        return cp(x, rank, torch.Generator().manual_seed(0), starts=["hosvd"], sweeps=3).factors
    return tucker(x, (rank, rank + 1), sweeps=1).factors


def stacks(model: torch.nn.Module, mode: Any, attention_set: Any = "split") -> list[Stack]:
    units = stacks_of(shape_of(model), mode, range(1, 4), attention_set=attention_set)
    return [s for unit in units for s in unit]


def factored(
    shape: dict[str, Any], mode: Any = 5, attention_set: Any = "split", kind: str = "cp"
) -> tuple[torch.nn.Module, torch.nn.Module, list[Stack]]:
    """A model with factors, and one with the same approximation in dense weights."""
    dense, model = make_model(**shape), make_model(**shape)
    chosen = stacks(model, mode, attention_set)
    found = [(s, approximate(stack(model, s), kind)) for s in chosen]
    for s, factors in found:
        unstack(dense, s, factors.slices())
    return factorize(model, [(s.slices, factors) for s, factors in found]), dense, chosen


@torch.no_grad()
def logits(model: torch.nn.Module, ids: torch.Tensor | None = None) -> torch.Tensor:
    return model(torch.tensor([IDS, IDS[::-1]]) if ids is None else ids).logits


@pytest.mark.parametrize(("shape", "mode", "attention_set", "kind"), CASES)
def test_factors_compute_what_dense_weights_do_and_are_counted_by_the_formulas(
    shape: dict[str, Any], mode: Any, attention_set: Any, kind: str
) -> None:
    model, dense, chosen = factored(shape, mode, attention_set, kind)
    expected = logits(dense)
    assert not torch.allclose(expected, logits(make_model(**shape)), rtol=1e-2)
    torch.testing.assert_close(logits(model), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    before, after = shape_of(make_model(**shape)), shape_of(model)
    formula = 0
    for n, p, q in (dims(before, s) for s in chosen):
        stored = 6 * (n + p + q) if kind == "cp" else n * 6 * 7 + 6 * p + 7 * q
        formula += n * p * q - stored
    assert before.params() - after.params() == formula == before.block_params() - after.block_params()
    assert sum(p.numel() for p in model.parameters()) == after.params()
    assert sum(w.numel() for w in model.model.layers.parameters()) < after.block_params()  # shared ones lie elsewhere
    assert size.body_parameters(model) == after.block_params() + after.hidden
    assert size.counted_flops(model, 7) == 2 * after.matmul_macs(7)
    removed = before.matmul_macs() - after.matmul_macs()
    scalings = 64 * 6 * sum(dims(before, s)[0] for s in chosen) if kind == "cp" else 0
    assert before.macs() - after.macs() == removed - scalings
    assert size.macs(model, 64) == after.macs()


def test_gate_and_up_share_a_product() -> None:
    apart, together = (
        shape_of(make_model()).factored(forms)
        for forms in (
            [FactorShape(96, 64, (5,), (Slice(0, "gate_proj"),)), FactorShape(96, 64, (5,), (Slice(0, "up_proj"),))],
            [FactorShape(96, 64, (5,), (Slice(0, "gate_proj"), Slice(0, "up_proj")))],
        )
    )
    assert apart.matmul_macs(10) - together.matmul_macs(10) == 10 * 64 * 5


@pytest.mark.parametrize("transposed", [False, True])
def test_a_single_matrix_is_a_stack_of_one(transposed: bool) -> None:
    model, dense = make_model(), make_model()
    one = single_stack(shape_of(model), 1, "down_proj")
    found = svd(stack(model, one), 5).factors
    unstack(dense, one, found.slices())
    if transposed:
        found, one = Factors(found.outer, found.core, found.inner), Stack("", 96, 64, (Slice(1, "down_proj", True),))
    model = factorize(model, [(one.slices, found)])
    torch.testing.assert_close(logits(model), logits(dense), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("shape", "mode", "kind"), [(MHA, 5, "cp"), (GQA, 2, "tucker"), (GQA, 4, "cp")])
def test_a_checkpoint_comes_back(shape: dict[str, Any], mode: int, kind: str, tmp_path: Path) -> None:
    model, _, chosen = factored(shape, mode, "kv_group", kind)
    folder = tmp_path / "c"
    manifest = save_checkpoint(folder, model, make_tokenizer(), ingredients={}, achieved={}, kept=kept_of(model))
    expected = logits(model)
    loaded, _ = load_checkpoint(folder)
    assert torch.equal(logits(loaded), expected)
    assert shape_of(loaded) == shape_of(model)
    assert manifest.sizes["params.stored"] == shape_of(model).params()
    with safe_open(folder / "model.safetensors", "pt") as file:
        names = [name for name in file.keys() if "factors" in name]  # noqa: SIM118
        assert sum(file.get_tensor(name).numel() for name in file.keys()) == shape_of(model).params()  # noqa: SIM118
    assert len(names) == 2 * len(chosen)
    config = json.loads((folder / "config.json").read_text())
    assert [len(entry["slices"]) for entry in config["factors"]] == [len(s.slices) for s in chosen]


@pytest.mark.parametrize("mode", [2, 5])
def test_generation_with_and_without_the_cache(mode: int) -> None:
    model, _, _ = factored(GQA, mode, "kv_group")
    prompt = torch.tensor([IDS[:6]] * 2)
    made = [
        model.generate(prompt, max_new_tokens=8, min_new_tokens=8, do_sample=False, use_cache=cache)
        for cache in (True, False)
    ]
    assert made[0].shape == (2, 14)
    assert torch.equal(made[0], made[1])


def test_half_precision_keeps_its_type(tmp_path: Path) -> None:
    model, _ = load_checkpoint(make_checkpoint(tmp_path / "dense", **GQA), "bfloat16")
    (one,) = stacks_of(shape_of(model), 5, [2])[0]
    model = factorize(model, [(one.slices, approximate(stack(model, one), "cp"))])
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    save_checkpoint(tmp_path / "c", model, None, ingredients={}, achieved={}, kept=kept_of(model))
    loaded, _ = load_checkpoint(tmp_path / "c", "bfloat16")
    assert torch.equal(logits(loaded), logits(model))
    assert torch.isfinite(logits(loaded)).all()


def test_a_copy_has_factors_of_its_own() -> None:
    model, _, _ = factored(MHA)
    expected, twin = logits(model), copy.deepcopy(model)
    with torch.no_grad():
        model.model.factors[0].inner.zero_()
    assert torch.equal(logits(twin), expected)
    assert not torch.allclose(logits(model), expected)
    with torch.no_grad():
        twin.model.factors[0].inner.zero_()
    assert torch.equal(logits(twin), logits(model))


def test_a_model_made_from_the_config_alone_is_finite() -> None:
    model, _, _ = factored(GQA, 2, "kv_group")
    assert torch.isfinite(logits(type(model)(model.config).eval())).all()


def test_pruning_comes_first() -> None:
    dense = make_model(kv_heads=2)
    blocks = dict(shape_of(dense).keep_all().blocks)
    blocks[1] = BlockKept((0, 1), tuple(range(10, 60)))
    del blocks[0]
    pruned = prune(dense, Kept(blocks))
    kept, widths = kept_of(pruned), shape_of(pruned).blocks
    ((one,),) = stacks_of(shape_of(pruned), 5, [0])
    model = factorize(pruned, [(one.slices, approximate(stack(pruned, one), "tucker"))])
    assert kept_of(model) == kept
    assert shape_of(model).blocks == widths
    assert sum(p.numel() for p in model.parameters()) == shape_of(model).params()
    with pytest.raises(MethodError, match="low-rank factors, which cannot be pruned; prune first"):
        prune(model, shape_of(model).keep_all())
    with pytest.raises(MethodError, match="needs plain matrices"):
        blocks_of(model)


def test_what_requires_gradients_still_does() -> None:
    dense = make_model().requires_grad_(False)
    dense.model.norm.weight.requires_grad_(True)
    ((one,),) = stacks_of(shape_of(dense), 5, [0])
    model = factorize(dense, [(one.slices, approximate(stack(dense, one), "cp"))])
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["model.norm.weight"]
    assert not model.training


GATE = Slice(0, "gate_proj")


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        (FactorShape(96, 64, (3,), (GATE, GATE)), "layer 0, gate_proj: factored 2 times"),
        (FactorShape(64, 96, (3,), (GATE,)), r"\[96, 64\] cannot be cut into slices of the factors' \[64, 96\]"),
        (FactorShape(96, 64, (3,), (Slice(4, "up_proj"),)), "layer 4, up_proj: the model has 4 blocks"),
        (FactorShape(64, 96, (3,), (Slice(0, "gate_proj", True),)), "layer 0, gate_proj: transposed"),
        (FactorShape(96, 64, (0,), (GATE,)), "must be at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(form: FactorShape, sentence: str) -> None:
    with pytest.raises(MethodError, match=sentence):
        shape_of(make_model()).factored([form])


@pytest.mark.parametrize("kind", ["cp", "tucker"])
@pytest.mark.parametrize(("mode", "attention_set"), [(2, "split"), (2, "kv_group"), (5, "split")])
def test_factors_keep_the_biases(mode: Any, attention_set: Any, kind: str, tmp_path: Path) -> None:
    shape = GQA | {"attention_bias": True, "mlp_bias": True}
    dense, model, _ = factored(shape, mode, attention_set, kind)
    assert sum(p.numel() for p in model.parameters()) == shape_of(model).params()
    ids = torch.tensor([IDS])
    torch.testing.assert_close(model(ids).logits, dense(ids).logits, rtol=1e-4, atol=1e-4)
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(load_folder(tmp_path)[0](ids).logits, model(ids).logits)
