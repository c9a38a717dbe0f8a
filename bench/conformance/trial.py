"""A method under test, taken through `bench.run.compress.build` as a user's run takes it, and watched on the way."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import PreTrainedModel

from bench.conformance.reader import Reader
from bench.conformance.reload import logits_of, probe_ids
from bench.conformance.tiny import make_checkpoint, make_uneven_checkpoint, variants
from bench.family import built_in, known
from bench.method import Context, Meter, Method, MethodConfig, Preset, Target
from bench.model.checkpoint import Manifest
from bench.registry import MethodEntry
from bench.run.compress import Built, Order, Stages, Texts, build

MODELS: dict[str, dict[str, Any]] = {
    "mha": {},
    "mha-tied": {"tied": True},
    "gqa": {"heads": 8, "kv_heads": 4},
    "gqa-tied": {"kv_heads": 2, "tied": True},
}
"""Of the default family: the first check is made on all."""
ENDS = ("mha", "gqa-tied")
"""Two of them that have nothing of this in common: what takes several runs is asked on these."""
SIZE: dict[str, Any] = {"layers": 4, "channels": 256}
UNEVEN = "uneven"
SMALL = {"steps": 2, "batch_size": 2, "micro_batch": 2, "holdout": 0, "max_length": 24, "sweeps": 4, "spans": 2}
"""Fields of settings that say how long something goes on, where a method has them: the whole method, in seconds."""


def models_of_families() -> dict[str, dict[str, Any]]:
    """One of every family, with all that its table tells, and of one that is plugged in the plain one too."""
    return {
        f"{family.model_type}-{kind}": fields
        for family in known().values()
        for kind, fields in variants(family).items()
        if kind == "gqa" or family.model_type not in built_in()
    }


@dataclass
class Sight:
    """What was seen of one run.

    `left_behind` are sentences; `looks` counts how often cancellation was asked for, and `steps` how often torch's
    optimisers took a step, whatever the meter says.
    """

    meter: Meter = field(default_factory=Meter)
    steps: int = 0
    looks: int = 0
    left_behind: list[str] = field(default_factory=list)
    loss: float = float("nan")
    logits: torch.Tensor = field(default_factory=lambda: torch.empty(0))


class Watched(Method):
    """The method under test with its context in sight: a smaller budget or an interruption can be put into it."""

    def __init__(self, inner: Method, *, max_steps: int | None = None, cancel_at: int | None = None) -> None:
        self.inner, self.max_steps, self.cancel_at = inner, max_steps, cancel_at
        self.sight = Sight()

    def compress(self, model: PreTrainedModel, ctx: Context) -> PreTrainedModel:
        self.sight.meter, ctx.max_steps, ctx.is_cancelled = ctx.meter, self.max_steps, self._look
        self.before = _global_state()
        return self.inner.compress(model, ctx)

    def recover(self, model: PreTrainedModel, ctx: Context) -> PreTrainedModel:
        return self.inner.recover(model, ctx)

    def finalize(self, model: PreTrainedModel, ctx: Context) -> PreTrainedModel:
        model = self.inner.finalize(model, ctx)
        after = _global_state()
        changed = [f"it changes {name}" for name, value in self.before.items() if value != after[name]]
        self.sight.left_behind = [*changed, *_left_on(model)]
        self.sight.logits = logits_of(model)
        ids = probe_ids(model.config.vocab_size)
        with torch.no_grad():
            self.sight.loss = float(model(ids, labels=ids).loss)
        return model

    def _look(self) -> bool:
        self.sight.looks += 1
        return self.cancel_at is not None and self.sight.looks >= self.cancel_at


@dataclass(frozen=True)
class TrialRun:
    """A finished run: the checkpoint that the harness made, and what was seen of it."""

    path: Path
    manifest: Manifest
    sight: Sight


class Trial:
    """The runs of one method that the checks ask for, each made once, in `folder`; `reader` loads what they saved."""

    def __init__(self, entry: MethodEntry, folder: Path, reader: Reader) -> None:
        self.entry, self.folder, self.reader = entry, folder, reader
        self.traits = entry.cls.traits
        self._runs: dict[str, TrialRun | Exception] = {}

    @property
    def sized(self) -> bool:
        """Whether a size target is asked of the method: it changes shapes, and is no PEFT method."""
        return "shapes" in self.traits.changes and self.traits.track != "peft"

    @property
    def usual(self) -> Target | None:
        return Target(value=0.2) if self.sized else None

    @cached_property
    def config(self) -> MethodConfig:
        """The method's defaults, with training made short."""
        small = {name: value for name, value in SMALL.items() if name in self.entry.cls.Config.model_fields}
        return self.entry.config(Preset(description=""), small)

    def weights(self, model: str) -> Path:
        """The dense checkpoint called `model`, the same for every trial of this process."""
        folder = Path(_dense().name) / model
        if not folder.exists():
            if model == UNEVEN:
                make_uneven_checkpoint(folder, **SIZE | MODELS["gqa-tied"])
            else:
                make_checkpoint(folder, **SIZE | (MODELS | models_of_families())[model])
        return folder

    def usual_runs(self) -> Iterator[tuple[str, TrialRun]]:
        """A run on every model, one after the other, at a target of 20 % where the method has a size."""
        return ((model, self.run(model, self.usual)) for model in [*MODELS, *models_of_families()])

    def run(self, model: str, target: Target | None, *, seed: int = 0, again: str = "") -> TrialRun:
        """The run on `model`, made the first time it is asked for; another `again` makes another.

        Raises:
            Exception: whatever the method raised.
        """
        name = f"{model}-{target}-{seed}{again}"
        if name not in self._runs:
            watched = self.watched()
            try:
                built = self.build(watched, name, model, target, seed)
                self._runs[name] = TrialRun(built.path, built.manifest, watched.sight)
            except Exception as error:  # a method may fail in any way, and every check that needs this run says so
                self._runs[name] = error
        found = self._runs[name]
        if isinstance(found, Exception):
            raise found
        return found

    def watched(self, **how: int) -> Watched:
        return Watched(self.entry.cls(self.config), **how)

    def build(self, watched: Watched, name: str, model: str, target: Target | None, seed: int = 0) -> Built:
        """Through the harness, with random token ids as text, into folder `name`."""
        ids = torch.randint(3, 300, (6, 24), generator=torch.Generator().manual_seed(11))
        order = Order(
            weights=self.weights(model),
            method=watched,
            recovery=None,
            target=target,
            seed=seed,
            dtype="float32",
            device="cpu",
            texts=Texts(ids=ids),
            ingredients={"conformance": name},
        )

        def count(*_: Any) -> None:
            watched.sight.steps += 1

        hook = register_optimizer_step_post_hook(count)
        try:
            return build(order, self.folder / name, Stages(order.device))
        finally:
            hook.remove()


@cache
def _dense() -> TemporaryDirectory[str]:
    """The folder of the dense models; it goes with the process."""
    return TemporaryDirectory(prefix="leanboard-")


def _global_state() -> dict[str, Any]:
    numpy_state = cast(tuple[Any, ...], np.random.get_state())
    return {
        "torch's global random state": torch.get_rng_state().tolist(),
        "numpy's global random state": [numpy_state[1].tolist(), *numpy_state[2:]],
        "python's global random state": random.getstate(),
        "whether torch records gradients": torch.is_grad_enabled(),
        "torch's default dtype": torch.get_default_dtype(),
    }


def _left_on(model: nn.Module) -> list[str]:
    """What a method may not leave on the model it hands back."""
    found = []
    if any(module.training for module in model.modules()):
        found.append("a module is in training mode")
    for name, parameter in model.named_parameters():
        if parameter.grad is not None or parameter.requires_grad:
            found.append(f"{name} has a gradient or asks for one")
            break
    for name, module in model.named_modules():
        hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        if any(getattr(module, kind) for kind in hooks) or hasattr(module, "parametrizations"):
            found.append(f"{name or 'the model'} has a hook or a parametrisation")
            break
    return found
