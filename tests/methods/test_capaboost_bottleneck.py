"""The bottleneck in branches against their explicit sum; training through the house's loop; fusing."""

import pytest
import torch

from bench.blocks.settings import TrainingConfig
from bench.blocks.train import causal_loss, mean_loss, train
from bench.model.layers import bottlenecks_of
from methods.capaboost.bottleneck import attach, fuse
from methods.capaboost.branches import BranchMasks
from tests.blocks.context import make_context, token_ids
from tests.tiny import make_model

MASKS = BranchMasks(3, 0.5, "unstructured", 0)
CONFIG = TrainingConfig(steps=6, batch_size=4, micro_batch=2, lr=1e-2, warmup_steps=1, holdout=0)


def test_the_bottleneck_is_the_sum_of_its_branches():
    model = attach(make_model(), make_context(), 8, MASKS)
    bottleneck = bottlenecks_of(model)[1]
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in bottleneck.parameters():
            parameter.normal_()
    down = bottleneck.down.parametrizations
    wd, bd, wu = down.weight.original, down.bias.original, bottleneck.up.parametrizations.weight.original
    z = torch.randn(5, 64)
    masks = zip(MASKS.draw("bottleneck.1|A", (8, 64)), MASKS.draw("bottleneck.1|B", (64, 8)), strict=True)
    branches = [torch.relu(z @ (wd * ma).T + bd) @ (wu * mb).T for ma, mb in masks]
    expected = z + sum(branches) + bottleneck.up.bias
    torch.testing.assert_close(bottleneck(z), expected, atol=1e-4, rtol=1e-5)
    fuse(model)
    torch.testing.assert_close(bottleneck(z), expected, atol=1e-4, rtol=1e-5)
    assert bottleneck.down.weight.shape == (24, 64)
    assert bottleneck.up.weight.shape == (64, 24)


@pytest.mark.parametrize("branches", [1, 3])
def test_training_lowers_the_loss_and_stores_as_much_whatever_the_branches(branches):
    model, ctx = make_model(kv_heads=2), make_context()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    data = ctx.examples(32)
    untrained = mean_loss(model, data, 4, causal_loss, ctx.device)
    model = attach(model, ctx, 8, BranchMasks(branches, 0.5, "unstructured", 0))
    train(model, ctx, CONFIG, data, name="bottleneck")
    trained = mean_loss(model, data, 4, causal_loss, ctx.device)
    assert trained < untrained - 0.1
    assert ctx.meter.trainable_parameters == 4 * (2 * 8 * 64 + 8 + 64)
    after = dict(model.named_parameters())
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())
    fuse(model)
    assert mean_loss(model, data, 4, causal_loss, ctx.device) == pytest.approx(trained, rel=1e-5)


def test_the_bottleneck_reads_what_the_mlp_gives():
    model, ids, seen = attach(make_model(), make_context(), 8, MASKS), token_ids(1, 9), []
    mlp = model.model.layers[1].mlp
    mlp.down_proj.register_forward_hook(lambda module, args, out: seen.append(out))
    mlp.bottleneck.register_forward_hook(lambda module, args, out: seen.extend([args[0], out]))
    mlp.register_forward_hook(lambda module, args, out: seen.append(out))
    with torch.no_grad():
        model(ids)
    projected, given, made, returned = seen
    assert torch.equal(projected, given)
    assert torch.equal(made, returned)
    assert not torch.equal(given, made)
