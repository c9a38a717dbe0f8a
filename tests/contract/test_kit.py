"""The kit finds what is wrong: faulty methods, each of which one check must refuse with a sentence that says why."""

import random
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from pydantic import Field

from bench.blocks.groups import blocks_of, head_of, keep_groups, prune, shape_of
from bench.blocks.settings import SelectionConfig, TrainingConfig
from bench.blocks.train import train
from bench.conformance.checks import CHECKS
from bench.conformance.declared import Failed, NotAsked
from bench.conformance.reader import Reader
from bench.conformance.trial import Trial
from bench.errors import BudgetExceeded, LeanboardError
from bench.method import Context, Method, MethodConfig, Traits
from bench.registry import MethodEntry, load_registry
from methods.magnitude.method import compress as by_magnitude

SHAPES = Traits(title="Faulty", track="pruning", changes={"shapes"})
VALUES = Traits(title="Faulty", track="decomposition", changes={"values"})
TRAINS = Traits(title="Faulty", track="pruning", changes={"values"}, needs={"training"}, deterministic=False)


class Settings(SelectionConfig):
    norm: str = Field("l2", description="needed by the method below")
    reduction: str = Field("mean", description="needed by the method below")


class Sound(Method):
    """Prunes by magnitude; the faulty ones below go wrong on top of it."""

    name, version, traits = "faulty", "1", SHAPES
    Config: ClassVar[type[MethodConfig]] = Settings

    def compress(self, model: Any, ctx: Context) -> Any:
        return by_magnitude(model, ctx, self.config)  # type: ignore[arg-type]


class FixedSize(Sound):
    def compress(self, model: Any, ctx: Context) -> Any:
        few = {layer: range(200) for layer in range(6)}
        return prune(model, keep_groups(shape_of(model), {}, few))


class NeedsATarget(Sound):
    def compress(self, model: Any, ctx: Context) -> Any:
        return super().compress(model, ctx) if ctx.target else model


class Restless(Sound):
    def compress(self, model: Any, ctx: Context) -> Any:
        model = super().compress(model, ctx)
        next(model.parameters()).data[0, 0] += Restless.count  # not from the run's seed
        Restless.count += 1
        return model

    count = 0


class Seeded(Sound):
    def compress(self, model: Any, ctx: Context) -> Any:
        model = super().compress(model, ctx)
        next(model.parameters()).data[0] += torch.rand(64, generator=ctx.generator("noise"))
        return model


class LeavesAHook(Sound):
    def compress(self, model: Any, ctx: Context) -> Any:
        model = super().compress(model, ctx)
        model.register_forward_pre_hook(lambda *_: None)
        return model


class LeavesAGradient(Sound):
    def compress(self, model: Any, ctx: Context) -> Any:
        model = super().compress(model, ctx)
        next(model.parameters()).requires_grad_(True)
        return model


class LeavesTraining(Sound):
    def compress(self, model: Any, ctx: Context) -> Any:
        return super().compress(model, ctx).train()


class DrawsTorch(Sound):
    def compress(self, model: Any, ctx: Context) -> Any:
        torch.rand(1)
        return super().compress(model, ctx)


class DrawsNumpy(Sound):
    def compress(self, model: Any, ctx: Context) -> Any:
        np.random.rand(1)
        return super().compress(model, ctx)


class DrawsPython(Sound):
    def compress(self, model: Any, ctx: Context) -> Any:
        random.random()
        return super().compress(model, ctx)


class DoesNothing(Sound):
    traits, Config = VALUES, MethodConfig

    def compress(self, model: Any, ctx: Context) -> Any:
        return model


class ReadsInSecret(Sound):
    def compress(self, model: Any, ctx: Context) -> Any:
        ctx.calibration(1, 8)
        return super().compress(model, ctx)


class PatchesForward(Sound):
    """Works as long as the model lives; what is saved is another one."""

    def compress(self, model: Any, ctx: Context) -> Any:
        model = super().compress(model, ctx)
        old = model.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            out = old(*args, **kwargs)
            out.logits = out.logits * 1.01
            return out

        model.forward = forward
        return model


class CountsNoSteps(Sound):
    """Changes the weights without the training loop."""

    traits, Config = TRAINS, TrainingConfig

    def compress(self, model: Any, ctx: Context) -> Any:
        next(model.parameters()).data *= 1.1
        return model


class TrainsTooLong(Sound):
    traits, Config, steps = TRAINS, TrainingConfig, 5

    def compress(self, model: Any, ctx: Context) -> Any:
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        longer = TrainingConfig(**self.config.model_dump() | {"steps": self.steps})
        train(model, ctx, longer, ctx.examples(24), name="faulty")
        return model.requires_grad_(False)


class StepsInSecret(TrainsTooLong):
    steps = 2

    def compress(self, model: Any, ctx: Context) -> Any:
        model = super().compress(model, ctx)
        weight = next(model.parameters())
        weight.grad = weight.detach().clone()
        torch.optim.SGD([weight], lr=0.1).step()
        weight.grad = None
        return model


class SwallowsTheBudget(TrainsTooLong):
    def compress(self, model: Any, ctx: Context) -> Any:
        try:
            return super().compress(model, ctx)
        except BudgetExceeded:
            return model.requires_grad_(False)


class SwallowsInterruptions(TrainsTooLong):
    def compress(self, model: Any, ctx: Context) -> Any:
        ctx.is_cancelled()
        for parameter in model.parameters():
            parameter.data *= 1.01
        return model


class Coerces(Sound):
    class Config(SelectionConfig):
        norm: Any = Field("l2", description="takes anything")

    def compress(self, model: Any, ctx: Context) -> Any:
        return model


class Diverges(Sound):
    """Finite weights, infinite logits."""

    def compress(self, model: Any, ctx: Context) -> Any:
        model = super().compress(model, ctx)
        head_of(model).weight.data *= 3e38
        return model


class Rescales(Sound):
    """Its traits say that shapes alone change."""

    def compress(self, model: Any, ctx: Context) -> Any:
        model = super().compress(model, ctx)
        blocks_of(model)[1].down.weight.data *= 1.01
        return model


class ForgetsBiases(Sound):
    def compress(self, model: Any, ctx: Context) -> Any:
        model = super().compress(model, ctx)
        if (bias := blocks_of(model)[1].gate.bias) is not None:
            bias.data.zero_()
        return model


FAULTS = [
    (FixedSize, "size targets", "mha: target params=0.1: the method removed"),
    (NeedsATarget, "without a target", "nothing went"),
    (Restless, "same seed", "different weights"),
    (Seeded, "other seeds", "another seed gave other weights"),
    (LeavesAHook, "nothing left behind", "the model has a hook"),
    (LeavesAGradient, "nothing left behind", "has a gradient or asks for one"),
    (LeavesTraining, "nothing left behind", "training mode"),
    (DrawsTorch, "nothing left behind", "torch's global random state"),
    (DrawsNumpy, "nothing left behind", "numpy's global random state"),
    (DrawsPython, "nothing left behind", "python's global random state"),
    (DoesNothing, "honest counts", r"its traits say that \['values'\] changes; not so"),
    (ReadsInSecret, "metering", r"it read 144 calibration tokens; its traits need \[\]"),
    (PatchesForward, "runs", "logits differ"),
    (Rescales, "only removed", "mha: the dense model without what was removed has other logits"),
    (ForgetsBiases, "only removed", "llama-gqa: the dense model without what was removed has other logits"),
    (CountsNoSteps, "metering", r"0 steps on 0 parameters; its traits need \['training'\]"),
    (TrainsTooLong, "metering", "it made 5 optimiser steps where its settings say steps=2"),
    (StepsInSecret, "metering", r"3 optimiser steps were made, and 2 reported by ctx.count_step\(\)"),
    (SwallowsTheBudget, "step budget", "made more and went on"),
    (SwallowsInterruptions, "interruption", "it was interrupted and went on"),
    (Coerces, "bad values", "norm=.* is not refused"),
    (Diverges, "runs", "mha: .*probe.logits"),
]


@pytest.mark.parametrize(("method", "check", "sentence"), FAULTS, ids=[fault[0].__name__ for fault in FAULTS])
def test_a_fault_is_found(method: type[Method], check: str, sentence: str, tmp_path: Path, reader: Reader) -> None:
    trial = Trial(MethodEntry(method, "a test"), tmp_path, reader)
    with pytest.raises((Failed, LeanboardError), match=sentence):
        CHECKS[check](trial)


@pytest.mark.slow
def test_a_sound_method_passes(tmp_path: Path, reader: Reader) -> None:
    trial = Trial(MethodEntry(Sound, "a test"), tmp_path, reader)
    declared = ("metadata", "unknown key", "bad values", "presets and card")
    for check in (*declared, "runs", "honest counts", "reload", "only removed"):
        assert CHECKS[check](trial)


def test_what_makes_no_sense_is_not_asked(tmp_path: Path, reader: Reader) -> None:
    trial = Trial(load_registry().method("dense"), tmp_path, reader)
    for check in ("size targets", "step budget", "interruption"):
        with pytest.raises(NotAsked):
            CHECKS[check](trial)


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_loaded_is_told_and_the_reader_goes_on(tmp_path: Path, reader: Reader) -> None:
    trial = Trial(MethodEntry(Sound, "a test"), tmp_path, reader)
    built = trial.run("mha", None).path
    (tmp_path / "empty").mkdir()
    with pytest.raises(RuntimeError, match=r"Error: .*empty"):
        reader.logits(tmp_path / "empty")
    assert reader.logits(built).shape[:2] == (2, 24)
