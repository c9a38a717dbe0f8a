"""Hard-concrete masks and their Lagrangian, against closed forms, sums done one by one, and sampling."""

import math

import pytest
import torch
from torch import nn

from bench.blocks.groups import BlockKept, BlockShape, Kept, Shape
from bench.blocks.settings import TrainingConfig
from bench.blocks.train import Hooks, train
from bench.method import Example
from methods.compresso.l0 import HardConcrete, Lagrangian, Masks
from tests.blocks.context import make_context

CPU = torch.device("cpu")
PUBLISHED = {"heads": 10.0, "channels": math.log(0.99 / 0.01), "hidden": 10.0}
MIXED = {"heads": 0.3, "channels": -0.5, "hidden": 0.8}
TOY = Shape(hidden=64, head_dim=16, vocab=300, tied=False, blocks=(BlockShape(4, 4, 128),) * 6)
UNEVEN = Shape(8, 4, 11, True, (BlockShape(4, 2, 6), BlockShape(2, 1, 5), BlockShape(3, 3, 7)))


def make_masks(shape=TOY, means=PUBLISHED, **options):
    return Masks(shape, means, torch.Generator().manual_seed(0), CPU, **options)


@pytest.mark.parametrize(
    ("logit", "positive"), [(0, 0.83182), (2, 0.97337), (-2, 0.40098), (4.60517, 0.99798), (-4.60517, 0.04713)]
)
def test_the_probability_of_a_positive_mask(logit, positive):
    law, logits = HardConcrete(), torch.full((200_000,), float(logit))
    assert law.positive(logits[:1]).item() == pytest.approx(positive, abs=1e-5)
    noise = torch.rand(len(logits), generator=torch.Generator().manual_seed(1))
    masks = law.sample(logits, noise)
    assert (masks > 0).double().mean().item() == pytest.approx(positive, abs=5e-3)
    assert masks.min() >= 0
    assert masks.max() == 1


def test_other_constants_move_the_distribution_as_the_formula_says():
    law, logits = HardConcrete(beta=0.5, low=-0.3, high=1.2), torch.full((200_000,), -1.0)
    noise = torch.rand(len(logits), generator=torch.Generator().manual_seed(1))
    share = (law.sample(logits, noise) > 0).double().mean().item()
    assert law.positive(logits[:1]).item() == pytest.approx(share, abs=5e-3)
    assert law.final(torch.tensor(4.60517)).item() == pytest.approx(1 / (1 + math.exp(-4.60517 * 1.6)))
    assert HardConcrete().final(torch.tensor(4.60517)).item() == pytest.approx(0.99604, abs=1e-5)


def test_the_expected_sparsity_at_the_start_before_and_after_the_first_clamp():
    masks = make_masks()
    assert masks.sparsity().item() == pytest.approx(0.0012, abs=5e-5)
    masks.limit(math.log(100))
    assert masks.sparsity().item() == pytest.approx(0.0040, abs=1e-4)


def test_the_published_sparsity_is_the_sum_of_the_products_one_by_one():
    masks = make_masks(UNEVEN, MIXED, spread=1.0)
    heads, channels, hidden = (masks.law.positive(masks.logits[f]).tolist() for f in ("heads", "channels", "hidden"))
    members = [1 + b.heads // b.kv_heads for b in UNEVEN.blocks for _ in range(b.kv_heads)]
    size = sum(2 * UNEVEN.head_dim * n * p * d for n, p in zip(members, heads, strict=True) for d in hidden)
    size += sum(3 * p * d for p in channels for d in hidden)
    full = 8 * (sum(2 * UNEVEN.head_dim * n for n in members) + 3 * len(channels))
    assert masks.sparsity().item() == pytest.approx(1 - size / full, rel=1e-5)


@pytest.mark.parametrize("basis", ["params", "block_params", "macs"])
def test_the_expected_size_is_the_mean_over_sampled_masks(basis):
    masks, removed = make_masks(UNEVEN, MIXED, spread=1.0), []
    torch.manual_seed(0)
    for _ in range(2000):
        masks.draw()
        sampled = masks.sampled()
        heads, channels = ([int((m > 0).sum()) for m in vectors] for vectors in (sampled.heads, sampled.channels))
        blocks = tuple(
            BlockShape(kv * b.heads // b.kv_heads, kv, c)
            for b, kv, c in zip(UNEVEN.blocks, heads, channels, strict=True)
        )
        removed.append(UNEVEN.removed(Shape(int((sampled.hidden > 0).sum()), 4, 11, True, blocks))[basis])
    values = torch.tensor(removed, dtype=torch.double)
    error = values.std().item() / len(removed) ** 0.5
    assert masks.sparsity(basis).item() == pytest.approx(values.mean().item(), abs=4 * error)
    masks.sparsity(basis).backward()
    assert all(bool((logits.grad < 0).all()) for logits in masks.logits.values())


def test_the_rule_removes_as_many_of_a_module_as_are_expected_to_be_zero():
    masks = make_masks(TOY, MIXED, spread=1.5)
    kept = masks.kept()
    parts = {f: masks.logits[f].detach().split(sizes) for f, sizes in masks.sizes.items()}
    modules = [
        *((len(kept.blocks[i].heads), parts["heads"][i]) for i in range(6)),
        *((len(kept.blocks[i].channels), parts["channels"][i]) for i in range(6)),
        (len(kept.hidden), parts["hidden"][0]),
    ]
    for n, logits in modules:
        assert len(logits) - n == round(len(logits) - masks.law.positive(logits).sum().item())
        assert 0 < n < len(logits) or len(logits) == 4
    logits = parts["channels"][3]
    assert set(kept.blocks[3].channels) == set(logits.topk(len(kept.blocks[3].channels)).indices.tolist())
    values = masks.values(kept)
    soft = torch.sigmoid(1.2 * logits)
    torch.testing.assert_close(values.channels[3][list(kept.blocks[3].channels)], soft[list(kept.blocks[3].channels)])
    assert int((values.channels[3] == 0).sum()) == 128 - len(kept.blocks[3].channels)
    assert int(values.hidden.count_nonzero()) == len(kept.hidden)


def test_a_group_of_query_heads_goes_as_a_whole():
    masks = make_masks(UNEVEN, {"heads": 4.0})
    with torch.no_grad():
        masks.logits["heads"][0] = -9.0
    kept = masks.kept()
    assert kept == Kept(
        {
            0: BlockKept((2, 3), tuple(range(6))),
            1: BlockKept((0, 1), tuple(range(5))),
            2: BlockKept((0, 1, 2), tuple(range(7))),
        }
    )
    values = masks.values(kept)
    assert values.heads[0][0] == 0
    assert values.heads[0][1] > 0.9
    assert all(bool((mask == 1).all()) for mask in (*values.channels, values.hidden))


def test_the_shift_removes_more_and_never_empties_a_module():
    masks = make_masks(UNEVEN, MIXED, spread=1.0)
    sizes = [UNEVEN.after(masks.kept(shift, shift)).params() for shift in (20.0, 2.0, 1.0, 0.0, -1.0, -2.0, -20.0)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == UNEVEN.params()
    least = UNEVEN.after(masks.kept(-20.0, -20.0))
    assert [(b.kv_heads, b.channels) for b in least.blocks] == [(1, 1)] * 3
    assert least.hidden == UNEVEN.head_dim
    apart = UNEVEN.after(masks.kept(20.0, -20.0))
    assert [(b.heads, b.channels) for b in apart.blocks] == [(4, 1), (2, 1), (3, 1)]


@pytest.mark.parametrize(("ramp", "half"), [("linear", 0.15), ("cubic", 0.2625)])
def test_the_target_rises_to_the_sparsity(ramp, half):
    lagrangian = Lagrangian(0.3, 100, ramp, CPU)
    assert [lagrangian.target(step) for step in (0, 50, 100, 500)] == pytest.approx([0, half, 0.3, 0.3])
    assert Lagrangian(0.3, 0, ramp, CPU).target(1) == 0.3
    with torch.no_grad():
        lagrangian.multipliers.copy_(torch.tensor([2.0, 3.0]))
    gap = torch.tensor(0.1) - half
    assert lagrangian.penalty(torch.tensor(0.1), 50).item() == pytest.approx((2 * gap + 3 * gap**2).item())


@pytest.mark.slow
def test_toy_training_ends_at_the_sparsity_and_keeps_what_matters():
    """The loss is a weighted squared distance of all masks from 1; the first half of the channels weighs most."""
    sparsity, masks = 0.3, make_masks()
    lagrangian = Lagrangian(sparsity, 400, "linear", CPU)
    unused, kept_at, reached = nn.Linear(1, 1), [], []
    weight = {kind: torch.full((sum(sizes),), 0.01) for kind, sizes in masks.sizes.items()}
    for part in weight["channels"].split(masks.sizes["channels"]):
        part[:64] = 1.0

    def loss(model, ids, labels):
        values = masks.sampled()
        flat = {"heads": torch.cat(values.heads), "channels": torch.cat(values.channels), "hidden": values.hidden}
        return sum((weight[f] * (1 - z).square()).sum() for f, z in flat.items()) + 0 * model.weight.sum()

    def penalty(step):
        masks.draw()
        return lagrangian.penalty(masks.sparsity(), step)

    def may_keep(step):
        reached.append(masks.sparsity().item())
        if reached[-1] >= sparsity - 0.005:
            kept_at.append(reached[-1])
        return reached[-1] >= sparsity - 0.005

    def groups():
        return [
            {"params": list(unused.parameters())},
            {"params": list(masks.logits.values()), "lr": 0.1, "weight_decay": 0.0},
            {"params": [lagrangian.multipliers], "lr": 0.1, "weight_decay": 0.0, "maximize": True},
        ]

    config = TrainingConfig(
        steps=1600, warmup_steps=0, batch_size=1, micro_batch=1, holdout=1, evaluate_every=50, lr=1e-3
    )
    hooks = Hooks(groups, penalty, lambda step: masks.limit(math.log(100)), may_keep, list(unused.parameters()))
    train(
        unused,
        make_context(examples=[Example([1, 2], [1, 2])] * 4),
        config,
        [Example([1, 2], [1, 2])] * 4,
        name="toy",
        loss=loss,
        hooks=hooks,
    )
    assert reached[-1] == pytest.approx(sparsity, abs=0.05)
    assert kept_at
    assert masks.sparsity().item() >= sparsity - 0.005
    for i, block in masks.kept().blocks.items():
        assert sum(channel < 64 for channel in block.channels) > 0.95 * 64, i
