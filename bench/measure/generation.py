"""Speed and memory of greedy generation, always beside the dense model.

One generation is a prefill of `prompt` tokens, which gives the first new token, and `new - 1` decoding steps of one
token over the key/value cache. An end-of-sequence token never stops it, so every generation does the same work, and
tokens are counted from the ids that came out. Rounds alternate A-B-B-A between the dense model and the subject, so that
a drift of the machine cancels in the ratio of each round.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from bench.errors import LeanboardError
from bench.measure import Measurement, Progress
from bench.measure.memory import peak_memory
from bench.measure.size import resident_bytes
from bench.measure.subject import Subject
from bench.record.schema import Direction, Evidence, Metric
from bench.task import GENERATION, GenerationTask, Task

Clock = Callable[[], float]
Sync = Callable[[], None]

PROMPT_SEED = 20_240_229
WARM_UP_NEW = 8
WARM_UP_MOST = 5
WARM_UP_AGREE = 3
WARM_UP_SPREAD = 0.05
RESAMPLES = 4000


@dataclass(frozen=True)
class Workload:
    """Sequences at once, prompt tokens and new tokens of each."""

    batch: int
    prompt: int
    new: int

    @classmethod
    def parse(cls, protocol: str) -> Workload:
        """Of a protocol such as `hf/b1/p64/n128`."""
        match = GENERATION.match(protocol)
        assert match is not None, protocol
        return cls(int(match["batch"]), int(match["prompt"]), int(match["new"]))

    def prompt_ids(self, vocab: int) -> torch.Tensor:
        """Random token ids, int64 [batch, prompt]: the same for every model of one vocabulary."""
        generator = torch.Generator().manual_seed(PROMPT_SEED)
        return torch.randint(vocab, (self.batch, self.prompt), generator=generator)


@dataclass(frozen=True)
class Timing:
    """Seconds of one generation."""

    prefill: float
    decode: float

    @property
    def total(self) -> float:
        return self.prefill + self.decode


@dataclass(frozen=True)
class Stopwatch:
    """A clock and the wait for the device that must stand before each reading of it."""

    clock: Clock
    sync: Sync

    def read(self) -> float:
        self.sync()
        return self.clock()


def measure(task: Task, spec: GenerationTask, subject: Subject, on_progress: Progress) -> Measurement:
    """Speed, speed-up over the dense model (where the subject names one), and peak memory.

    `peak_memory` is what it takes to hold the model and generate: parameters and buffers, plus the highest use of
    memory, above the level before it, during the subject's first generation (CUDA: the allocator's; CPU: resident set
    size, where the kernel can reset its high-water mark). It is left out, with a note, where it cannot be measured.
    """
    work = Workload.parse(task.protocol)
    watch = Stopwatch(time.perf_counter, synchroniser(subject.device))
    prompt = work.prompt_ids(subject.model.config.vocab_size).to(subject.model.device)
    with peak_memory(subject.device) as peak:
        generate(subject.model, prompt, work.new, watch)
    twin = subject.dense_twin()
    models = {"dense": twin.model} if twin is not None else {}
    timings, notes = alternate(
        models | {"measured": subject.model}, prompt, work.new, spec.rounds, watch, on_progress
    )
    metrics = speed_metrics(task, work, timings["measured"], timings.get("dense"))
    if peak.bytes is None:
        notes.append("peak memory not measured: this platform cannot reset its high-water mark")
    else:
        value = resident_bytes(subject.model) + peak.bytes
        metrics.append(
            Metric(id=task.metric_id("peak_memory"), value=value, unit="bytes", direction="lower", n=1)
        )
    samples = {}
    for name, prefix in (("measured", ""), ("dense", "dense_")):
        if name in timings:
            samples[f"{prefix}prefill"] = [t.prefill for t in timings[name]]
            samples[f"{prefix}decode"] = [t.decode for t in timings[name]]
    return Measurement(metrics, Evidence(samples=samples, notes=notes))


def generate(
    model: PreTrainedModel, prompt: torch.Tensor, new: int, watch: Stopwatch
) -> tuple[torch.Tensor, Timing]:
    """Generate greedily and time it; returns the new ids, int64 [batch, new].

    Raises:
        LeanboardError: the model does not keep its key/value cache, so its decoding steps are not what is measured.
    """
    with torch.inference_mode():
        start = watch.read()
        output = model(input_ids=prompt, use_cache=True, logits_to_keep=1)
        tokens = [output.logits[:, -1:].argmax(dim=-1)]
        first = watch.read()
        for _ in range(new - 1):
            output = model(input_ids=tokens[-1], past_key_values=output.past_key_values, use_cache=True)
            tokens.append(output.logits[:, -1:].argmax(dim=-1))
        end = watch.read()
    ids = torch.cat(tokens, dim=1)
    cached, expected = output.past_key_values.get_seq_length(), prompt.shape[1] + new - 1
    if cached != expected:
        raise LeanboardError(f"the key/value cache holds {cached} tokens after generation instead of {expected}")
    if tuple(ids.shape) != (prompt.shape[0], new):
        raise LeanboardError(f"{tuple(ids.shape)} new tokens came out instead of {(prompt.shape[0], new)}")
    return ids, Timing(first - start, end - first)


def alternate(
    models: Mapping[str, PreTrainedModel], prompt: torch.Tensor, new: int, rounds: int, watch: Stopwatch,
    on_progress: Progress = lambda done, total: None,
) -> tuple[dict[str, list[Timing]], list[str]]:
    """Warm the models up and time `rounds` generations of each, A-B-B-A.

    Returns the timings of each model, round by round, and notes on the warm-up.
    """
    notes = [
        f"warm-up of the {name} model did not settle within {WARM_UP_MOST} tries"
        for name, model in models.items()
        if not warm_up(model, prompt, new, watch)
    ]
    timings: dict[str, list[Timing]] = {name: [] for name in models}
    for round_ in range(rounds):
        for name in models if round_ % 2 == 0 else reversed(list(models)):
            timings[name].append(generate(models[name], prompt, new, watch)[1])
        on_progress(round_ + 1, rounds)
    return timings, notes


def warm_up(model: PreTrainedModel, prompt: torch.Tensor, new: int, watch: Stopwatch) -> bool:
    """Generate a few tokens over and over until three successive times agree within 5 %; False where they never do."""
    seconds: list[float] = []
    for _ in range(WARM_UP_MOST):
        seconds.append(generate(model, prompt, min(new, WARM_UP_NEW), watch)[1].total)
        latest = seconds[-WARM_UP_AGREE:]
        if len(latest) == WARM_UP_AGREE and max(latest) <= min(latest) * (1 + WARM_UP_SPREAD):
            return True
    return False


def speed_metrics(
    task: Task, work: Workload, measured: Sequence[Timing], dense: Sequence[Timing] | None = None
) -> list[Metric]:
    """Medians over the rounds with a 95 % bootstrap interval.

    `tokens_per_s` counts the new tokens of all sequences over prefill and decoding; `prefill_ms` is one prefill,
    `decode_ms` one decoding step of the whole batch; `speedup`, where the dense model was timed too, is its time over
    the measured model's in the same round.
    """
    steps = max(1, work.new - 1)
    columns: list[tuple[str, str, Direction, list[float]]] = [
        ("tokens_per_s", "tokens/s", "higher", [work.new * work.batch / t.total for t in measured]),
        ("prefill_ms", "ms", "lower", [1000 * t.prefill for t in measured]),
        ("decode_ms", "ms", "lower", [1000 * t.decode / steps for t in measured]),
    ]
    if dense is not None:
        ratios = [d.total / t.total for d, t in zip(dense, measured, strict=True)]
        columns.append(("speedup", "ratio", "higher", ratios))
    return [
        Metric(
            id=task.metric_id(name), value=statistics.median(values), unit=unit, direction=direction,
            n=len(values), interval=bootstrap_median(values),
        )
        for name, unit, direction, values in columns
    ]


def bootstrap_median(values: Sequence[float]) -> tuple[float, float]:
    """95 % percentile interval of the median over resampled rounds; the same numbers for the same samples."""
    draws = np.random.default_rng(0).choice(np.asarray(values), size=(RESAMPLES, len(values)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return float(low), float(high)


def synchroniser(device: str) -> Sync:
    """What waits until `device` has done all it was given."""
    if device.startswith("cuda"):
        return lambda: torch.cuda.synchronize(device)
    return lambda: None
