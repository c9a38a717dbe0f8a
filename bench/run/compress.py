"""The life of a checkpoint: load → compress → recover → finalize → save → reload. The only caller of methods."""

from __future__ import annotations

import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bench.blocks.recoveries import load_recovery
from bench.checkpoint_files import weights_sha256
from bench.data.calibration import random_windows, sampler_of
from bench.data.training import token_examples, training_examples
from bench.errors import MethodError, UsageError
from bench.measure.memory import peak_memory, set_aside
from bench.method import TARGET_TOLERANCE, Context, Example, Method, Progress, Target
from bench.model.checkpoint import Manifest, load_checkpoint, save_checkpoint
from bench.model.layers import shape_of
from bench.model.load import Loaded, load_folder
from bench.model.surgery import kept_of
from bench.record.keys import artifact_key
from bench.record.schema import Cost
from bench.suite import RandomTokens, TextSource

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TRANSFORMATION = ("compress", "recover", "finalize")

RANDOM_EXAMPLES = 4096
"""Training examples of random tokens: more than any published recipe uses."""


@dataclass(frozen=True)
class Texts:
    """Sources of a method's text: the caller's own token ids [N, T], columns of the data pack, or random tokens."""

    ids: torch.Tensor | None = None
    calibration: TextSource | RandomTokens | None = None
    training: TextSource | RandomTokens | None = None

    def sampler(self, tokenizer: PreTrainedTokenizerBase | None, seed: int) -> Callable[[int, int, int], torch.Tensor]:
        """Calibration windows [n, seq_len] by draw: the same for every method of a run with the same seed."""

        @cache
        def windows(source: TextSource) -> Callable[[int, int, int], torch.Tensor]:
            return sampler_of(source, _needed(tokenizer))

        def sample(n: int, seq_len: int, draw: int) -> torch.Tensor:
            if self.ids is not None:
                return self.ids
            if self.calibration is None:
                raise MethodError("the method asks for calibration text, but its traits do not say that it needs any")
            if isinstance(self.calibration, RandomTokens):
                return random_windows(self.calibration.random_tokens, n, seq_len, seed * 1000 + draw)
            return windows(self.calibration)(n, seq_len, seed * 1000 + draw)

        return sample

    def examples(self, tokenizer: PreTrainedTokenizerBase | None, seed: int) -> Callable[[int, str], Sequence[Example]]:
        """A function that gives training examples of a maximal length, with a text before each."""

        def examples(max_length: int, prefix: str) -> Sequence[Example]:
            if self.ids is not None:
                return token_examples(self.ids, max_length)
            if self.training is None:
                raise MethodError("the method asks for training text, but its traits do not say that it needs any")
            if isinstance(self.training, RandomTokens):
                ids = random_windows(self.training.random_tokens, RANDOM_EXAMPLES, max_length, seed)
                return token_examples(ids, max_length)
            return training_examples(self.training, _needed(tokenizer), max_length, prefix)

        return examples


@dataclass(frozen=True)
class Order:
    """What to make, and from which dense model."""

    weights: Path
    method: Method
    recovery: dict[str, Any] | None
    target: Target | None
    seed: int
    dtype: str
    device: str
    texts: Texts
    ingredients: dict[str, Any]


@dataclass
class Built:
    """A checkpoint that was saved, loaded again and found to give the same logits; `loaded` is the model loaded."""

    path: Path
    manifest: Manifest
    weights_sha256: str
    loaded: Loaded
    widths: list[tuple[int, int, int]]
    cost: Cost


@dataclass
class Stages:
    """Wall seconds and memory by stage, and the name of the current one (for the record of a failure).

    `levels` are the bytes in use at the start of a stage, `peaks` the most in it, both above those at the start of the
    first (empty where the platform does not report them).
    """

    device: str
    current: str = "load"
    seconds: dict[str, float] = field(default_factory=dict)
    levels: dict[str, int] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)
    _ground: int | None = None

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self.current = name
        with peak_memory(self.device) as peak:
            start = time.perf_counter()
            yield
            self.seconds[name] = time.perf_counter() - start
        if peak.start is not None and peak.bytes is not None:
            self._ground = peak.start if self._ground is None else self._ground
            self.levels[name] = peak.start - self._ground
            self.peaks[name] = self.levels[name] + peak.bytes

    def above_the_loaded_model(self) -> int | None:
        """How far memory rose in the transformation above its level before it."""
        peaks = [self.peaks[name] for name in TRANSFORMATION if name in self.peaks]
        return max(peaks) - self.levels["compress"] if peaks else None


def build(order: Order, out: Path, stages: Stages, on_progress: Progress = lambda what, done, total: None) -> Built:
    """Make the checkpoint that `order` asks for in folder `out`.

    Raises:
        LeanboardError: the method, the target, the text or the disk is at fault; `stages.current` names the stage.
    """
    _import_code_of(order)
    with set_aside():
        return _build(order, out, stages, on_progress)


def _build(order: Order, out: Path, stages: Stages, on_progress: Progress) -> Built:
    workspace = out.with_name(f"{out.name}.{artifact_key(order.ingredients)}.work")
    with stages("load"):
        model, tokenizer = load_folder(order.weights, order.dtype, order.device)
    dense = shape_of(model)
    _check_ids(order.texts.ids, dense.vocab)
    ctx = Context(
        seed=order.seed,
        device=model.device,
        target=order.target,
        tokenizer=tokenizer,
        sample=order.texts.sampler(tokenizer, order.seed),
        examples_source=order.texts.examples(tokenizer, order.seed),
        workspace=workspace,
        on_progress=on_progress,
    )
    handed_over = [model]
    del model  # what a method puts in its place is soon the only one in memory
    with seeded(ctx.derived_seed("global")):
        model = _transform(handed_over.pop(), order, ctx, stages)
    _check_no_global_hooks()
    _check_finite(model)
    after = shape_of(model)
    achieved = dense.removed(after)
    _check_target(order.target, achieved)
    with stages("save"):
        manifest = save_checkpoint(
            out, model, tokenizer, ingredients=order.ingredients, achieved=achieved, kept=kept_of(model)
        )
        weights = weights_sha256(out)
        del model
    with stages("reload"):
        loaded = load_checkpoint(out, order.dtype, order.device)
    shutil.rmtree(workspace, ignore_errors=True)
    if ctx.meter.earlier_seconds:
        stages.seconds["before an interruption"] = ctx.meter.earlier_seconds
    cost = Cost(
        seconds=stages.seconds,
        peaks=stages.peaks,
        peak_memory_bytes=stages.above_the_loaded_model(),
        calibration_tokens=ctx.meter.calibration_tokens,
        optimiser_steps=ctx.meter.optimiser_steps,
        trainable_parameters=ctx.meter.trainable_parameters,
    )
    widths = [(b.heads, b.kv_heads, b.channels) for b in after.blocks]
    return Built(out, manifest, weights, loaded, widths, cost)


def _import_code_of(order: Order) -> None:
    """Import the code of the method and its recovery, which is not part of the cost of compressing."""
    package = sys.modules[type(order.method).__module__]
    if hasattr(package, "__path__") and find_spec(f"{package.__name__}.method"):
        import_module(f"{package.__name__}.method")
    if order.recovery is not None:
        load_recovery(order.recovery)


def _transform(model: PreTrainedModel, order: Order, ctx: Context, stages: Stages) -> PreTrainedModel:
    with stages("compress"):
        model = _model(order.method.compress(model, ctx), "compress")
    with stages("recover"):
        model = _model(order.method.recover(model, ctx), "recover")
        if order.recovery is not None:
            model = load_recovery(order.recovery)(model, ctx)
    with stages("finalize"):
        model = _model(order.method.finalize(model, ctx), "finalize")
    return model.eval().requires_grad_(False)


def _model(value: Any, stage: str) -> PreTrainedModel:
    if not isinstance(value, torch.nn.Module):
        raise MethodError(f"{stage}() returned {type(value).__name__}, not the model")
    return value


def _check_ids(ids: torch.Tensor | None, vocab: int) -> None:
    if ids is not None and not 0 <= int(ids.min()) <= int(ids.max()) < vocab:
        raise UsageError(f"calibration: token ids must be within 0..{vocab - 1}, the model's vocabulary")


def _check_no_global_hooks() -> None:
    """A hook on all modules would outlast the model, and change what is measured."""
    known = vars(torch.nn.modules.module)
    names = [name for name in known if name.startswith("_global_") and name.endswith("_hooks")]
    left = [name for name in names if known[name]]
    if left:
        for name in left:
            known[name].clear()
        raise MethodError(f"the method left hooks on all modules of torch ({', '.join(left)})")


def _check_finite(model: PreTrainedModel) -> None:
    broken = [name for name, weight in model.named_parameters() if not bool(torch.isfinite(weight).all())]
    if broken:
        raise MethodError(f"weights are not finite after compression: {', '.join(broken[:3])}")


def _check_target(target: Target | None, achieved: dict[str, float]) -> None:
    if target is None or target.basis == "group_ratio":
        return
    if abs(achieved[target.basis] - target.value) > TARGET_TOLERANCE:
        raise MethodError(
            f"target {target}: the method removed {achieved[target.basis]:.4f}, more than {TARGET_TOLERANCE} off"
        )


def _needed(tokenizer: PreTrainedTokenizerBase | None) -> PreTrainedTokenizerBase:
    if tokenizer is None:
        raise UsageError("the checkpoint has no tokenizer, so text cannot be encoded; give token ids as calibration=")
    return tokenizer


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global random states from `seed` inside; restore them, torch's threads and its defaults at the end."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    threads, dtype, gradients = torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
            torch.set_num_threads(threads)
            torch.set_default_dtype(dtype)
            torch.set_grad_enabled(gradients)
