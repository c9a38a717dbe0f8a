from itertools import product
from typing import Any

import pytest
import torch

from bench.blocks.groups import Member, attention_members, blocks_of, mlp_members
from bench.blocks.taylor import saliency, score_groups
from bench.errors import MethodError
from methods.saap.sampled import sample_groups
from tests.blocks.context import token_ids
from tests.tiny import make_model

IDS = token_ids(5, 12)
LAYERS = range(1, 3)
SHAPES = {"mha": {}, "gqa-tied": {"heads": 8, "kv_heads": 4, "tied": True}}


@pytest.fixture(params=SHAPES)
def shape(request):
    return SHAPES[request.param]


def sampled(shape, **options):
    return sample_groups(make_model(**shape).requires_grad_(False), LAYERS, IDS, **options)


@pytest.mark.parametrize("element", ["param_first", "param_second", "param_mix"])
def test_the_scores_of_all_rows_are_those_of_the_whole_batch(shape, element):
    found, model = sampled(shape, element=element), make_model(**shape).requires_grad_(False)
    importance: Any
    for mine, importance in ((found.vector, "vectorize"), (found.element, element)):
        whole = score_groups(model, LAYERS, importance, "sum", IDS)
        for layer, module in product(LAYERS, ("attention", "mlp")):
            a, b = getattr(mine, module)[layer], getattr(whole, module)[layer]
            torch.testing.assert_close(a, b, rtol=2e-4, atol=1e-6 * float(b.max()))


def test_each_row_has_the_scores_of_a_batch_of_its_own(shape):
    found, model = sampled(shape), make_model(**shape).requires_grad_(False)
    importance: Any
    assert len(found.vectors) == len(found.elements) == 5
    for i, row in enumerate(IDS.split(1)):
        for mine, importance in ((found.vectors[i], "vectorize"), (found.elements[i], "param_first")):
            alone = score_groups(model, LAYERS, importance, "sum", row)
            assert torch.equal(mine.attention[1], alone.attention[1])
            assert torch.equal(mine.mlp[2], alone.mlp[2])


def test_a_vector_is_never_worth_more_than_its_elements(shape):
    rows, members = sampled(shape, element="param_first"), sampled(shape, whole_members=True)
    for layer in LAYERS:
        assert (rows.vector.attention[layer] <= rows.element.attention[layer] * (1 + 1e-5)).all()
        assert (rows.vector.mlp[layer] <= rows.element.mlp[layer] * (1 + 1e-5)).all()
        assert (members.vector.attention[layer] < rows.vector.attention[layer] * (1 + 1e-5)).all()
        assert torch.equal(members.vector.mlp[layer], rows.vector.mlp[layer])


@pytest.mark.parametrize("whole_members", [False, True])
def test_the_vector_score_is_the_loss_change_of_rescaled_rows(whole_members):
    """|w·g| of a row is the slope of the loss where the row is multiplied by 1 + h; here by central differences."""
    model = make_model(kv_heads=2, hidden=32).requires_grad_(False)
    block = blocks_of(model)[1]
    found = sample_groups(model, [1], IDS, whole_members=whole_members)

    def loss():
        return torch.nn.functional.cross_entropy(model(IDS).logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()).item()

    def slope(member, rows, h=0.05):
        part, losses = member.weight.data if member.dim else member.weight.data.T, []
        before = part[rows].clone()
        for factor in (1 + h, 1 - h):
            part[rows] = before * factor
            losses.append(loss())
        part[rows] = before
        return abs(losses[0] - losses[1]) / (2 * h)

    def value(members, sizes, group):
        total = 0
        for member, size in zip(members, sizes, strict=True):
            rows = list(range(group * size, (group + 1) * size))
            total += sum(slope(member, part) for part in ([rows] if whole_members else [[row] for row in rows]))
        return total

    head = value(attention_members(block), (16, 8, 8, 16), 1)
    assert found.vector.attention[1][1].item() == pytest.approx(head, rel=0.02, abs=1e-3)
    channel = value(mlp_members(block), (1, 1, 1), 5)
    assert found.vector.mlp[1][5].item() == pytest.approx(channel, rel=0.02, abs=1e-4)


def test_without_curvature_the_mixed_score_is_the_first_order_one():
    weight = torch.nn.Parameter(torch.randn(6, 9))
    gradient, member = torch.randn(6, 9), Member(weight, 1)
    first = saliency(member, "param_first", gradient)
    assert torch.equal(saliency(member, "param_mix", gradient, torch.zeros(6, 9)), first)
    assert not torch.allclose(saliency(member, "param_mix", gradient, torch.ones(6, 9)), first)


def test_nothing_is_left_behind_and_a_broken_loss_is_a_clear_error():
    model = make_model().requires_grad_(False)
    sample_groups(model, LAYERS, IDS)
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    model.lm_head.weight[0, 0] = torch.nan
    with pytest.raises(MethodError, match="scores of layer 1 are not finite"):
        sample_groups(model, LAYERS, IDS)
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
