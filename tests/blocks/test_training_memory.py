"""What makes training fit a small card changes no number: blocks computed again, float32 copies of narrow weights."""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from bench.blocks import train as training
from bench.blocks.bottleneck import attach, bottlenecks_of
from bench.blocks.groups import keep_groups, prune, shape_of
from bench.blocks.masters import MasterWeights
from bench.blocks.recoveries import load_recovery, resolve_recovery
from bench.blocks.settings import TrainingConfig
from bench.blocks.train import causal_loss, train
from bench.method import Example, Target
from bench.model.layers import layers_of
from bench.registry import load_registry
from tests.blocks.context import make_context, token_ids
from tests.tiny import make_model

FEW: dict[str, Any] = {"steps": 4, "batch_size": 4, "micro_batch": 2, "max_length": 24, "lr": 5e-3, "warmup_steps": 1}
LOOK: dict[str, Any] = {"holdout": 3, "evaluate_every": 2}
EXAMPLES = [Example(row, [-100] * 5 + row[5:]) for row in token_ids(12, 24).tolist()]
SIZE = Target(value=0.15)
METHODS: dict[str, tuple[dict[str, Any], Target | None]] = {
    "lora": ({"dropout": 0.1}, None),
    "capaboost": ({"dropout": 0.1}, None),
    "capaboost-adapter": ({"form": "adapter"}, None),
    "compresso": ({"dropout": 0.1, "prepruning_epochs": 1, "epochs": 4, "mask_lr": 0.3, "multiplier_lr": 1.0}, SIZE),
    "pruning_adapter": ({"n_samples": 4}, SIZE),
}


def lean():
    model = make_model(kv_heads=2).requires_grad_(False)
    return prune(model, keep_groups(shape_of(model), {1: [0]}, {1: range(50), 2: range(7, 90)}))


def recovered(model, name):
    recovery = resolve_recovery({"name": name, **FEW, **LOOK, "dropout": 0.1}, "test")
    return load_recovery(recovery)(model, make_context(examples=EXAMPLES))


def compressed(name):
    config, target = METHODS[name]
    cls = load_registry().method(name.partition("-")[0]).cls
    method = cls(cls.Config(**FEW, **LOOK, **config))
    return method.compress(make_model(kv_heads=2).requires_grad_(False), make_context(target=target, examples=EXAMPLES))


@pytest.fixture
def passes(monkeypatch):
    """Run something as on an accelerator; how many times the first block's norm runs forwards in the process."""

    def run(make, again):
        monkeypatch.setattr(training, "recomputes", lambda device: again)
        count = 0

        def counted(module, inputs):
            nonlocal count
            count += type(module).__name__.endswith("Attention") and module.layer_idx == 0

        hook = torch.nn.modules.module.register_module_forward_pre_hook(counted)
        try:
            return make(), count
        finally:
            hook.remove()

    return run


def same(one, other):
    weights = dict(one.named_parameters())
    assert weights.keys() == dict(other.named_parameters()).keys()
    assert all(torch.equal(weights[name], weight) for name, weight in other.named_parameters())


@pytest.mark.parametrize("name", METHODS)
def test_methods_that_train_give_the_same_weights_when_blocks_are_computed_again(passes, name):
    (kept, once), (again, more) = (passes(lambda: compressed(name), again) for again in (False, True))
    assert more > once
    same(kept, again)


@pytest.mark.parametrize("make", [lean, make_model], ids=["lean", "stock"])
@pytest.mark.parametrize("name", ["lora", "grouped"])
def test_recoveries_give_the_same_weights_when_blocks_are_computed_again(passes, name, make):
    (kept, once), (again, more) = (passes(lambda: recovered(make(), name), again) for again in (False, True))
    assert more == once + FEW["steps"] * FEW["batch_size"] // FEW["micro_batch"]
    same(kept, again)


def test_blocks_are_computed_again_on_accelerators_alone():
    assert [training.recomputes(torch.device(name)) for name in ("cpu", "cuda", "cuda:1")] == [False, True, True]


def test_nothing_is_left_on_the_blocks(passes):
    model, _ = passes(lambda: recovered(lean(), "lora"), True)
    assert not any("forward" in vars(layer) for layer in layers_of(model))


@pytest.mark.parametrize("name", [*METHODS, "lora recovery", "grouped recovery"])
def test_in_bfloat16_what_is_trained_and_its_optimiser_are_float32(monkeypatch, name):
    seen: list[torch.dtype] = []

    class Watched(torch.optim.AdamW):
        def step(self, *args, **kwargs):
            done = super().step(*args, **kwargs)
            seen.extend(p.dtype for group in self.param_groups for p in group["params"])
            seen.extend(p.grad.dtype for group in self.param_groups for p in group["params"] if p.grad is not None)
            seen.extend(value.dtype for state in self.state.values() for value in state.values())
            return done

    monkeypatch.setattr(torch.optim, "AdamW", Watched)
    make = make_model
    monkeypatch.setattr(f"{__name__}.make_model", lambda **shape: make(**shape).to(torch.bfloat16))
    model = compressed(name) if name in METHODS else recovered(make_model(), name.split()[0])
    assert set(seen) == {torch.float32}
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}


def test_small_updates_of_bfloat16_weights_add_up():
    """Each step moves a bias of 1 by less than half of bfloat16's step there; eight move it."""
    model = attach(make_model().to(torch.bfloat16).requires_grad_(False), make_context(), 8)
    biases = [bottleneck.up.bias for bottleneck in bottlenecks_of(model)]
    for bias in biases:
        bias.data.fill_(1.0)
    config = TrainingConfig(steps=8, batch_size=2, micro_batch=1, lr=1e-3, warmup_steps=0, holdout=0)
    train(model, make_context(), config, EXAMPLES, name="test")
    assert all(bias.grad is None for bias in biases)
    assert all(bool((bias != 1.0).any()) for bias in biases)


def test_copies_gather_what_float32_parameters_would():
    """The micro-batches of a step are added up in float32, and the model follows the copies."""
    narrow = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.bfloat16))
    masters = MasterWeights()
    [master] = masters.of([narrow])
    with masters.gathering():
        for share in (1.0, 2**-10):
            (narrow * share).sum().backward()
    assert narrow.grad is None
    assert master.grad.item() == 1 + 2**-10
    master.data.fill_(1.5)
    masters.write()
    assert narrow.item() == 1.5


MEMORY = """
import torch
from bench.blocks import train as training
from bench.blocks.recoveries import load_recovery, resolve_recovery
from bench.measure.memory import peak_memory
from bench.method import Example
from tests.blocks.context import make_context, token_ids
from tests.tiny import make_model

rows = token_ids(4, 128).tolist()
examples = [Example(row, row) for row in rows]
recovery = resolve_recovery(
    {"name": "lora", "steps": 1, "batch_size": 4, "micro_batch": 4, "max_length": 128, "holdout": 0}, "test"
)
recover = load_recovery(recovery)
recover(make_model(), make_context())
for again in (False, True):
    training.recomputes = lambda device: again
    model = make_model(hidden=256, channels=704, heads=8, kv_heads=8, layers=12, vocab=1000).requires_grad_(False)
    with peak_memory("cpu") as peak:
        recover(model, make_context(examples=examples))
    print(peak.bytes)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark is Linux's")
def test_computing_blocks_again_takes_a_fraction_of_the_memory():
    """What is freed goes back at once here: glibc's heap would keep holes between what stays."""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**16)}
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    kept, again = map(int, done.stdout.split())
    assert again < 0.25 * kept, (kept, again)


def test_the_loss_is_that_of_a_model_that_keeps_everything():
    from bench.blocks.gradients import recomputed

    model = make_model().train()
    ids = token_ids(2, 12)
    losses = []
    for context in (recomputed(model), torch.enable_grad()):
        with context:
            loss = causal_loss(model, ids, ids)
            loss.backward()
            losses.append(loss.item())
    assert losses[0] == losses[1]
