import math
from typing import get_args

import pytest
import torch

from bench.blocks.gradients import backward, taking
from bench.blocks.groups import attention_members, blocks_of, hidden_members, mlp_members, prune, shape_of
from bench.blocks.ranking import Ranking
from bench.blocks.settings import Gradient, Reduction
from bench.blocks.taylor import combine, fold, random_scores, saliency, score_groups, score_hidden, whole_gradient
from bench.errors import MethodError
from tests.blocks.context import token_ids
from tests.tiny import make_model

IDS = token_ids(5, 12)
LAYERS = range(1, 3)


@pytest.fixture(params=[(4, False), (2, True)], ids=["mha", "gqa-tied"])
def model(request):
    kv_heads, tied = request.param
    return make_model(kv_heads=kv_heads, tied=tied).requires_grad_(False)


def naive(model, importance, reduction, layer):
    """Scores by the letter of the paper, one group at a time, from gradients of our own."""
    model.requires_grad_(True)
    fisher = {p: torch.zeros_like(p) for p in model.parameters()}
    for row in IDS:
        model.zero_grad()
        model(row[None], labels=row[None]).loss.backward()
        for p in fisher:
            fisher[p] += p.grad**2 / len(IDS)
    model.zero_grad()
    model(IDS, labels=IDS).loss.backward()

    def vector(weight, rows):
        w, g, f = (x if rows else x.T for x in (weight.detach(), weight.grad, fisher[weight]))
        s = {"vectorize": w * g, "param_first": w * g, "param_second": w * w * f, "param_mix": w * g - 0.5 * w * w * f}
        s |= {"l1": w, "l2": w * w}
        return s[importance].sum(1).abs() if importance == "vectorize" else s[importance].abs().sum(1)

    def reduced(values):
        if reduction == "prod":
            return math.prod(values)
        return {
            "sum": sum(values),
            "mean": sum(values) / len(values),
            "max": max(values),
            "first": values[0],
            "last": values[-1],
        }[reduction]

    block, shape = blocks_of(model)[layer], shape_of(model)
    size, n_rep = shape.head_dim, shape.blocks[layer].heads // shape.blocks[layer].kv_heads
    q, k, v = (vector(m.weight, True).tolist() for m in (block.q, block.k, block.v))
    o, down = vector(block.o.weight, False).tolist(), vector(block.down.weight, False).tolist()
    gate, up = vector(block.gate.weight, True).tolist(), vector(block.up.weight, True).tolist()
    heads = []
    for c in range(shape.blocks[layer].kv_heads):
        total = 0.0
        for i in range(size):
            of_queries = [(c * n_rep + j) * size + i for j in range(n_rep)]
            rows = [sum(q[x] for x in of_queries), k[c * size + i], v[c * size + i], sum(o[x] for x in of_queries)]
            total += reduced(rows)
        heads.append(total)
    channels = [reduced([gate[j], up[j], down[j]]) for j in range(len(gate))]
    return torch.tensor(heads), torch.tensor(channels)


@pytest.mark.parametrize(
    ("importance", "reduction"),
    [*((i, "sum") for i in (*get_args(Gradient), "l1", "l2")), *(("param_first", r) for r in get_args(Reduction))],
)
def test_scores_are_those_of_the_letter(model, importance, reduction):
    scores = score_groups(model, LAYERS, importance, reduction, IDS)
    assert set(scores.attention) == set(scores.mlp) == set(LAYERS)
    heads, channels = naive(model, importance, reduction, 2)
    if reduction == "prod":
        heads, channels = heads.log(), channels.log()
    torch.testing.assert_close(scores.attention[2], heads, rtol=2e-4, atol=1e-6)
    torch.testing.assert_close(scores.mlp[2], channels, rtol=2e-4, atol=1e-6)


def test_vector_scores_never_exceed_element_scores(model):
    vector = score_groups(model, LAYERS, "vectorize", "sum", IDS)
    element = score_groups(model, LAYERS, "param_first", "sum", IDS)
    for layer in LAYERS:
        assert (vector.attention[layer] <= element.attention[layer] * (1 + 1e-5)).all()
        assert (vector.mlp[layer] <= element.mlp[layer] * (1 + 1e-5)).all()


def test_the_mixed_score_without_fisher_is_the_first_order_one(model):
    members = [*attention_members(blocks_of(model)[1]), *mlp_members(blocks_of(model)[1])]
    owner, seen = {member.weight: member for member in members}, []

    def take(weight, gradient):
        member = owner[weight]
        mixed = saliency(member, "param_mix", gradient, torch.zeros_like(weight))
        seen.append(torch.equal(mixed, saliency(member, "param_first", gradient)))

    whole_gradient(model, list(owner), IDS, take)
    assert seen == [True] * 7


def test_the_vector_score_of_a_small_group_is_the_loss_it_costs():
    model = make_model().requires_grad_(False)
    block = blocks_of(model)[2]
    model.double()

    def loss():
        return torch.nn.functional.cross_entropy(model(IDS).logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()).item()

    with torch.no_grad():
        block.down.weight[:, 5] *= 1e-3
        score = score_groups(model, [2], "vectorize", "last", IDS).mlp[2][5].item()
        before = loss()
        block.down.weight[:, 5] = 0
        after = loss()
    assert score == pytest.approx(abs(after - before), rel=0.02)
    assert score > 0


def test_nothing_is_left_behind(model):
    model.model.norm.weight.requires_grad_(True)
    state, weights = torch.get_rng_state(), {k: v.clone() for k, v in model.state_dict().items()}
    flags = [p.requires_grad for p in model.parameters()]
    score_groups(model, LAYERS, "param_mix", "sum", IDS)
    score_hidden(model, "param_first", "sum", IDS)
    assert all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for p in model.parameters()] == flags
    assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())
    assert not any(p._post_accumulate_grad_hooks or p._backward_hooks for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())


def test_gradients_are_freed_when_scoring_fails(model):
    def fails(weight, gradient):
        raise ZeroDivisionError

    weight = blocks_of(model)[0].q.weight
    with pytest.raises(ZeroDivisionError), taking(model, [weight], fails):
        backward(model, IDS)
    assert not weight._post_accumulate_grad_hooks
    assert not any("forward" in vars(layer) for layer in model.model.layers)
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())


def test_many_rows_give_the_gradient_of_one_batch():
    model, ids = make_model(), token_ids(37, 8)
    scores = score_groups(model, [1], "param_first", "sum", ids)
    model(ids, labels=ids).loss.backward()
    gate = blocks_of(model)[1].gate.weight
    expected = combine([(gate * gate.grad).abs().sum(1)], "sum")
    first = score_groups(model, [1], "param_first", "first", ids)
    torch.testing.assert_close(first.mlp[1], expected.detach(), rtol=1e-4, atol=1e-7)
    assert (scores.mlp[1] > first.mlp[1]).all()


def test_the_fold_keeps_a_kv_heads_own_query_heads_together():
    vector = torch.tensor([1.0, 1, 2, 2, 3, 3, 4, 4])  # four query heads of two rows each, two key/value heads
    assert fold(vector, 4, 2, "contiguous").tolist() == [3, 3, 7, 7]
    assert fold(vector, 4, 2, "strided").tolist() == [4, 4, 6, 6]
    assert fold(vector, 8, 2, "contiguous").tolist() == vector.tolist()


def test_products_do_not_underflow():
    tiny = torch.tensor([1e-30, 2e-30, 3e-30, 1e-30])
    scores = combine([tiny, tiny, tiny], "prod", size=2)
    assert torch.isfinite(scores).all()
    assert scores[1] > scores[0]


def test_hidden_scores_add_up_over_the_whole_network(model):
    scores = score_hidden(model, "l2", "sum")
    assert scores.shape == (64,)
    total = sum(m.weight.detach().square().sum() for m in hidden_members(model))
    assert scores.sum().item() == pytest.approx(total.item(), rel=1e-5)


def test_an_infinite_loss_is_a_clear_error(model):
    with torch.no_grad():
        blocks_of(model)[3].up.weight[0, 0] = torch.inf
    with pytest.raises(MethodError, match="attention scores of layer 1 are not finite"):
        score_groups(model, LAYERS, "param_first", "sum", IDS)
    assert all(p.grad is None for p in model.parameters())


def test_missing_text_is_a_clear_error(model):
    with pytest.raises(MethodError, match="'param_first' needs calibration text"):
        score_groups(model, LAYERS, "param_first", "sum")


def test_scores_survive_a_first_pruning(model):
    shape = shape_of(model)
    ranking = Ranking(shape, shape, score_groups(model, LAYERS, "param_first", "sum", IDS))
    pruned = prune(model, ranking.module_wise(0.5, 0.5))
    scores = score_groups(pruned, LAYERS, "param_mix", "sum", IDS)
    assert scores.attention[1].numel() == shape.blocks[1].kv_heads // 2
    assert scores.mlp[1].numel() == 48


def test_random_scores_follow_their_generator():
    shape = shape_of(make_model())
    first, again = (random_scores(shape, LAYERS, torch.Generator().manual_seed(3)) for _ in range(2))
    other = random_scores(shape, LAYERS, torch.Generator().manual_seed(4))
    assert torch.equal(first.mlp[2], again.mlp[2])
    assert torch.equal(first.attention[1], again.attention[1])
    assert not torch.equal(first.mlp[2], other.mlp[2])
    assert first.attention[1].mean() > 4  # sixteen rows a head
    assert first.mlp[1].max() < 1
