"""A training run that was cut off goes on where it was, with the result of an undisturbed one."""

import pytest
import torch

from bench.blocks import resume
from bench.blocks.settings import TrainingConfig
from bench.blocks.train import Hooks, train
from bench.method import Example
from tests.blocks.context import make_context, token_ids
from tests.tiny import make_model

CONFIG = TrainingConfig(
    steps=8, batch_size=2, micro_batch=2, max_length=16, lr=3e-3, warmup_steps=2, holdout=3, evaluate_every=2
)
EXAMPLES = [Example(row, list(row)) for row in token_ids(12, 16).tolist()]


class Killed(Exception):
    pass


class Noisy(torch.nn.Module):
    """A model whose forward pass draws from the global generator, as dropout does."""

    def __init__(self, dtype=torch.float32) -> None:
        super().__init__()
        self.model = make_model(layers=2).to(dtype)

    def forward(self, **inputs):
        output = self.model(**inputs)
        if self.training:
            output.logits = output.logits * (1 + 0.1 * torch.rand(()))
        return output


def run(workspace, killed_at=None, dtype=torch.float32):
    model, ctx, ran = Noisy(dtype), make_context(examples=EXAMPLES, workspace=workspace), []

    def after_step(step):
        ran.append(step)

    def on_progress(what, done, total):
        if done == killed_at:
            raise Killed

    ctx.on_progress = on_progress
    try:
        train(model, ctx, CONFIG, EXAMPLES, name="noisy: run", hooks=Hooks(after_step=after_step))
    except Killed:
        return None, ctx, ran
    return model, ctx, ran


@pytest.fixture(autouse=True)
def _save_each_step(monkeypatch):
    monkeypatch.setattr(resume, "SAVE_SECONDS", 0.0)


@pytest.mark.parametrize(
    ("killed_at", "dtype"), [*((step, torch.float32) for step in (1, 3, 6, 8)), (3, torch.bfloat16)]
)
def test_a_killed_run_goes_on_with_the_same_result(tmp_path, killed_at, dtype):
    whole, ctx, _ = run(None, dtype=dtype)
    assert ctx.meter.optimiser_steps == 8
    run(tmp_path, killed_at, dtype)
    again, ctx, ran = run(tmp_path, dtype=dtype)
    assert ran == list(range(killed_at + 1, 9))
    assert ctx.meter.optimiser_steps == 8
    assert ctx.meter.earlier_seconds > 0
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert list(tmp_path.iterdir()) == []


def test_a_state_that_was_cut_short_is_left_alone_and_the_run_starts_afresh(tmp_path):
    run(tmp_path, 4)
    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    _, ctx, ran = run(tmp_path)
    assert ran == list(range(1, 9))
    assert ctx.meter.optimiser_steps == 8


def test_a_rare_save_is_all_that_a_short_run_pays(tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "SAVE_SECONDS", 60.0)
    run(tmp_path, 4)
    assert list(tmp_path.iterdir()) == []
