"""The state of a training run on disk, so that an interrupted run resumes."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from bench.data.files import replacing
from bench.method import Context

SAVE_SECONDS = 60.0
"""At least this long between two saved states: what a crash can cost."""


@dataclass
class TrainingState:
    """Where a run of the training loop is: steps done, and the best weights by the examples set aside."""

    step: int = 0
    best_loss: float | None = None
    best: list[torch.Tensor] = field(default_factory=list)


class Resume:
    """Saves the state of one training run in the context's workspace, and restores it after a crash.

    What is kept: trained weights, AdamW's moments, the best weights, the step, the random state and the time spent.
    """

    def __init__(self, ctx: Context, name: str, trained: list[nn.Parameter], optimiser: torch.optim.Optimizer) -> None:
        slug = "".join(c if c.isalnum() else "-" for c in name)
        self.file = ctx.workspace / f"{slug}.safetensors" if ctx.workspace is not None else None
        self.ctx, self.trained, self.optimiser = ctx, trained, optimiser
        self.started = self.saved = time.monotonic()
        self.earlier = 0.0

    def load(self) -> TrainingState:
        """The last saved state, put into weights, optimiser and generators; a fresh start where there is none."""
        if self.file is None or not self.file.exists():
            return TrainingState()
        try:
            with safe_open(self.file, "pt") as content:
                meta = json.loads(content.metadata()["state"])
                tensors = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118
        except (OSError, SafetensorError):
            return TrainingState()
        for i, parameter in enumerate(self.trained):
            parameter.data.copy_(tensors[f"weight.{i}"])
            self.optimiser.state[parameter] = {
                key.rpartition(".")[2]: value.to(parameter.device) if value.dim() else value
                for key, value in tensors.items()
                if key.startswith(f"moment.{i}.")
            }
        torch.set_rng_state(tensors["random"])
        if self.ctx.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random.cuda"], self.ctx.device)
        self.earlier = meta["seconds"]
        self.ctx.meter.optimiser_steps += meta["step"]
        self.ctx.meter.earlier_seconds += self.earlier
        best = [tensors[f"best.{i}"].to(p.device) for i, p in enumerate(self.trained) if f"best.{i}" in tensors]
        return TrainingState(meta["step"], meta["best_loss"], best)

    def save(self, progress: TrainingState) -> None:
        """Save the state, unless the last time was less than a minute ago."""
        now = time.monotonic()
        if self.file is None or now - self.saved < SAVE_SECONDS:
            return
        tensors = {"random": torch.get_rng_state()}
        if self.ctx.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.ctx.device)
        for i, parameter in enumerate(self.trained):
            tensors[f"weight.{i}"] = parameter.detach().clone()
            for key, value in self.optimiser.state[parameter].items():
                tensors[f"moment.{i}.{key}"] = value.detach().clone()
        tensors |= {f"best.{i}": tensor for i, tensor in enumerate(progress.best)}
        seconds = self.earlier + now - self.started
        meta = {"step": progress.step, "best_loss": progress.best_loss, "seconds": seconds}
        with replacing(self.file) as new:
            save_file(tensors, new, {"state": json.dumps(meta)})
        self.saved = now

    def done(self) -> None:
        """The run is over: a later one of the same name starts afresh."""
        if self.file is not None:
            self.file.unlink(missing_ok=True)
