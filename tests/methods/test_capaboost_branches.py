"""Masked branches against what they are defined by: explicit sums, tied copies, ranks and counts."""

import copy
import hashlib

import pytest
import torch

from bench.blocks.lora import attach, merge
from bench.blocks.settings import LoraTuning
from bench.errors import MethodError
from methods.capaboost.branches import BranchMasks, MaskedCopies, share, unshare
from tests.blocks.context import make_context, token_ids
from tests.tiny import make_model

R, D, ALPHA = 4, 3, 5.0
PATH = "model.layers.1.self_attn.v_proj"


def branched(r=R, d=D, *, density=0.5, kind="unstructured", seed=0, filled=True, init_fan="in", **shape):
    """A tiny model with branches on q and v; `filled` gives A and B random values in place of the first ones."""
    model = make_model(**shape)
    adapted = attach(model, make_context(), LoraTuning(r=d * r, alpha=ALPHA * d), name="t")
    share(adapted, BranchMasks(d, density, kind, seed), init_fan)
    if filled:
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in trained(model):
                parameter.normal_()
    return model, adapted


def trained(model):
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def pair(model, path=PATH):
    """The shared A [r, in] and B [out, r] of one projection."""
    layer = model.get_submodule(path)
    return tuple(f["default"].parametrizations.weight.original for f in (layer.lora_A, layer.lora_B))


def masks_of(model, path=PATH, d=D, density=0.5, kind="unstructured", seed=0):
    a, b = pair(model, path)
    masks = BranchMasks(d, density, kind, seed)
    return masks.draw(f"{path}|A", tuple(a.shape)), masks.draw(f"{path}|B", tuple(b.shape))


def delta(model, path=PATH):
    return model.get_submodule(path).get_delta_weight("default").detach()


def rank(model, path=PATH):
    return torch.linalg.matrix_rank(delta(model.double(), path))


def sum_of_branches(a, b, masks_a, masks_b, r=R):
    return ALPHA / r * sum((b * mb) @ (a * ma) for ma, mb in zip(masks_a, masks_b, strict=True))


@pytest.mark.parametrize("r", [1, 8])
@pytest.mark.parametrize("d", [1, 2, 3, 4])
@pytest.mark.parametrize("density", [0.25, 0.5])
def test_the_rank_is_d_times_r_for_the_parameters_of_r(r, d, density):
    model, _ = branched(r, d, density=density, layers=1)
    path = "model.layers.0.self_attn.q_proj"
    assert rank(model, path) == d * r
    assert sum(p.numel() for p in trained(model)) == 2 * r * (64 + 64)


@pytest.mark.parametrize("blind", ["A", "B", "both"])
def test_masks_on_one_side_alone_or_none_gain_no_rank(blind):
    model, _ = branched()
    layer = model.get_submodule(PATH)
    for name, factor in (("A", layer.lora_A), ("B", layer.lora_B)):
        if blind in (name, "both"):
            factor["default"].parametrizations.weight[0].masks.fill_(True)
    assert rank(model) == R


def test_the_concatenated_form_is_the_sum_of_the_branches():
    model, adapted = branched(kv_heads=2)
    expected = sum_of_branches(*pair(model), *masks_of(model))
    torch.testing.assert_close(delta(model), expected)
    x = torch.randn(5, 64)
    layer = model.get_submodule(PATH)
    torch.testing.assert_close(layer(x), layer.base_layer(x) + x @ expected.T, atol=1e-5, rtol=1e-5)
    unshare(adapted)
    torch.testing.assert_close(delta(model), expected)
    assert layer.lora_A["default"].weight.shape == (D * R, 64)
    assert layer.lora_B["default"].weight.shape == (32, D * R)


def test_gradients_are_those_of_tied_copies():
    """The published procedure: masked copies, each with a gradient of its own under its mask; these are summed."""
    model, _ = branched()
    (a, b), (masks_a, masks_b) = pair(model), masks_of(model)
    layer, x, weights = model.get_submodule(PATH), torch.randn(7, 64), torch.randn(7, 64)
    (layer(x).tanh() * weights).sum().backward()
    copies = [
        ((a * ma).detach().requires_grad_(), (b * mb).detach().requires_grad_())
        for ma, mb in zip(masks_a, masks_b, strict=True)
    ]
    out = layer.base_layer(x) + sum(ALPHA / R * (x @ ca.T) @ cb.T for ca, cb in copies)
    (out.tanh() * weights).sum().backward()
    for i, (parameter, masks) in enumerate([(a, masks_a), (b, masks_b)]):
        expected = sum(pair[i].grad * mask for pair, mask in zip(copies, masks, strict=True))
        torch.testing.assert_close(parameter.grad, expected, atol=1e-4, rtol=1e-4)
    unused = ~masks_a.any(0)
    assert unused.any()
    assert (a.grad[unused] == 0).all()


def test_nothing_changes_before_training():
    model, _ = branched(filled=False)
    with torch.no_grad():
        assert torch.equal(model(token_ids(2, 9)).logits, make_model()(token_ids(2, 9)).logits)


@pytest.mark.parametrize(("init_fan", "bound"), [("in", 64**-0.5), ("r", R**-0.5)])
def test_the_first_values_of_a_fill_their_range(init_fan, bound):
    model, _ = branched(filled=False, init_fan=init_fan)
    a, b = pair(model)
    assert 0.9 * bound < a.abs().max() <= bound
    assert a.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
    assert not b.any()


def test_one_full_branch_is_lora():
    config = LoraTuning(r=R, alpha=ALPHA)
    plain = make_model()
    attach(plain, make_context(), config, name="t")
    model, _ = branched(R, 1, density=1.0, filled=False)
    layer = plain.get_submodule(PATH)
    assert torch.equal(pair(model)[0], layer.lora_A["default"].weight)
    assert layer.scaling == model.get_submodule(PATH).scaling


def test_merging_and_unmerging_come_back():
    model, adapted = branched()
    before = model.get_submodule(PATH).base_layer.weight.clone()
    ids = token_ids(2, 9)
    with torch.no_grad():
        unmerged = model(ids).logits
        adapted.merge_adapter()
        assert not torch.allclose(model.get_submodule(PATH).base_layer.weight, before, atol=1e-2)
        adapted.unmerge_adapter()
        torch.testing.assert_close(model.get_submodule(PATH).base_layer.weight, before, atol=1e-4, rtol=1e-4)
        unshare(adapted)
        merged = merge(adapted)
        torch.testing.assert_close(merged(ids).logits, unmerged, atol=1e-4, rtol=1e-4)


def test_masks_depend_on_seed_and_name_alone():
    masks = BranchMasks(2, 0.5, "unstructured", 0)
    names = [f"{path}|{factor}" for path in ("x", "y") for factor in "AB"]
    first = {name: masks.draw(name, (4, 32)) for name in names}
    torch.manual_seed(9)
    again = {name: masks.draw(name, (4, 32)) for name in reversed(names)}
    assert all(torch.equal(first[name], again[name]) for name in names)
    drawn = [m for name in names for m in first[name]] + list(
        BranchMasks(2, 0.5, "unstructured", 1).draw("x|A", (4, 32))
    )
    assert len({tuple(m.flatten().tolist()) for m in drawn}) == len(drawn) == 10


def test_masks_are_what_the_seed_says():
    """The derivation in so many words: whoever has seed and name can draw them without this package."""
    digest = hashlib.sha256(b"7|m|A|1").digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    kept = torch.randperm(24, generator=generator)[:6].sort().values
    assert torch.equal(
        BranchMasks(2, 0.25, "unstructured", 7).draw("m|A", (2, 12))[1].flatten().nonzero().flatten(), kept
    )


def test_masks_are_not_stored():
    model, _ = branched()
    assert not [name for name in model.state_dict() if "masks" in name]
    moved = copy.deepcopy(model).to(torch.bfloat16)
    assert moved.get_submodule(PATH).lora_A["default"].weight.dtype == torch.bfloat16
    assert moved.get_submodule(PATH).lora_A["default"].parametrizations.weight[0].masks.dtype == torch.bool


@pytest.mark.parametrize(("density", "shape", "kept"), [(0.5, (3, 5), 7), (0.3, (8, 64), 153), (0.01, (2, 8), 1)])
def test_unstructured_counts_are_exact(density, shape, kept):
    drawn = BranchMasks(3, density, "unstructured", 0).draw("m", shape)
    assert drawn.shape == (3, *shape)
    assert drawn.flatten(1).sum(1).tolist() == [kept] * 3


def test_two_of_every_four():
    drawn = BranchMasks(4, 0.5, "nm", 0).draw("m", (6, 64))
    assert (drawn.view(-1, 4).sum(1) == 2).all()
    assert len({tuple(group) for group in drawn.view(-1, 4).tolist()}) == 6
    with pytest.raises(MethodError, match="mask_type: 'nm' needs groups of 4; m has 6 entries in a row"):
        BranchMasks(2, 0.5, "nm", 0).draw("m", (4, 6))


def test_complementary_masks_use_every_entry_once_with_rank_2r():
    model, _ = branched(8, 2, kind="complementary")
    for drawn in masks_of(model, d=2, kind="complementary"):
        assert (drawn.sum(0) == 1).all()
        assert drawn[0].sum() == drawn[0].numel() // 2
    assert rank(model) == 16


def test_masked_copies_start_from_the_first():
    copies = torch.arange(24.0).view(6, 4)
    parametrization = MaskedCopies(torch.ones(2, 3, 4, dtype=torch.bool), 0)
    assert torch.equal(parametrization.right_inverse(copies), copies[:3])
    assert torch.equal(parametrization(copies[:3]), torch.cat([copies[:3]] * 2))
