"""Gradients are handed over one by one and freed, block activations are made again, and turns change no score."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F

from bench.blocks import gradients
from bench.blocks.gradients import NO_LABEL, MeanLoss, backward, parts, recomputed, taking
from bench.blocks.taylor import members_of, score_groups, score_hidden
from methods.pruning_adapter.head_masks import mask_importance
from methods.saap.sampled import sample_groups
from tests.blocks.context import make_context, token_ids
from tests.tiny import make_model

IDS = token_ids(5, 12)
LAYERS = range(4)


def make(**shape):
    return make_model(**{"kv_heads": 2, "tied": True} | shape).requires_grad_(False)


def weights_of(model):
    return [member.weight for member in members_of(model, LAYERS)[1]]


def test_each_gradient_is_that_of_a_plain_backward_pass_and_the_only_one_alive():
    model, plain, seen = make(), make().requires_grad_(True), {}
    plain(IDS, labels=IDS).loss.backward()
    names = {parameter: name for name, parameter in model.named_parameters()}

    def take(weight, gradient):
        assert all(p.grad is None for p in model.parameters())
        seen[names[weight]] = gradient.clone()

    with taking(model, weights_of(model), take):
        backward(model, IDS)
    assert len(seen) == 28
    for name, gradient in seen.items():
        assert torch.equal(gradient, plain.get_parameter(name).grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loss_and_its_gradient_are_torchs_bit_for_bit(dtype):
    torch.manual_seed(0)
    labels = torch.randint(3000, (40,))
    labels[19::20] = NO_LABEL
    ours = (5 * torch.randn(40, 3000)).to(dtype).requires_grad_(True)
    theirs = ours.detach().clone().requires_grad_(True)
    loss = MeanLoss.apply(ours, labels)
    assert torch.equal(loss, F.cross_entropy(theirs.float(), labels))
    (0.3 * loss).backward()
    (0.3 * F.cross_entropy(theirs.float(), labels)).backward()
    assert torch.equal(ours.grad, theirs.grad)
    assert ours.grad[19].count_nonzero() == 0


def test_a_blocks_activations_are_not_kept():
    """What autograd saves for the way back grows by one block's input with each block, not by its activations."""

    def saved(model, ids):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            model.requires_grad_(True)(ids, labels=ids)
        return sum(sizes)

    def growth(wrap):
        counts = []
        for layers in (2, 4):
            model = make(layers=layers)
            with wrap(model):
                counts.append(saved(model, IDS))
        return (counts[1] - counts[0]) / 2

    class Plain:
        def __init__(self, model): ...
        def __enter__(self): ...
        def __exit__(self, *error): ...

    assert growth(recomputed) <= 3 * IDS.numel() * 64
    assert growth(Plain) > 10 * IDS.numel() * 64


def test_turns_hold_all_weights_in_order_within_the_budget(monkeypatch):
    model = make()
    weights = weights_of(model)
    assert list(parts(model, weights, 4)) == [weights]
    monkeypatch.setattr(gradients, "KEPT_LEAST", 0)
    monkeypatch.setattr(gradients, "KEPT_SHARE", 0.2)
    budget = 0.2 * sum(4 * p.numel() for p in model.parameters())
    turns = list(parts(model, weights, 4))
    assert 4 <= len(turns) < 28
    assert [weight for turn in turns for weight in turn] == weights
    assert all(sum(4 * weight.numel() for weight in turn) <= budget for turn in turns)
    monkeypatch.setattr(gradients, "KEPT_SHARE", 0)
    assert list(parts(model, weights, 4)) == [[weight] for weight in weights]


def flat(scores):
    return torch.cat([getattr(scores, module)[layer] for layer, module in product(LAYERS, ("attention", "mlp"))])


@pytest.mark.parametrize(
    ("importance", "rows"),
    [
        *((importance, 5) for importance in ("vectorize", "param_first", "param_second", "param_mix")),
        *(pytest.param(importance, 37, marks=pytest.mark.slow) for importance in ("vectorize", "param_second")),
    ],
)
def test_turns_change_no_score(monkeypatch, importance, rows):
    ids = token_ids(rows, 8)
    whole = flat(score_groups(make(), LAYERS, importance, "sum", ids)), score_hidden(make(), importance, "sum", ids)
    monkeypatch.setattr(gradients, "KEPT_LEAST", 0)
    split = flat(score_groups(make(), LAYERS, importance, "sum", ids)), score_hidden(make(), importance, "sum", ids)
    assert all(torch.equal(a, b) for a, b in zip(whole, split, strict=True))


@pytest.mark.parametrize("element", ["param_first", "param_second", "param_mix"])
def test_turns_change_no_sample(monkeypatch, element):
    def every(found):
        return torch.cat([flat(s) for s in (found.vector, found.element, *found.vectors, *found.elements)])

    whole = every(sample_groups(make(), LAYERS, IDS, element))
    monkeypatch.setattr(gradients, "KEPT_LEAST", 0)
    said = []
    split = sample_groups(make(), LAYERS, IDS, element, progress=lambda what, done, total: said.append((done, total)))
    assert torch.equal(every(split), whole)
    totals = {total for _, total in said}
    assert len(totals) == 1
    assert [done for done, _ in said] == list(range(1, totals.pop() + 1))


def test_the_importance_of_masks_is_that_without_making_anything_again(monkeypatch):
    examples = make_context().examples(12)[:3]
    found = mask_importance(make(), examples, channels=True)
    monkeypatch.setattr("methods.pruning_adapter.head_masks.recomputed", lambda model: torch.enable_grad())
    plain = mask_importance(make(), examples, channels=True)
    assert all(torch.equal(a, b) for a, b in zip(found.tensors(), plain.tensors(), strict=True))
